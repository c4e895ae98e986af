"""The resource monitor: CPU time and memory of a process tree, sampled over time beside the machine's own counters."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil

from pytest_mlpatterns.records.launch import Usage
from pytest_mlpatterns.system.environment import available_cores
from pytest_mlpatterns.system.machine import read_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ResourceMonitor"]

_TREE_REFRESH_NS = 500_000_000


class ResourceMonitor:
    """Samples the process trees under given roots.

    Args:
        roots: returns the root process ids; the trees below them are searched again every half second.
    """

    def __init__(self, roots: Callable[[], Sequence[int]]) -> None:
        self._roots = roots
        self._processes: dict[int, psutil.Process] = {}
        self._cpu_ns: dict[int, int] = {}
        self._searched_ns = 0
        self._rows: list[tuple[int, ...]] = []

    def sample(self) -> None:
        """Take one sample of the trees and the machine."""
        now = time.perf_counter_ns()
        if not self._processes or now - self._searched_ns > _TREE_REFRESH_NS:
            self._find_processes()
            self._searched_ns = now
        rss = 0
        for pid, process in list(self._processes.items()):
            try:
                self._cpu_ns[pid] = _cpu_ns(process)
                rss += process.memory_info().rss
            except (psutil.Error, OSError):
                del self._processes[pid]
        own_ns, machine = sum(self._cpu_ns.values()), read_machine()
        others_ns = machine.busy_ns - machine.steal_ns - own_ns - time.process_time_ns()
        self._rows.append(
            (
                now,
                own_ns,
                rss,
                machine.busy_ns,
                others_ns,
                machine.steal_ns,
                machine.throttled_ns,
                machine.frequency_hz,
            )
        )

    @property
    def pids(self) -> list[int]:
        """Ids of the processes in the last sample, in the order in which they were found."""
        return list(self._processes)

    def usage(self) -> Usage | None:
        """All samples so far; None if no process was ever found."""
        if not self._cpu_ns or not self._rows:
            return None
        time_ns, cpu_ns, rss, busy_ns, others_ns, steal_ns, throttled_ns, hz = np.array(self._rows, dtype=np.int64).T
        return Usage(time_ns, cpu_ns, rss, busy_ns, others_ns, steal_ns, throttled_ns, hz, available_cores())

    def _find_processes(self) -> None:
        for root in self._roots():
            with contextlib.suppress(psutil.Error):
                process = self._processes.get(root) or psutil.Process(root)
                for found in (process, *process.children(recursive=True)):
                    self._processes.setdefault(found.pid, found)


def _cpu_ns(process: psutil.Process) -> int:
    """CPU time of all threads of a process, in nanoseconds.

    Linux has a CPU clock for every process; its id is computed from the pid as ``clock_getcpuclockid`` does. On other
    systems psutil's times are used, whose resolution is 10 ms.
    """
    if sys.platform != "linux":
        times = process.cpu_times()
        return round((times.user + times.system) * 1e9)
    return time.clock_gettime_ns((~process.pid << 3) | 2)
