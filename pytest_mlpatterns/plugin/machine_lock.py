"""A lock on the machine: under pytest-xdist a perf test has the machine to itself, other tests share it.

Two file locks, which the kernel releases when a process dies, so that a crashed worker blocks no other. A test passes
the gate to enter the room. A perf test holds the gate while it waits for the room to empty, so that a stream of
ordinary tests cannot starve it. They are POSIX record locks because a forked child does not inherit those, unlike
``flock``.
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
    """A readers-writer lock; all processes that name the same directory share it.

    Args:
        directory: an existing directory on a local file system.
    """

    def __init__(self, directory: Path) -> None:
        self._gate = os.open(directory / "gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._room = os.open(directory / "room", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def held(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the lock; waits until it is free.

        Args:
            exclusive: exclude all other holders; otherwise only exclusive ones.
        """
        self._enter(exclusive=exclusive)
        try:
            yield
        finally:
            fcntl.lockf(self._room, fcntl.LOCK_UN)

    def make_exclusive(self) -> None:
        """Exclude all other holders from now on; waits until they are gone. The lock is held already."""
        fcntl.lockf(self._room, fcntl.LOCK_UN)  # two holders that wait for each other to leave would wait for ever
        self._enter(exclusive=True)

    def _enter(self, *, exclusive: bool) -> None:
        fcntl.lockf(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.lockf(self._room, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        finally:
            fcntl.lockf(self._gate, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file descriptors."""
        os.close(self._gate)
        os.close(self._room)
