"""The log of a process: its end is read, not the whole of it, and the disk space that it takes is bounded.

A process writes into its log by itself, at full speed and without a pipe, which would cost time and processor under
load. Its parent looks at the size now and then, and gives the beginning of a long log back to the file system; offsets
stay as they are.
"""

import itertools
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

from pytest_mlpatterns.units import format_size
from pytest_mlpatterns.wording import marked

LIMIT_BYTES = 10 * 2**20  # Disk space of one log. A process can exceed it between two looks.
LOOK_S = 0.25  # Interval between two looks at the size of a log
_TAIL_BYTES = 16_384  # Most that is read of the end of a log: 30 lines of a traceback, several times
_LINE_LETTERS = 1_000  # Length from which on a line is shortened in messages
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE of linux/falloc.h


class LogFile(Struct, frozen=True):
    """The log of one process."""

    path: Path

    def create(self) -> int:
        """Make an empty file, and its directory if that was removed meanwhile; returns a descriptor that appends."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
        return os.open(self.path, flags, 0o600)

    @property
    def size(self) -> int:
        """How much was printed so far, in bytes."""
        try:
            return self.path.stat().st_size
        except OSError:  # not there yet, or removed meanwhile
            return 0

    def limit(self) -> None:
        """Remove the beginning of the log if it takes more than :data:`LIMIT_BYTES` on the disk."""
        try:
            status = self.path.stat()
            if status.st_blocks * 512 <= LIMIT_BYTES:
                return
            with self.path.open("r+b", buffering=0) as file:
                if not _punch(file.fileno(), status.st_size - LIMIT_BYTES // 2):
                    file.truncate(0)  # what the process prints next is appended to an empty file
        except OSError:  # removed meanwhile
            return

    def printed_since(self, size: int) -> str:
        """What was printed after the first ``size`` bytes, as far as it is among the last 16 KiB."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(size if size <= end else 0, end - _TAIL_BYTES))
                return file.read(_TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def tail(self, lines: int = 30, edit: Callable[[str], str] = str) -> str:
        """The last lines, each with a mark, of those in the last 16 KiB; a first line reports that the log was cut.

        Equal lines, such as those of a server that logs each question whether it is ready, are one line with their
        number.
        """
        text = marked("\n".join(map(_shortened, _counted(edit(self.printed_since(0)).splitlines())[-lines:])))
        if (size := self.size) > LIMIT_BYTES:
            limit = format_size(LIMIT_BYTES)
            text = f"({format_size(size)} printed, of which the log keeps the last {limit} at most)\n{text}"
        return text


def _counted(lines: Iterable[str]) -> list[str]:
    """The lines, with each run of equal ones as one: ``GET /health 404 (30 times)``."""
    runs = ((line, len([*equal])) for line, equal in itertools.groupby(lines))
    return [f"{line} ({number:,} times)" if line and number > 1 else line for line, number in runs]


def _shortened(line: str) -> str:
    if len(line) <= _LINE_LETTERS:
        return line
    part = _LINE_LETTERS // 2
    return f"{line[:part]} … ({len(line) - 2 * part:,} letters left out) … {line[-part:]}"


def _punch(descriptor: int, length: int) -> bool:
    """Give the first bytes of a file back to the file system; they read as zeros. False if it cannot do that."""
    if sys.platform != "linux":
        return False
    import ctypes

    fallocate = ctypes.CDLL(None).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return bool(fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, 0, length) == 0)
