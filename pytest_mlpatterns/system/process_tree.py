"""CPU time, memory, descriptors and threads of process trees: their monitor samples them beside the machine's counters.

The system adds the CPU time of a process that has ended to its parent, when the parent waits for it. So a service that
starts a short process for every request is counted, although most of those processes are never seen.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import psutil

from pytest_mlpatterns.records.launch import Source, Usage, columns_of, read_columns
from pytest_mlpatterns.system.environment import available_cores, machine_cores
from pytest_mlpatterns.system.machine import read_machine

_TREE_REFRESH_NS = 500_000_000
"""Interval at which new processes are searched for, in nanoseconds: the search reads all of ``/proc``."""
_COUNT_NS = 100_000_000
"""Interval at which descriptors and threads are counted, which takes 0.1 ms for a process with few of them."""
BUSY_SHARE = 0.25
"""Share of the CPU time of the busiest thread from which a thread works: those that only watch or wait use less."""
_LEAST_BUSY_NS = 50_000_000
"""Least CPU time of a busiest thread, in nanoseconds; below it the clock of 10 ms does not show which threads work."""
_UNKNOWN = np.iinfo(np.int64).min  # Stands in a column for a value that the system does not give

_COLUMNS = tuple(column.name for column in columns_of(Usage))


class Monitor(Protocol):
    """Samples what a deployment uses, on one machine or on several."""

    @property
    def pids(self) -> list[int]:
        """Ids of its processes on this machine in the last sample; none if they run elsewhere."""
        ...

    def sample(self, *, poll: bool = False) -> None:
        """Take one sample, without waiting for another machine; a ``poll``, one of many, may be left out."""

    def usage(self) -> Usage | None:
        """All samples so far, one for each call of :meth:`sample` that was no poll, in their order; None if no process
        was ever found.
        """
        ...


class ResourceMonitor:
    """Samples the process trees under given roots.

    ``roots``: returns the root process ids; the trees below them are searched again every half second. ``cpus``: number
    of cores that they were given; None if they may use all of the machine.
    """

    def __init__(self, roots: Callable[[], Sequence[int]], cpus: float | None = None) -> None:
        self._cpus = cpus
        self._tree = ProcessTree(roots)
        self._searched_ns = 0
        self._counted_ns = 0
        self._rows: list[list[int]] = []
        self._threads_before: dict[int, dict[int, int]] = {}

    def sample(self, *, poll: bool = False) -> None:
        """Take one sample of the trees and the machine."""
        now = time.perf_counter_ns()
        if not self._tree.pids or now - self._searched_ns > _TREE_REFRESH_NS:
            self._tree.search()
            self._searched_ns = now
        self._tree.look()
        if now - self._counted_ns > _COUNT_NS:
            self._tree.count()
            self._counted_ns = now
        if not self._rows:
            self._threads_before = self._tree.threads_ns()
        machine = read_machine()
        row = read_columns(Usage, {Source.TREE: self._tree, Source.MACHINE: machine})
        row["time_ns"] = now
        row["others_ns"] = machine.machine_busy_ns - machine.steal_ns - self._tree.cpu_ns - time.process_time_ns()
        self._rows.append([_UNKNOWN if (value := row[name]) is None else value for name in _COLUMNS])

    @property
    def pids(self) -> list[int]:
        """Ids of the processes in the last sample, in the order in which they were found."""
        return self._tree.pids

    def usage(self) -> Usage | None:
        """All samples so far; None if no process was ever found."""
        if not self._tree.was_found or not self._rows:
            return None
        read = zip(_COLUMNS, np.array(self._rows, dtype=np.int64).T, strict=True)
        columns: dict[str, Any] = {name: None if (column == _UNKNOWN).any() else column for name, column in read}
        return Usage(
            cores=available_cores() if self._cpus is None else self._cpus,
            machine_cores=machine_cores(),
            busy_threads=busy_threads(self._threads_before, self._tree.threads_ns()),
            limited=self._cpus is not None,
            **columns,
        )


def busy_threads(before: Mapping[int, Mapping[int, int]], after: Mapping[int, Mapping[int, int]]) -> tuple[int, ...]:
    """How many threads of each process did the work between two readings; processes without one are left out.

    ``before``: CPU time of each thread in nanoseconds, by process and thread.
    """
    used = [
        [now - before.get(pid, {}).get(thread, 0) for thread, now in threads.items()] for pid, threads in after.items()
    ]
    most = max((max(threads, default=0) for threads in used), default=0)
    if most < _LEAST_BUSY_NS:
        return ()
    counts = (sum(one >= BUSY_SHARE * most for one in threads) for threads in used)
    return tuple(filter(None, counts))


_STOPPED = {psutil.STATUS_STOPPED: "stopped (SIGSTOP)", psutil.STATUS_TRACING_STOP: "stopped by a debugger"}


@dataclass(slots=True, eq=False)
class _Member:
    """A process.

    ``own_ns`` is its CPU time. ``waited_ns`` is of the children that it has waited for, ``before_ns`` the part of
    that from before the first look. ``seen_ns`` is the CPU time of its children that were seen and have ended.
    """

    process: psutil.Process
    parent: int
    before_ns: int
    own_ns: int = 0
    waited_ns: int = 0
    seen_ns: int = 0

    @property
    def total_ns(self) -> int:
        """Its CPU time with its children's that have ended; the system knows those that were seen, too."""
        return self.own_ns + max(self.waited_ns - self.before_ns, self.seen_ns)

    def look(self) -> int:
        """Read its CPU time; returns its resident memory in bytes."""
        self.waited_ns = _waited_ns(self.process)
        self.own_ns = own_cpu_ns(self.process)
        with contextlib.suppress(psutil.ZombieProcess):  # its parent has not waited for it yet
            return int(self.process.memory_info().rss)
        return 0

    def count(self) -> tuple[int, int]:
        """Its open file descriptors and its threads; 0 of both for one that its parent has not waited for yet."""
        with contextlib.suppress(psutil.ZombieProcess):
            return self.process.num_fds(), self.process.num_threads()
        return 0, 0


