"""The monitor of one node of a cluster: reads what our replicas there use, and what they have counted.

It runs in an actor on the node and does not know Ray itself. Replicas reach it over a :mod:`link
<pytest_mlpatterns.engines.ray.link>`. They are known by their command lines: Ray writes what a process does into its
title.
"""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import psutil
from msgspec import structs

from pytest_mlpatterns.engines.ray.link import LinkAddress, LinkServer
from pytest_mlpatterns.engines.ray.messages import NodeReading
from pytest_mlpatterns.engines.ray.session import base_of
from pytest_mlpatterns.records.launch import Source, Usage, read_columns
from pytest_mlpatterns.system.environment import available_cores, machine_cores
from pytest_mlpatterns.system.log_file import LogFile
from pytest_mlpatterns.system.machine import machine_identity, read_machine
from pytest_mlpatterns.system.process_tree import ProcessTree, own_cpu_ns
from pytest_mlpatterns.wording import marked

_SEARCH_NS = 500_000_000  # Time between two searches for new processes, which read every process of the node
_TAIL_LINES = 40  # Most lines of a log that a message shows, its last ones
_MARKS_OF_RAY = (":job_id:", ":actor_name:", ":task_name:")
"""Beginning of lines that Ray writes into the output of its workers."""


def monitor_name(run: str, node: str) -> str:
    """The name under which the processes of a run, and of a driver that joined it, find a node's monitor."""
    return f"mlpatterns-monitor-{base_of(run)}-{node}"


