"""The host of load generators on one node: it starts their processes there and passes messages on.

A generator is the same process as on the machine of pytest. It ends with its host, as every child process does.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import Counter
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pytest_mlpatterns.engines.ray.messages import Ended, Started
from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.loadgen.ceiling import measure_ceiling, measure_library_overhead
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.generator_process import LocalProcess
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, Transport
from pytest_mlpatterns.system.cgroups import allowed_connections
from pytest_mlpatterns.system.child import end_with_parent
from pytest_mlpatterns.system.machine import machine_identity
from pytest_mlpatterns.system.owned_files import ScratchDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_mlpatterns.engines.ray.cluster import NodeFacts


class GeneratorHost:
    """The generator processes of one node, by the keys that pytest gave them; several threads may call it.

    Its files are there only while it has processes: nothing ends the actor of a host in good order.

    Args:
        ends_with_parent: whether this process is to end, with its generators, when its parent does. Ray's processes
            outlive a raylet that was killed, and a generator would go on with its load.
    """

    def __init__(self, *, ends_with_parent: bool = False) -> None:
        if ends_with_parent:
            end_with_parent(lambda: os._exit(1))  # its generators end because their pipes close
        self._scratch: ScratchDirectory | None = None
        self._changing = threading.RLock()
        self._processes: dict[int, LocalProcess] = {}
        self._heard: queue.SimpleQueue[tuple[int, object]] = queue.SimpleQueue()

    def facts(self) -> tuple[str, int | None]:
        """Identity of the machine, and how many connections a process may open."""
        return machine_identity(), allowed_connections()

    def now_ns(self) -> int:
        """What the clock of the machine shows."""
        return time.perf_counter_ns()

    def load(self, key: int, job: LoadJob, messages: tuple[bytes, ...]) -> None:
        """Give a process a job; it is started if it does not run."""
        if (process := self._processes.get(key)) is not None and process.has_ended:
            self.stop(key)
            process = None
        try:
            process = process or self._start(key)
        except OSError as error:
            self._heard.put((key, Ended(f"it did not start: {error}")))
            return
        with contextlib.suppress(ChildError):  # which the thread that listens to it reports
            process.send(replace(job, messages=messages))

    def send(self, key: int, message: object) -> None:
        """Pass a message on to a process; one that has ended is reported by the thread that listens to it."""
        if (process := self._processes.get(key)) is not None:
            with contextlib.suppress(ChildError):
                process.send(message)

    def receive(self, timeout_s: float) -> list[tuple[int, object]]:
        """The messages that came, with the keys of their processes; waits for the first one."""
        heard: list[tuple[int, object]] = []
        with contextlib.suppress(queue.Empty):
            heard.append(self._heard.get(timeout=timeout_s))
            while True:
                heard.append(self._heard.get_nowait())
        return heard

    def why_stopped(self, key: int) -> str:
        """Who is stopped, and how; empty if the process runs."""
        process = self._processes.get(key)
        return "" if process is None else process.why_stopped()

    def close_channel(self, key: int) -> None:
        """Ask a process to end, without waiting for it."""
        if (process := self._processes.get(key)) is not None:
            process.close_channel()

    def stop(self, key: int) -> None:
        """End a process, and wait until it is gone; with the last one the files of this host go."""
        if (process := self._processes.pop(key, None)) is not None:
            process.stop()
        self._remove_files()

    def ceiling_rps(self, transport: Transport) -> float:
        """Requests per second that a generator reaches here against a server that does nothing."""
        with self._generator() as generator:
            measure_ceiling(generator, self._directory, transport)
            return generator.ceilings_rps[transport]

    def library_overhead_ns(self) -> float:
        """Time that a client library adds to the median request here."""
        with self._generator() as generator:
            measure_library_overhead(generator, self._directory)
            assert generator.library_overhead_ns is not None
            return generator.library_overhead_ns

    @property
    def _directory(self) -> Path:
        with self._changing:
            if self._scratch is None:
                self._scratch = ScratchDirectory()
            return self._scratch.path

    def _remove_files(self) -> None:
        """Remove the files, unless a process uses them."""
        with self._changing:
            if self._scratch is not None and not self._processes:
                self._scratch.remove()
                self._scratch = None

    @contextlib.contextmanager
    def _generator(self) -> Iterator[Generator]:
        """A generator of its own, for measuring what one can do here."""
        generator = Generator(self._directory / "ceiling.log")
        try:
            yield generator
        finally:
            generator.close()
            self._remove_files()

    def _start(self, key: int) -> LocalProcess:
        with self._changing:
            process = self._processes[key] = LocalProcess(self._directory / f"generator.{key}.log")
        self._heard.put((key, Started(process.pid)))
        threading.Thread(target=self._listen, args=(key, process), name=f"generator {key}", daemon=True).start()
        return process

    def _listen(self, key: int, process: LocalProcess) -> None:
        """Pass on what a process sends, until it has ended."""
        with contextlib.suppress(TimeoutError):
            try:
                while True:
                    self._heard.put((key, with_raw_columns(process.receive(threading.TIMEOUT_MAX))))
            except ChildError as error:
                if self._processes.get(key) is process:
                    self._heard.put((key, Ended(str(error))))


def with_raw_columns(message: Any) -> Any:
    """A message whose recorded columns, if it has some, cross a process boundary as raw bytes, without a copy."""
    if not isinstance(message, LoadResult):
        return message
    return replace(message, columns={name: PickleBuffer(column) for name, column in message.columns.items()})


def place(placed: Sequence[str], nodes: Sequence[NodeFacts], generators: int) -> list[str]:
    """The node of each generator, in the order of their numbers.

    Generators that have a node keep it, so that their processes and ceilings are kept too. The others go in turn to the
    nodes with the fewest generators: those with most cores first, and the head last, which has Ray's own work.

    Args:
        nodes: the nodes of the cluster that are alive; at least one.
    """
    order = [node.node_id for node in sorted(nodes, key=lambda node: (node.is_head, -node.cores, node.ip))]
    kept = [node if node in order else "" for node in placed[:generators]]
    found = kept + [""] * (generators - len(kept))
    counts = Counter(filter(None, found))
    for number, node in enumerate(found):
        if not node:
            found[number] = min(order, key=lambda one: counts[one])
            counts[found[number]] += 1
    return found
