"""How long a thread was ready to run and did not, because other threads had the processors."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import FileIO

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
            file: FileIO | None = self._of_thread.file
        except AttributeError:
            file = self._of_thread.file = self._open()
        if file is None:
            return None
        try:
            return int(os.pread(file.fileno(), _LONGEST, 0).split()[1])
        except (OSError, ValueError, IndexError):
            self._of_thread.file = None
            return None

    def _open(self) -> FileIO | None:
        try:
            return open(self._path, "rb", buffering=0)
        except OSError:
            return None
