"""The processes of a Ray node that are no replicas: those of Ray and of Ray Serve, and those of this run.

They are known by their command lines: Ray writes what a process does into its title.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import psutil

from pytest_mlpatterns.system.process_tree import own_cpu_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Kind", "NodeProcesses", "kind_of"]

_SEARCH_NS = 2_000_000_000
_OF_RAY = ("raylet", "gcs_server")
"""Names of programs of Ray."""
_ACTORS_OF_OTHERS = ("ray::ServeReplica:",)
"""Beginning of the titles of actors that run the code of users."""
_ACTORS_OF_RAY = (
    "ray::IDLE",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "ray::ProxyActor",
    "ray::ServeController",
    "ray::NodeMonitor",
    "ray::GeneratorHost",
)
_CHILDREN = ("from pytest_mlpatterns.system.ray.", "from pytest_mlpatterns.loadgen.")
"""Beginning of what the command lines of our drivers and load generators run."""


class Kind(Enum):
    """What a process does."""

    RAY = "a process of Ray or of Ray Serve"
    RUN = "a load generator, a Ray driver of ours, or pytest"
    OTHER = "anything else"


def kind_of(command: Sequence[str]) -> Kind:
    """What a process does, by its command line; a title that a process wrote is its first part."""
    program = command[0].rpartition("/")[2] if command else ""
    if program in _OF_RAY or program.startswith(_ACTORS_OF_RAY) or _is_agent(command):
        return Kind.RAY
    return Kind.RUN if any(part.startswith(_CHILDREN) for part in command) else Kind.OTHER


def _is_agent(command: Sequence[str]) -> bool:
    """Whether a script of Ray runs: an agent, the dashboard, the monitor of its logs."""
    return any("/ray/" in part and part.endswith(".py") for part in command[1:4])


@dataclass(slots=True, eq=False)
class _Process:
    """A process, what it does, and its CPU time at the last look."""

    process: psutil.Process
    kind: Kind
    own_ns: int


class NodeProcesses:
    """Adds up the CPU time of a node's processes by what they do, since it was made.

    Args:
        raylet: process that started the workers of the node.
        session: name of Ray's session on the head, whose own processes are counted then; empty on other nodes.
    """

    def __init__(self, raylet: int, session: str = "") -> None:
        self._raylet = raylet
        self._session = session
        self._users: set[int] = set()
        self._known: dict[int, _Process] = {}
        self._used_ns: Counter[Kind] = Counter()
        self._searched_ns = 0
        self._was_searched = False

    def watch(self, pid: int) -> None:
        """Count this process, which uses the cluster for this run, and the drivers and generators that it started."""
        self._users.add(pid)
        self._searched_ns = 0

    def look(self) -> None:
        """Read the CPU time of all processes."""
        now = time.perf_counter_ns()
        if now - self._searched_ns > _SEARCH_NS or not self._searched_ns:
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

    def used_ns(self, kind: Kind) -> int:
        """CPU time of the processes of one kind, those that have ended included."""
        return self._used_ns[kind]

    def _search(self) -> None:
        for process in self._found():
            with contextlib.suppress(psutil.Error, OSError):
                kind = Kind.RUN if process.pid in self._users else kind_of(process.cmdline())
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
                yield from (user, *(child for child in user.children() if kind_of(child.cmdline()) is not Kind.OTHER))
        if self._session:
            yield from _of_session(self._session)


def _of_session(session: str) -> Iterator[psutil.Process]:
    """The processes of the head that no raylet started, such as its store of cluster metadata."""
    for pid in psutil.pids():  # process_iter would take a new process for an old one of its id
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            command = process.cmdline()
            is_named = any(session in part for part in command[1:])
            if is_named and kind_of(command) is Kind.RAY and not command[0].endswith("raylet"):
                yield process