class ProcessTree:
    """The processes below some roots; ``descriptors``: open files at the last :meth:`count`, None if not known."""

    def __init__(self, roots: Callable[[], Sequence[int]]) -> None:
        self.cpu_ns: int = 0
        self.rss_bytes: int = 0
        self.descriptors: int | None = None
        self.threads: int | None = None
        self._roots = roots
        self._members: dict[int, _Member] = {}
        self._ended_ns = 0
        self._was_searched = False

    @property
    def pids(self) -> list[int]:
        """Ids of the processes at the last look, in the order in which they were found."""
        return list(self._members)

    @property
    def was_found(self) -> bool:
        """Whether any process was ever seen."""
        return bool(self._members) or self._ended_ns > 0

    def search(self) -> None:
        """Find the processes below the roots."""
        for root in self._roots():
            with contextlib.suppress(psutil.Error):
                known = self._members.get(root)
                process = psutil.Process(root) if known is None else known.process
                for found in (process, *process.children(recursive=True)):
                    if found.pid not in self._members:
                        self._add(found)
        self._was_searched = True

    def look(self) -> None:
        """Read the CPU time and memory of all processes that were found."""
        self.rss_bytes = 0
        for pid, member in list(self._members.items()):
            try:
                self.rss_bytes += member.look()
            except (psutil.Error, OSError):
                self._end(pid)
        self.cpu_ns = max(self.cpu_ns, self._ended_ns + sum(member.total_ns for member in self._members.values()))

    def count(self) -> None:
        """Count the descriptors and threads of all processes that were found; :meth:`look` finds those that ended."""
        self.descriptors = self.threads = None
        counts = []
        for member in self._members.values():
            try:
                counts.append(member.count())
            except psutil.NoSuchProcess:
                continue
            except (psutil.Error, OSError, AttributeError):  # the system has no such count, or shows it to root only
                return
        if counts:
            self.descriptors, self.threads = (sum(column) for column in zip(*counts, strict=True))

    def threads_ns(self) -> dict[int, dict[int, int]]:
        """CPU time of each thread of each process that runs, by their ids; the resolution is 10 ms."""
        found = {}
        for pid, member in self._members.items():
            with contextlib.suppress(psutil.Error, OSError):  # it has ended, or the system allows this to root only
                threads = member.process.threads()
                found[pid] = {thread.id: round((thread.user_time + thread.system_time) * 1e9) for thread in threads}
        return found

    def _add(self, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.Error):
            before_ns = 0 if self._was_searched else _waited_ns(process)
            self._members[process.pid] = _Member(process, process.ppid(), before_ns)

    def _end(self, pid: int) -> None:
        """A process has ended: its time is its parent's from now on."""
        member = self._members.pop(pid)
        if (parent := self._members.get(member.parent)) is not None:
            parent.seen_ns += member.total_ns
        else:
            self._ended_ns += member.total_ns


def _waited_ns(process: psutil.Process) -> int:
    """CPU time of the children that a process has waited for, in nanoseconds; the resolution is 10 ms."""
    times = process.cpu_times()
    return round((times.children_user + times.children_system) * 1e9)


def own_cpu_ns(process: psutil.Process) -> int:
    """CPU time of all threads of a process, in nanoseconds.

    Linux has a CPU clock for every process; its id is computed from the pid as ``clock_getcpuclockid`` does. On other
    systems psutil's times are used, whose resolution is 10 ms.

    Raises psutil.Error: it has ended. Raises OSError: it has ended.
    """
    if sys.platform != "linux":
        times = process.cpu_times()
        return round((times.user + times.system) * 1e9)
    return time.clock_gettime_ns((~process.pid << 3) | 2)


def describe_stopped(roots: Iterable[int]) -> str:
    """The first stopped process under these ids, ``process 4711 (python) is stopped (SIGSTOP)``; empty if none is."""
    for process in _trees(roots):
        with contextlib.suppress(psutil.Error, OSError):
            if how := _STOPPED.get(process.status()):
                return f"process {process.pid} ({process.name()}) is {how}"
    return ""


def _trees(roots: Iterable[int]) -> Iterator[psutil.Process]:
    for root in roots:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(root)
            yield process
            yield from process.children(recursive=True)