class NodeMonitor:
    """Reads one node.

    ``raylet``: process that started the workers of the node; None: the one that started this process. ``session``: name
    of Ray's session if the node is the head, else empty.
    """

    def __init__(self, node: str, ip: str, *, raylet: int | None = None, session: str = "") -> None:
        self._node = node
        self._ip = ip
        self._links = LinkServer()
        self._processes = NodeProcesses(os.getppid() if raylet is None else raylet, session)
        self._trees: dict[str, _Tree] = {}
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

        ``ask``: ask its replicas for their statistics, which takes as long as the slowest answers; else the reading has
        none.
        """
        replicas = self._links.replicas(app, ask=ask)
        if not ask:
            replicas = tuple(structs.replace(replica, stats=None) for replica in replicas)
        with self._reading:
            tree = self._trees.setdefault(app, _Tree(self._links, app))
            now = time.perf_counter_ns()
            tree.look(now)
            self._processes.look()
            machine = read_machine()
            busy = tree.tree.threads_ns() if threads else {}
        return NodeReading(
            node=self._node,
            ip=self._ip,
            machine=machine_identity(),
            clock_ns=now,
            columns=read_columns(Usage, {Source.TREE: tree.tree, Source.MACHINE: machine}),
            serve_cpu_ns=self._processes.used_ns(ProcessKind.RAY),
            generator_ns=self._processes.used_ns(ProcessKind.RUN),
            cores=available_cores(),
            machine_cores=machine_cores(),
            threads=tuple((pid, thread, used) for pid, known in busy.items() for thread, used in known.items()),
            replicas=replicas,
        )

    def log_tail(self, app: str) -> str:
        """The last lines that each replica of an application printed, below its name."""
        parts = []
        for replica, file in self._links.output(app):
            if text := _tail(file):
                parts.append(f"{replica.role} (process {replica.pid} on node {self._ip}):\n{text}")
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
    """The end of a file without what Ray wrote into it, with marks; empty if it cannot be read."""
    lines = LogFile(file).printed_since(0).splitlines()[-_TAIL_LINES:]
    return marked("\n".join(line for line in lines if not line.startswith(_MARKS_OF_RAY)).strip())


_RAY_SEARCH_NS = 2_000_000_000  # Time between two searches for processes of Ray, which it seldom starts
_OF_RAY = ("raylet", "gcs_server")  # Names of programs of Ray
_ACTORS_OF_RAY = (
    "ray::IDLE",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "ray::ProxyActor",
    "ray::ServeController",
    "ray::NodeMonitor",
    "ray::GeneratorHost",
)
_CHILDREN = ("from pytest_mlpatterns.engines.ray.", "from pytest_mlpatterns.loadgen.")
"""Beginning of what the command lines of our drivers and load generators run."""


class ProcessKind(Enum):
    """What a process does."""

    RAY = "a process of Ray or of Ray Serve"
    RUN = "a load generator, a Ray driver of ours, or pytest"
    OTHER = "anything else"


def kind_of(command: Sequence[str]) -> ProcessKind:
    """What a process does, by its command line; a title that a process wrote is its first part."""
    program = command[0].rpartition("/")[2] if command else ""
    is_script = any("/ray/" in part and part.endswith(".py") for part in command[1:4])  # such as an agent
    if program in _OF_RAY or program.startswith(_ACTORS_OF_RAY) or is_script:
        return ProcessKind.RAY
    return ProcessKind.RUN if any(part.startswith(_CHILDREN) for part in command) else ProcessKind.OTHER


@dataclass(slots=True, eq=False)
class _Process:
    """A process, what it does, and its CPU time at the last look."""

    process: psutil.Process
    kind: ProcessKind
    own_ns: int


class NodeProcesses:
    """Adds up the CPU time of a node's processes by what they do, since it was made.

    ``session``: name of Ray's session on the head, whose own processes are counted then; empty on other nodes.
    """

    def __init__(self, raylet: int, session: str = "") -> None:
        self._raylet = raylet
        self._session = session
        self._users: set[int] = set()
        self._known: dict[int, _Process] = {}
        self._used_ns: Counter[ProcessKind] = Counter()
        self._searched_ns = 0
        self._was_searched = False

    def watch(self, pid: int) -> None:
        """Count this process, which uses the cluster for this run, and the drivers and generators that it started."""
        self._users.add(pid)
        self._searched_ns = 0

    def look(self) -> None:
        """Read the CPU time of all processes."""
        now = time.perf_counter_ns()
        if now - self._searched_ns > _RAY_SEARCH_NS or not self._searched_ns:
            self._search()
            self._searched_ns = now
        for pid, known in list(self._known.items()):
            try:
                own_ns = own_cpu_ns(known.process)
            except (psutil.Error, OSError):  # it has ended
                del self._known[pid]
                continue
            self._used_ns[known.kind] += own_ns - known.own_ns
            known.own_ns = own_ns

    def used_ns(self, kind: ProcessKind) -> int:
        """CPU time of the processes of one kind, those that have ended included."""
        return self._used_ns[kind]

    def _search(self) -> None:
        for process in self._found():
            with contextlib.suppress(psutil.Error, OSError):
                kind = ProcessKind.RUN if process.pid in self._users else kind_of(process.cmdline())
                known = self._known.get(process.pid)
                if known is not None and known.process == process:
                    known.kind = kind  # a worker that was idle has become an actor
                else:
                    is_new = self._was_searched and process.pid not in self._users
                    self._known[process.pid] = _Process(process, kind, 0 if is_new else own_cpu_ns(process))
        self._was_searched = True

    def _found(self) -> Iterator[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            raylet = psutil.Process(self._raylet)
            yield from (raylet, *raylet.children(recursive=True))
        for pid in self._users:
            with contextlib.suppress(psutil.Error):
                user = psutil.Process(pid)
                yield from (
                    user,
                    *(child for child in user.children() if kind_of(child.cmdline()) is not ProcessKind.OTHER),
                )
        if self._session:
            yield from _of_session(self._session)


def _of_session(session: str) -> Iterator[psutil.Process]:
    """The processes of the head that no raylet started, such as its store of cluster metadata."""
    for pid in psutil.pids():  # process_iter would take a new process for an old one of its id
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            command = process.cmdline()
            is_named = any(session in part for part in command[1:])
            if is_named and kind_of(command) is ProcessKind.RAY and not command[0].endswith("raylet"):
                yield process
