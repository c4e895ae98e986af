"""How long a thread was ready to run and did not, because other threads had the processors."""

from __future__ import annotations

import os
import threading

__all__ = ["RunQueueClock"]

_SCHEDSTAT = "/proc/thread-self/schedstat"
_LONGEST = 100


class RunQueueClock:
    """Reads how long the calling thread has waited for a processor: the second number of its ``schedstat``.

    Args:
        path: the file, which each thread opens once; on other systems than Linux and in some sandboxes there is none.
    """

    def __init__(self, path: str = _SCHEDSTAT) -> None:
        self._path = path
        self._of_thread = threading.local()

    def waited_ns(self) -> int | None:
        """Nanoseconds since the thread began; None where that is not known. About 1.5 µs."""
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
        """What this thread has waited and is not claimed, in nanoseconds; None where that is not known."""
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
