"""What the processes of a deployment use over time: CPU, memory, and the whole machine's load beside it.

Reads the operating system whenever it is asked to; who asks, and when, is the caller's business. A process that ended
keeps the CPU time that was last seen of it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil

from pytest_mlpatterns.machine import read_machine
from pytest_mlpatterns.records.launch import Usage
from pytest_mlpatterns.records.setup import Environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["Observer", "available_cores", "commit", "environment"]

_TREE_REFRESH_NS = 500_000_000


class Observer:
    """Follows the process trees under some roots.

    Args:
        roots: gives process ids; they and their children are looked for again every half second.
    """

    def __init__(self, roots: Callable[[], Sequence[int]]) -> None:
        self._roots = roots
        self._processes: dict[int, psutil.Process] = {}
        self._cpu_ns: dict[int, int] = {}
        self._looked_ns = 0
        self._rows: list[tuple[int, ...]] = []

    def sample(self) -> None:
        """Read the system once."""
        now = time.perf_counter_ns()
        if not self._processes or now - self._looked_ns > _TREE_REFRESH_NS:
            self._look_for_children()
            self._looked_ns = now
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
        """The processes that were seen last, in the order in which they were found."""
        return list(self._processes)

    def usage(self) -> Usage | None:
        """Everything sampled so far; None where no process was ever seen."""
        if not self._cpu_ns or not self._rows:
            return None
        time_ns, cpu_ns, rss, busy_ns, others_ns, steal_ns, throttled_ns, hz = np.array(self._rows, dtype=np.int64).T
        return Usage(time_ns, cpu_ns, rss, busy_ns, others_ns, steal_ns, throttled_ns, hz, available_cores())

    def _look_for_children(self) -> None:
        for root in self._roots():
            with contextlib.suppress(psutil.Error):
                process = self._processes.get(root) or psutil.Process(root)
                for member in (process, *process.children(recursive=True)):
                    self._processes.setdefault(member.pid, member)


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> Environment:
    """The machine and the software that shapes a result."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("pytest-mlpatterns", "numpy", "uvicorn", "uvloop", "httptools"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return Environment(
        processor=_processor(),
        cores=available_cores(),
        architecture=platform.machine(),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        versions=versions,
    )


def commit(directory: Path) -> str | None:
    """The commit that is checked out, with a plus sign where files differ from it; None outside of git."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],  # noqa: S607 - git from the PATH
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _processor() -> str:
    """The processor's model name; what ``platform`` knows where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
        for line in info:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "cpu model"):
                return " ".join(value.split())
    return platform.processor() or platform.machine()


def _cpu_ns(process: psutil.Process) -> int:
    """CPU time of all threads of a process, in nanoseconds.

    Linux gives every process a clock of that; its id is made from the pid as ``clock_getcpuclockid`` does. Elsewhere
    psutil's times serve, whose steps are 10 ms.
    """
    if sys.platform != "linux":
        times = process.cpu_times()
        return round((times.user + times.system) * 1e9)
    return time.clock_gettime_ns((~process.pid << 3) | 2)
