"""CPU time of the threads of another process, and how long they were ready and did not run, in nanoseconds (Linux)."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["ThreadTimes", "thread_times"]


@dataclass(frozen=True, slots=True)
class ThreadTimes:
    """Times of a thread: on a core, and ready for one (proc(5), ``schedstat``)."""

    cpu_ns: int = 0
    ready_ns: int = 0

    def since(self, before: ThreadTimes) -> ThreadTimes:
        """Those since an earlier reading."""
        return ThreadTimes(self.cpu_ns - before.cpu_ns, self.ready_ns - before.ready_ns)


def thread_times(pid: int) -> dict[int, ThreadTimes]:
    """The times of each thread so far, by its id; empty if the system does not show it, or the process has ended."""
    found: dict[int, ThreadTimes] = {}
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                cpu, ready, *_ = file.read().split()
        except (OSError, ValueError):  # the thread has ended, or the kernel keeps no such statistics
            continue
        found[int(thread)] = ThreadTimes(int(cpu), int(ready))
    return found
