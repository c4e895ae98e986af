"""The resource monitor: what a process tree uses and holds, sampled over time beside the machine's own counters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pytest_mlpatterns.records.columns import Source, columns_of, read_columns
from pytest_mlpatterns.records.launch import Usage
from pytest_mlpatterns.system.environment import available_cores, machine_cores
from pytest_mlpatterns.system.machine import read_machine
from pytest_mlpatterns.system.process_tree import ProcessTree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["BUSY_SHARE", "Monitor", "ResourceMonitor", "busy_threads"]

_TREE_REFRESH_NS = 500_000_000
"""Interval at which new processes are searched for, in nanoseconds: the search reads all of ``/proc``."""
_COUNT_NS = 100_000_000
"""Interval at which descriptors and threads are counted, which takes 0.1 ms for a process with few of them."""
BUSY_SHARE = 0.25
"""Share of the CPU time of the busiest thread from which a thread works: those that only watch or wait use less."""
_LEAST_BUSY_NS = 50_000_000
"""Least CPU time of a busiest thread, in nanoseconds; below it the clock of 10 ms does not show which threads work."""
_UNKNOWN = np.iinfo(np.int64).min
"""Stands in a column for a value that the system does not give."""

_COLUMNS = tuple(column.name for column in columns_of(Usage))


class Monitor(Protocol):
    """Samples what a deployment uses, on one machine or on several."""

    @property
    def pids(self) -> list[int]:
        """Ids of its processes on this machine in the last sample; none if they run elsewhere."""
        ...

    def sample(self, *, poll: bool = False) -> None:
        """Take one sample, without waiting for another machine.

        Args:
            poll: it is one of many during a load, and may be left out.
        """

    def usage(self) -> Usage | None:
        """All samples so far, one for each call of :meth:`sample` that was no poll, in their order; None if no process
        was ever found.
        """
        ...


class ResourceMonitor:
    """Samples the process trees under given roots.

    Args:
        roots: returns the root process ids; the trees below them are searched again every half second.
        cpus: number of cores that they were given; None if they may use all of the machine.
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

    Args:
        before: CPU time of each thread in nanoseconds, by process and thread.
    """
    used = [
        [now - before.get(pid, {}).get(thread, 0) for thread, now in threads.items()] for pid, threads in after.items()
    ]
    most = max((max(threads, default=0) for threads in used), default=0)
    if most < _LEAST_BUSY_NS:
        return ()
    counts = (sum(one >= BUSY_SHARE * most for one in threads) for threads in used)
    return tuple(filter(None, counts))
