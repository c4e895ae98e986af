"""Files of the user's project that several processes append to: locked, whole or not at all, and reached safely.

The lock is ``flock`` on the file itself. So a process that replaces the file keeps those waiting that append to it, and
they open the new one afterwards. Links are followed only if they belong to this user: in a directory that other users
write to, a link of theirs could lead to any file of this user. The content of a file is of no concern here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.system.files import LOCK_TIMEOUT_S
from pytest_mlpatterns.system.owned_files import NotOwnedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags for each opening: a link is refused, and a pipe without a writer blocks no process."""
_READ_TIMEOUT_S = 5.0
"""Longest wait of a reader for the lock, in seconds; then it reads without, and may see half of a new line."""
_POLL_S = 0.005  # Interval of attempts to take a lock, in seconds; ``flock`` with a time limit needs a signal
_MOST_LINKS = 40  # Links that lead to each other, as many as Linux follows


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

    Raises FileNotFoundError: it is absent, and is not to be made; or its directory is. Raises NotOwnedError: it is a
    link that belongs to another user. Raises OSError: it cannot be opened for writing, or is no regular file.
    """
    target = _behind_links(path)
    until = time.monotonic() + timeout_s
    flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if make else 0)
    while True:
        descriptor = _opened(target, flags)
        try:
            if not _is_locked(descriptor, fcntl.LOCK_EX, until):
                raise TimeoutError(errno.ETIMEDOUT, "Another process has held the lock all the time", str(path))
            if _is_still(target, descriptor):  # else it was replaced while this process waited
                yield SharedFile(descriptor)
                return
        finally:
            os.close(descriptor)


def read_shared(path: Path, most_bytes: int) -> bytes:
    """Read such a file; an append that goes on is waited for.

    Raises FileNotFoundError: it is absent. Raises NotOwnedError: it is a link that belongs to another user.
    """
    descriptor = _opened(_behind_links(path), os.O_RDONLY)
    try:
        _is_locked(descriptor, fcntl.LOCK_SH, time.monotonic() + _READ_TIMEOUT_S)
        content = _read(descriptor, most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"It is larger than {most_bytes >> 20} MiB", str(path))
    return content


def _behind_links(path: Path) -> Path:
    """What links of this user at this name lead to; the file need not be there."""
    target = path
    for _ in range(_MOST_LINKS):
        try:
            status = target.lstat()
        except FileNotFoundError:
            return target
        if not stat.S_ISLNK(status.st_mode):
            return target
        if status.st_uid != os.geteuid():
            raise NotOwnedError(errno.EPERM, f"It is a link of another user, of id {status.st_uid}", str(path))
        target = target.parent / os.readlink(target)
    raise OSError(errno.ELOOP, "Its links lead to each other", str(path))


def _opened(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | _FLAGS, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "It is no regular file", str(path))
    return descriptor


def _is_locked(descriptor: int, how: int, until: float) -> bool:
    """Wait for the lock of an open file; False if another process holds it all the time."""
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
        except OSError:  # a file system without locks: NFS, some of user space
            return True
        else:
            return True
        time.sleep(_POLL_S)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the name of an open file still leads to it."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read(descriptor: int, most_bytes: int) -> bytes:
    size = min(os.fstat(descriptor).st_size, most_bytes)
    parts, place = [], 0
    while place < size and (part := os.pread(descriptor, size - place, place)):
        parts.append(part)
        place += len(part)
    return b"".join(parts)
