"""CPU time of the threads of another process, in nanoseconds (Linux)."""

from __future__ import annotations

import os

__all__ = ["thread_cpu_ns"]


def thread_cpu_ns(pid: int) -> dict[int, int]:
    """CPU time of each thread so far, by its id; empty if the system does not show it, or the process has ended."""
    found: dict[int, int] = {}
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                found[int(thread)] = int(file.read().split()[0])
        except (OSError, ValueError, IndexError):  # the thread has ended, or the kernel keeps no such statistics
            continue
    return found
