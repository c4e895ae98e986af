"""The monitor of one node of a cluster: reads what our replicas there use, and what they have counted.

It runs in an actor on the node and does not know Ray itself. Replicas reach it over a :mod:`link
<pytest_mlpatterns.serving.ray.link>`.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.serving.ray.link import LinkServer
from pytest_mlpatterns.serving.ray.messages import NodeReading
from pytest_mlpatterns.serving.ray.node_processes import Kind, NodeProcesses
from pytest_mlpatterns.system.energy import EnergyCounter
from pytest_mlpatterns.system.environment import available_cores, machine_cores
from pytest_mlpatterns.system.machine import read_machine
from pytest_mlpatterns.system.machine_identity import machine_identity
from pytest_mlpatterns.system.process_tree import ProcessTree
from pytest_mlpatterns.system.ray.run_name import base_of
from pytest_mlpatterns.wording import marked

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.serving.ray.link import LinkAddress

__all__ = ["NodeMonitor", "monitor_name"]

_SEARCH_NS = 500_000_000
_TAIL_BYTES = 4096
_MARKS_OF_RAY = (":job_id:", ":actor_name:", ":task_name:")
"""Beginning of lines that Ray writes into the output of its workers."""


def monitor_name(run: str, node: str) -> str:
    """The name under which the processes of a run, also those of a driver that joined it, find a node's monitor."""
    return f"mlpatterns-monitor-{base_of(run)}-{node}"


class NodeMonitor:
    """Reads one node.

    Args:
        node: its identity in Ray.
        ip: its address.
        raylet: process that started the workers of the node; None: the one that started this process.
        session: name of Ray's session if the node is the head, else empty.
    """

    def __init__(self, node: str, ip: str, *, raylet: int | None = None, session: str = "") -> None:
        self._node = node
        self._ip = ip
        self._links = LinkServer()
        self._processes = NodeProcesses(os.getppid() if raylet is None else raylet, session)
        self._trees: dict[str, _Tree] = {}
        self._energy = EnergyCounter()
        self._reading = threading.Lock()

    def link(self) -> LinkAddress:
        """Where replicas connect."""
        return self._links.address

    def watch(self, pid: int) -> None:
        """Count this process of the node, pytest or its driver, as one of this run."""
        with self._reading:
            self._processes.watch(pid)

    def clock(self) -> tuple[str, int]:
        """The identity of the machine, and the present on its clock."""
        return machine_identity(), time.perf_counter_ns()

    def read(self, app: str, *, ask: bool = True, threads: bool = False) -> NodeReading:
        """What an application uses on this node now.

        Args:
            app: name of the application.
            ask: ask its replicas for their statistics, which takes as long as the slowest answers; else the reading
                has none.
            threads: read the CPU time of each thread, too.
        """
        replicas = self._links.replicas(app, ask=ask)
        if not ask:
            replicas = tuple(replace(replica, stats=None) for replica in replicas)
        with self._reading:
            tree = self._trees.setdefault(app, _Tree(self._links, app))
            now = time.perf_counter_ns()
            tree.look(now)
            self._processes.look()
            machine = read_machine()
            energy_uj = self._energy.read_uj()
            busy = tree.tree.threads_ns() if threads else {}
        return NodeReading(
            node=self._node,
            ip=self._ip,
            machine=machine_identity(),
            clock_ns=now,
            cpu_ns=tree.tree.cpu_ns,
            rss_bytes=tree.tree.rss_bytes,
            serve_cpu_ns=self._processes.used_ns(Kind.RAY),
            generator_ns=self._processes.used_ns(Kind.RUN),
            busy_ns=machine.busy_ns,
            steal_ns=machine.steal_ns,
            throttled_ns=machine.throttled_ns,
            frequency_hz=machine.frequency_hz,
            energy_uj=energy_uj,
            cores=available_cores(),
            machine_cores=machine_cores(),
            threads=tuple((pid, thread, used) for pid, known in busy.items() for thread, used in known.items()),
            replicas=replicas,
        )

    def log_tail(self, app: str) -> str:
        """The last lines that each replica of an application printed, below its name."""
        parts = []
        for hello, file in self._links.output(app):
            if text := _tail(file):
                parts.append(f"{hello.role} (process {hello.pid} on node {self._ip}):\n{text}")
        return "\n".join(parts)

    def forget(self, app: str) -> None:
        """Forget an application that is deleted."""
        self._links.forget(app)
        with self._reading:
            self._trees.pop(app, None)

    def close(self) -> None:
        """Accept no replicas any more."""
        self._links.close()


@dataclass(slots=True)
class _Tree:
    """The processes of one application's replicas on the node, and their children."""

    links: LinkServer
    app: str
    tree: ProcessTree = field(init=False)
    searched_ns: int = 0

    def __post_init__(self) -> None:
        self.tree = ProcessTree(lambda: self.links.pids(self.app))

    def look(self, now_ns: int) -> None:
        """Read them; new ones are searched for every half second, and when a replica is new."""
        is_new = any(pid not in self.tree.pids for pid in self.links.pids(self.app))
        if is_new or now_ns - self.searched_ns > _SEARCH_NS:
            self.tree.search()
            self.searched_ns = now_ns
        self.tree.look()


def _tail(file: Path) -> str:
    """The end of a file, from the beginning of a line on, with marks; empty if it cannot be read."""
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _TAIL_BYTES))
            data = stream.read()
    except OSError:
        return ""
    text = data.decode("utf-8", "replace")
    lines = (text.partition("\n")[2] if size > _TAIL_BYTES else text).splitlines()
    return marked("\n".join(line for line in lines if not line.startswith(_MARKS_OF_RAY)).strip())
