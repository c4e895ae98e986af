"""The temporary directory of a run; those that killed runs left behind are removed by the next run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["ScratchDirectory"]

_PREFIX = "pytest-mlpatterns-"
_LOCK = "in-use"
"""File that is locked while the run lasts. The kernel releases the lock when its process ends, in any way."""


class ScratchDirectory:
    """A new temporary directory; directories of runs that have ended are removed.

    Attributes:
        path: the directory.
    """

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir())
        for left in base.glob(f"{_PREFIX}*"):
            _remove_if_unused(left)
        new = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}"))
        self._lock = os.open(new / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = new.rename(base / new.name.removeprefix("new-"))  # locked before another run can find it

    def remove(self) -> None:
        """Remove the directory and everything in it. Safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _remove_if_unused(directory: Path) -> None:
    with contextlib.suppress(OSError):  # another user's, of another version, in use, or removed meanwhile
        lock = os.open(directory / _LOCK, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(lock)
