"""Files of the user's project that several processes append to: locked, whole or not at all, and reached safely.

Writers hold the lock beside the file (:mod:`pytest_mlpatterns.system.files`), which a user without the right to write
cannot take. Besides, they and readers lock the file itself for a moment, so that no reader sees half of a line. If no
file can be made beside it, that lock alone must do. The content of a file is of no concern here.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from pytest_mlpatterns.system.files import LOCK_TIMEOUT_S, ForeignLockError, is_locked, locked
from pytest_mlpatterns.system.owned_files import Place, is_same, place_of

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags for each opening: a link is refused, and a pipe without a writer blocks no process."""
_READ_TIMEOUT_S = 5.0
"""Longest wait of a reader for the lock, in seconds; then it reads without, and may see half of a new line."""
_WRITE_TIMEOUT_S = 1.0
"""Longest wait of a writer for readers, in seconds: one that stays is no reason to lose lines."""
_POLL_S = 0.005  # Interval of attempts to take a lock, in seconds; ``flock`` with a time limit needs a signal


class SharedFile(Struct, frozen=True):
    """An open file that this process has locked; :func:`shared_file` opens it."""

    descriptor: int

    @property
    def size_bytes(self) -> int:
        """Its size; 0 if it was made by opening it."""
        return os.fstat(self.descriptor).st_size

    def read(self, most_bytes: int) -> bytes:
        """Its beginning, or all of it if it is no larger than ``most_bytes``."""
        return _read(self.descriptor, most_bytes)

    def append(self, content: bytes) -> None:
        """Add lines at the end, with one write; after a line that was cut off, they begin on a new one.

        Raises OSError: they could not be written, such as on a full disk; the file is as it was.
        """
        before = self.size_bytes
        is_cut = before > 0 and os.pread(self.descriptor, 1, before - 1) != b"\n"
        rest = memoryview(b"\n" + content if is_cut else content)
        try:
            while rest:  # a second write fails with the reason for which the first ended early
                rest = rest[os.write(self.descriptor, rest) :]
        except BaseException:
            os.ftruncate(self.descriptor, before)
            raise


@contextlib.contextmanager
def shared_file(path: Path, *, make: bool = False, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[SharedFile]:
    """Open a file for reading and appending, and lock it for this process alone.

    Raises FileNotFoundError: it is absent, and is not to be made; or its directory is. Raises OSError: it cannot be
    opened for writing, is no regular file, or as :func:`~pytest_mlpatterns.system.files.replace_file` has it.
    """
    flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if make else 0)
    with contextlib.ExitStack() as held:
        try:
            place, is_ours = held.enter_context(locked(path, timeout_s=timeout_s)), True
        except ForeignLockError:
            raise
        except PermissionError:  # no file can be made beside it: the lock on itself must do, which readers can hold
            place, is_ours = held.enter_context(place_of(path)), False
        while True:
            descriptor = _opened(place, flags)
            try:
                is_free = _is_locked(descriptor, fcntl.LOCK_EX, _WRITE_TIMEOUT_S if is_ours else timeout_s)
                if not (is_free or is_ours):
                    reason = f"another process has held its lock for {timeout_s:.0f} s, perhaps one that only reads it"
                    raise TimeoutError(errno.ETIMEDOUT, reason, str(path))
                if is_same(place.name, place.directory, descriptor):  # else git, for instance, has replaced it
                    yield SharedFile(descriptor)
                    return
            finally:
                os.close(descriptor)


def read_shared(path: Path, most_bytes: int) -> bytes:
    """Read such a file; an append that goes on is waited for.

    Raises FileNotFoundError: it is absent. Raises NotOwnedError: a link of the path belongs to another user.
    """
    with place_of(path) as place:
        descriptor = _opened(place, os.O_RDONLY)
    try:
        _is_locked(descriptor, fcntl.LOCK_SH, _READ_TIMEOUT_S)
        content = _read(descriptor, most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"It is larger than {most_bytes >> 20} MiB", str(path))
    return content


def _opened(place: Place, flags: int) -> int:
    descriptor = os.open(place.name, flags | _FLAGS, 0o666, dir_fd=place.directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "It is no regular file", place.name)
    return descriptor


def _is_locked(descriptor: int, how: int, timeout_s: float) -> bool:
    """Wait for the lock of an open file; False if another process holds it all the time."""
    until = time.monotonic() + timeout_s
    while not is_locked(descriptor, how):
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL_S)
    return True


def _read(descriptor: int, most_bytes: int) -> bytes:
    size = min(os.fstat(descriptor).st_size, most_bytes)
    parts, place = [], 0
    while place < size and (part := os.pread(descriptor, size - place, place)):
        parts.append(part)
        place += len(part)
    return b"".join(parts)
