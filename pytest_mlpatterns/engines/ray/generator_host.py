"""Load generators on the nodes of a Ray cluster: the pool that pytest has, and the host of those on one node.

A generator is the same process as on the machine of pytest. Its host starts it, and passes messages on between it and
the Ray driver; it ends with its host, as every child process does.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from pickle import PickleBuffer
from typing import Any
from urllib.parse import urlsplit

import psutil
from msgspec.structs import replace

from pytest_mlpatterns.engines.ray.cluster import SAME_CLOCK, ClockOffset, NodeFacts
from pytest_mlpatterns.engines.ray.messages import Ended, Heard, HostFacts, Started
from pytest_mlpatterns.engines.ray.session import RaySession
from pytest_mlpatterns.errors import ChildError, MlpatternsError, SettingError
from pytest_mlpatterns.loadgen.ceiling import (
    check_connections,
    check_samples,
    measure_ceiling,
    measure_library_overhead,
    require_fit,
)
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.generator_process import LocalProcess
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, OpenWindow, Transport, WindowOpened
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.system.child import Mailbox, end_with_parent
from pytest_mlpatterns.system.machine import machine_identity
from pytest_mlpatterns.system.process_limits import allowed_connections
from pytest_mlpatterns.system.scratch_directory import ScratchDirectory
from pytest_mlpatterns.workload.endpoint import Endpoint

_HOSTS = "pytest_mlpatterns.engines.ray.remote.generator_hosts:hosts"
_OPENING_NS = 100_000_000  # Least time from the order to open the window until it opens everywhere, in nanoseconds
_ROUND_TRIPS = 20  # Round trips to the farthest generator that this time has room for
_EACH_NS = 5_000_000  # In which the time of the opening is sent to one generator
_ANSWER_S = 60.0  # Time limit for an answer of a host, in seconds, on a busy cluster too
_START_S = 150.0  # Time limit for the start of all hosts, in seconds; Ray starts a process for each
_CEILINGS_S = 240.0  # Time limit for the measurement of all ceilings, in seconds; one node's follow each other
_LOOK_S = 0.5  # Interval at which a host is asked whether a process is stopped, in seconds
_END_S = 15.0  # Time limit for the end of a process, in seconds
_INVALID = "this load is invalid, and the next one gets another generator"
"""What follows from the end of a generator on a node, for messages."""


class RayPool:
    """Processes on the nodes."""

    stop_timeout_s: float = 10.0

    def __init__(self, session: Callable[[], RaySession]) -> None:
        self._session = session
        self._keys = itertools.count()
        self._processes: dict[int, RayProcess] = {}
        self._taken = 0
        self._staged: object = None
        self._rows: dict[int, int] = {}
        self._free_bytes = 0
        self.facts: tuple[HostFacts, ...] = ()

    def begin(self, processes: int) -> None:
        """Begin to start the hosts that are missing."""
        if processes > len(self.facts):
            threading.Thread(target=self._open, args=(processes,), name="hosts", daemon=True).start()

    def prepare(self, job: LoadJob, processes: int) -> None:
        """Start the hosts that are missing, compare clocks, and check that the load can be sent from there."""
        self.facts = self.ask("open_hosts", processes, timeout_s=_START_S)
        limits = [facts.allowed_connections for facts in self.facts if facts.allowed_connections is not None]
        check_connections(job, processes, min(limits, default=None))
        _check_reachable(job.endpoint, self.facts)
        self._rows.clear()
        self._free_bytes = psutil.virtual_memory().available
        check_samples(job, self._free_bytes)

    def start(self, number: int, log: Path) -> RayProcess:
        """The process of a generator, which starts with its first job; its output stays on its node."""
        key = next(self._keys)
        process = self._processes[key] = RayProcess(self, key, number)
        return process

    def opening_delay_ns(self, processes: int) -> int:
        """Twenty round trips to the node that is farthest, at least a tenth of a second, and 5 ms for each process."""
        farthest_ns = max((2 * facts.clock.error_ns for facts in self.facts), default=0)
        return max(_OPENING_NS, _ROUND_TRIPS * farthest_ns) + _EACH_NS * processes

    def ceilings_rps(self, transport: Transport, processes: int) -> tuple[float, ...]:
        """Requests per second that each process reaches on its node against a server that does nothing."""
        found: tuple[float, ...] = self.ask("ceilings_rps", transport, processes, timeout_s=_CEILINGS_S)
        return found

    def library_overhead_ns(self) -> float | None:
        """What a client library adds to the median request on the node of the first generator."""
        found: float = self.ask("library_overhead_ns", timeout_s=_CEILINGS_S)
        return found

    def _open(self, processes: int) -> None:
        with contextlib.suppress(MlpatternsError):  # which the first load finds too
            self.ask("open_hosts", processes, timeout_s=_START_S)

    # --- for its processes --------------------------------------------------------------------------------------------

    def ask(self, function: str, *arguments: object, timeout_s: float = _ANSWER_S) -> Any:
        """Call a method of the hosts in the driver."""
        try:
            return self._session().call(f"{_HOSTS}.{function}", *arguments, timeout_s=timeout_s)
        except TimeoutError:
            raise ChildError(f"the Ray driver does not answer for {timeout_s:.0f} s") from None

    def load(self, key: int, number: int, job: LoadJob) -> None:
        """Give a process a job; what all of them send goes to the cluster once."""
        if job.messages is not self._staged:
            self.ask("stage", job.messages)
            self._staged = job.messages
        self.ask("load", key, number, replace(job, messages=()))

    def collect(self, timeout_s: float) -> None:
        """Put the messages that have come into the inboxes of their processes; waits for the first one."""
        heard: Sequence[Heard] = self.ask("collect", self._taken, timeout_s, timeout_s=timeout_s + _ANSWER_S)
        for one in heard:
            if one.number > self._taken and (process := self._processes.get(one.key)) is not None:
                process.inbox.append(one.message)
            self._taken = max(self._taken, one.number)
        if any(isinstance(one.message, LoadResult) for one in heard):
            self.collect(0.0)  # which lets the cluster drop the recording

    def count(self, key: int, rows: int) -> None:
        """Note how many requests a process has recorded."""
        self._rows[key] = rows
        require_fit(sum(self._rows.values()), self._free_bytes)

    def forget(self, key: int) -> None:
        """Forget a process that has ended."""
        self._processes.pop(key, None)


def _check_reachable(endpoint: Endpoint, hosts: Iterable[HostFacts]) -> None:
    """Check that a service on a loopback address is loaded from its own machine."""
    loopback = next(filter(None, map(_loopback, _addresses_of(endpoint))), "")
    other = next((facts for facts in hosts if facts.machine != machine_identity()), None)
    if loopback and other is not None:
        raise SettingError(
            f'perf(generators_on="ray"): node {other.node} cannot reach {loopback}, where the service listens; '
            'choose generators_on="local", or serve it with engine="ray"'
        )


def _addresses_of(endpoint: Endpoint) -> Iterable[tuple[str, int]]:
    if endpoint.remote is None:
        return endpoint.addresses
    origin = urlsplit(endpoint.remote.origin)
    return ((origin.hostname or "", origin.port or 443),)


def _loopback(address: tuple[str, int]) -> str:
    """``host:port`` of an address that only its own machine reaches; empty for any other."""
    host, port = address
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    return f"{host}:{port}" if is_loopback else ""


class RayProcess:
    """One process; it starts with its first job."""

    pid = None

    def __init__(self, pool: RayPool, key: int, number: int) -> None:
        self._pool = pool
        self._key = key
        self._number = number
        self._clock: ClockOffset = SAME_CLOCK
        self._remote_pid: int | None = None
        self._was_loaded = False
        self._looked_s = 0.0
        self.node: str = ""
        self.inbox: deque[object] = deque()

    @property
    def name(self) -> str:
        """What messages call it."""
        what = f"generator {self._number}" if self._remote_pid is None else f"process {self._remote_pid}"
        return f"{what} on node {self.node}"

    @property
    def clock_error_ns(self) -> int:
        """Largest error of its times on the clock of this process."""
        return self._clock.error_ns

    def send(self, message: object) -> None:
        """Send a value; a job goes to the node that the generator has now."""
        if isinstance(message, LoadJob):
            facts = self._pool.facts[self._number]
            self.node = facts.node
            self._clock = facts.clock
            self._was_loaded = True
            self.inbox.clear()
            self._pool.load(self._key, self._number, message)
        elif isinstance(message, OpenWindow):
            self._pool.ask("send", self._key, OpenWindow(self._clock.there(message.at_ns)))
        else:
            self._pool.ask("send", self._key, message)

    def receive(self, timeout_s: float) -> Any:
        """The next value, with its times on the clock of this process."""
        end_s = time.perf_counter() + timeout_s
        while True:
            while not self.inbox:
                if (left_s := end_s - time.perf_counter()) <= 0:
                    raise TimeoutError
                self._pool.collect(left_s)
            message = self.inbox.popleft()
            if isinstance(message, Ended):
                raise ChildError(f"the load generator ({self.name}) ended during its load: {message.why}: {_INVALID}")
            if not isinstance(message, Started):
                return self._here(message)
            self._remote_pid = message.pid

    def why_stopped(self) -> str:
        """Which process is stopped there, and how; looked at twice a second, and empty meanwhile."""
        if time.perf_counter() - self._looked_s < _LOOK_S:
            return ""
        found: str = self._pool.ask("why_stopped", self._key)
        self._looked_s = time.perf_counter()
        return found

    def close_channel(self) -> None:
        """Ask it to end, without waiting for it."""
        self._end("close_channel")

    def stop(self) -> None:
        """End it, and wait until it is gone; with a driver that is gone it has ended too."""
        self._end("stop")
        self._pool.forget(self._key)

    def _end(self, how: str) -> None:
        if self._was_loaded:
            with contextlib.suppress(MlpatternsError):
                self._pool.ask(how, self._key, timeout_s=_END_S)

    def _here(self, message: Any) -> Any:
        """A message with its times on the clock of this process."""
        here = self._clock.here
        if isinstance(message, Progress):
            self._pool.count(self._key, message.completed)
        if isinstance(message, WindowOpened):
            return WindowOpened(here(message.start_ns))
        if not isinstance(message, LoadResult):
            return message
        from pytest_mlpatterns.loadgen.columns import shifted_columns

        return replace(
            message,
            columns=shifted_columns(message.columns, here(0)),
            window=Window(here(message.window.start_ns), here(message.window.end_ns)),
        )


class GeneratorHost:
    """The generator processes of one node, by the keys that pytest gave them; several threads may call it.

    Its files are there only while it has processes: nothing ends the actor of a host in good order.

    ``ends_with_parent``: whether this process is to end, with its generators, when its parent does. Ray's processes
    outlive a raylet that was killed, and a generator would go on with its load.
    """

    def __init__(self, *, ends_with_parent: bool = False) -> None:
        if ends_with_parent:
            end_with_parent(lambda: os._exit(1))  # its generators end because their pipes close
        self._scratch: ScratchDirectory | None = None
        self._changing = threading.RLock()
        self._processes: dict[int, LocalProcess] = {}
        self._ending: set[int] = set()  # keys of processes that were asked to end
        self._heard: Mailbox[tuple[int, object]] = Mailbox()

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
        with contextlib.suppress(TimeoutError):
            heard.append(self._heard.get(timeout_s))
            while True:
                heard.append(self._heard.get())
        return heard

    def why_stopped(self, key: int) -> str:
        """Who is stopped, and how; empty if the process runs."""
        process = self._processes.get(key)
        return "" if process is None else process.why_stopped()

    def close_channel(self, key: int) -> None:
        """Ask a process to end, without waiting for it."""
        if (process := self._processes.get(key)) is not None:
            self._ending.add(key)
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
            self._ending.discard(key)
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
                if self._processes.get(key) is process and key not in self._ending:
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

    ``nodes``: the nodes of the cluster that are alive; at least one.
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
