"""Files of the user's project: read with a bound, replaced as a whole, and locked while two runs change them.

The lock is ``flock`` on the directory: the kernel releases it when a process dies, and no lock file stays beside the
user's file, as one of the package filelock would. The content of a file is of no concern here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["append_text", "read_text", "replace_file"]

MOST_BYTES = 256 << 20
"""Largest file that is read; a baseline of 40,000 entries has a tenth of it."""
_LOCK_TIMEOUT_S = 60.0
_POLL_S = 0.02
_MOST_NAME_BYTES = 200
"""Bytes of a file's name in the name of its temporary file, which must stay below 255."""


def read_text(path: Path) -> str:
    """Read a regular file in UTF-8.

    Raises:
        OSError: it cannot be read, is larger than ``MOST_BYTES``, or is a pipe, a device or a directory.
        UnicodeDecodeError: it is not in UTF-8.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer blocks no open
    with os.fdopen(descriptor, "rb", closefd=True) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "It is no regular file", str(path))
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"It is larger than {MOST_BYTES >> 20} MiB", str(path))
    return content.decode("utf-8")


def replace_file(path: Path, make: Callable[[], str], *, timeout_s: float = _LOCK_TIMEOUT_S) -> None:
    """Replace the content of a file as a whole or not at all; other processes that do so wait.

    A symbolic link stays, and the file that it names is replaced. An old file keeps its permissions and its owner, as
    far as the system allows it; a new one gets those of the umask. A pipe or device is written to. Temporary files that
    a killed process left beside the file are removed.

    Args:
        path: the file; it may be absent.
        make: gives the new content; called while the lock is held, so that it may read the old one.
        timeout_s: how long to wait for the lock.

    Raises:
        TimeoutError: another process held the lock all that time.
        OSError: the file cannot be written; it is as it was.
    """
    target = Path(os.path.realpath(path))
    with _locked(target.parent, timeout_s):
        content = make().encode("utf-8", "replace")  # half a surrogate pair, from a file name that is no UTF-8
        try:
            before = target.stat()
        except FileNotFoundError:
            before = None
        if before is not None and not stat.S_ISREG(before.st_mode):
            _write(os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC), content)
            return
        name = os.fsdecode(os.fsencode(target.name)[:_MOST_NAME_BYTES])
        for leftover in target.parent.iterdir():
            if leftover.name.startswith(f".{name}.") and leftover.suffix == ".tmp":
                with contextlib.suppress(OSError):  # a file that only looks like ours stays
                    leftover.unlink()
        _replace(target, content, before, temporary=target.with_name(f".{name}.{secrets.token_hex(4)}.tmp"))


def append_text(path: Path, text: str) -> None:
    """Append to a file, which is made if it is absent.

    Raises:
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    _write(os.open(path, flags, 0o666), text.encode("utf-8", "replace"))


def _replace(target: Path, content: bytes, before: os.stat_result | None, *, temporary: Path) -> None:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        if before is not None:
            with contextlib.suppress(PermissionError):  # only root gives files away
                os.chown(temporary, before.st_uid, before.st_gid)
            os.chmod(temporary, stat.S_IMODE(before.st_mode))
        _write(descriptor, content, durable=True)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write(descriptor: int, content: bytes, *, durable: bool = False) -> None:
    """Write everything and close the descriptor."""
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(descriptor)


@contextlib.contextmanager
def _locked(directory: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock of a directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, directory, time.monotonic() + timeout_s)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT, "Another process has locked the directory all the time", str(directory)
                ) from None
            time.sleep(_POLL_S)
        except OSError:  # a file system without locks: NFS, some of user space
            return
        else:
            return
