"""Who has the machine: under pytest-xdist, ordinary tests share it and a perf test has it to itself.

Two file locks that the kernel releases when a process dies, so that a crashed worker blocks nobody. A test passes the
gate to get into the room; a perf test keeps the gate closed while it waits for the room to empty, so that a stream of
ordinary tests cannot starve it. POSIX record locks are used because, unlike ``flock``, a forked child does not inherit
them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["MachineLock"]


class MachineLock:
    """One process's view of the lock; all processes that name the same directory share it.

    Args:
        directory: exists, on a file system of this machine.
    """

    def __init__(self, directory: Path) -> None:
        self._gate = os.open(directory / "gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._room = os.open(directory / "room", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def held(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the machine, alone or with others; waits until it is free."""
        fcntl.lockf(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.lockf(self._room, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        finally:
            fcntl.lockf(self._gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.lockf(self._room, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file descriptors back."""
        os.close(self._gate)
        os.close(self._room)
