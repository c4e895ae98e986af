"""CPU time of the threads of another process, and how long they were ready and did not run, in nanoseconds (Linux)."""

from __future__ import annotations

import os
import threading

from msgspec import Struct

__all__ = ["RunQueueClock", "ThreadTimes", "thread_times"]

_SCHEDSTAT = "/proc/thread-self/schedstat"
_LONGEST = 100
"""Bytes that are read of the file; its three numbers of 64 bits take at most 63."""


class ThreadTimes(Struct, frozen=True):
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


class RunQueueClock:
    """Reads how long the calling thread has waited for a processor: the second number of its ``schedstat``.

    Args:
        path: the file, which each thread opens once; on other systems than Linux and in some sandboxes there is none.
    """

    def __init__(self, path: str = _SCHEDSTAT) -> None:
        self._path = path
        self._of_thread = threading.local()

    def waited_ns(self) -> int | None:
        """Nanoseconds since the thread began; None if that is not known. About 1.5 µs."""
        try:
            file: _File | None = self._of_thread.file
        except AttributeError:
            file = self._of_thread.file = _opened(self._path)
        if file is None:
            return None
        try:
            return int(os.pread(file.descriptor, _LONGEST, 0).split()[1])
        except (OSError, ValueError, IndexError):
            self._of_thread.file = None
            return None

    def claim(self, waited_ns: int) -> None:
        """Part of what this thread has waited is charged already."""
        self._of_thread.claimed_ns = getattr(self._of_thread, "claimed_ns", 0) + waited_ns

    def unclaimed_ns(self) -> int | None:
        """What this thread has waited and is not claimed, in nanoseconds; None if that is not known."""
        waited_ns = self.waited_ns()
        return None if waited_ns is None else waited_ns - getattr(self._of_thread, "claimed_ns", 0)


class _File:
    """An open file, which is closed with its thread."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


def _opened(path: str) -> _File | None:
    try:
        return _File(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return None
