"""Files of the user's project: read with a bound, replaced as a whole, and locked while two runs change them.

The lock is ``flock`` on a file beside the user's, which is removed when the lock is released. Only users with
permission to replace files of the directory can open it. ``flock`` on the directory would need no file, but each user
with permission to read the directory could hold it, and so with each lock on the user's file: a shared lock keeps
exclusive ones out. The content of a file is of no concern here.
"""

import contextlib
import errno
import fcntl
import os
import pwd
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_mlpatterns.system.owned_files import Place, is_same, place_of, remove_file

MOST_BYTES = 256 << 20  # Largest file that is read; a baseline of 40,000 entries has a tenth of it
LOCK_TIMEOUT_S = 60.0  # Longest wait for the lock of a file, in seconds; another run holds it for milliseconds
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_POLL_S = 0.02  # Interval of attempts to take a lock, in seconds; ``flock`` with a time limit needs a signal
_FOREIGN_LOCK_S = 1.0
"""Time for another user's run to open its new lock to this one, which takes it two calls of the system, even on a
machine under load."""
_MOST_NAME_BYTES = 200  # Bytes of a file's name in the name of its temporary file, which must stay below 255


class ForeignLockError(PermissionError):
    """The lock is a file of another user that this user has no permission to open."""


def read_text(path: Path) -> str:
    """Read a regular file in UTF-8. Raises UnicodeDecodeError: it is not in UTF-8."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer blocks no open
    with os.fdopen(descriptor, "rb", closefd=True) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "It is no regular file", str(path))
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"It is larger than {MOST_BYTES >> 20} MiB", str(path))
    return content.decode("utf-8")


def replace_file(path: Path, make: Callable[[], str | bytes], *, timeout_s: float = LOCK_TIMEOUT_S) -> None:
    """Replace the content of a file as a whole or not at all; other processes that do so wait.

    A symbolic link of this user or of root stays, and the file that it names is replaced. An old file keeps its
    permissions and its owner, as far as the system allows it; a new one gets the umask's. A pipe or device is
    written to. Temporary files that a killed process left beside the file are removed.

    Raises TimeoutError: another process held the lock all that time. Raises ForeignLockError: the lock is a file that
    another user left. Raises NotOwnedError: a link of the path belongs to another user. Raises OSError: the file cannot
    be written; it is as it was.
    """
    with place_of(path) as place:
        if _is_special(place):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            content = _encoded(make())
            _write(os.open(place.name, flags, dir_fd=place.directory), content)
            return
        with _locked(place, timeout_s):
            content = _encoded(make())
            _remove_leftovers(place)
            _replace(place, content, temporary=f"{_hidden(place)}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def locked(path: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[Place]:
    """Hold the lock beside a file, which need not be there; where it lies. Errors are as in :func:`replace_file`."""
    with place_of(path) as place:
        if _is_special(place):
            raise OSError(errno.EINVAL, "It is no regular file", str(path))
        with _locked(place, timeout_s):
            yield place


def append_text(path: Path, text: str) -> None:
    """Append to a file, which is made if it is absent. Raises OSError: it cannot be written."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    _write(os.open(path, flags, 0o666), text.encode("utf-8", "replace"))


def _is_special(place: Place) -> bool:
    """Whether it is there and no regular file, such as a pipe or a device."""
    try:
        return not stat.S_ISREG(os.stat(place.name, dir_fd=place.directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _hidden(place: Place) -> str:
    """Beginning of the names of the files beside it."""
    return f".{os.fsdecode(os.fsencode(place.name)[:_MOST_NAME_BYTES])}"


def _remove_leftovers(place: Place) -> None:
    """Remove the temporary files of a process that was killed."""
    directory = os.open(os.curdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.directory)
    try:
        for name in os.listdir(directory):
            if name.startswith(f"{_hidden(place)}.") and name.endswith(".tmp"):
                with contextlib.suppress(OSError):  # a file that only looks like ours stays
                    remove_file(Path(name), directory)
    finally:
        os.close(directory)


def _encoded(content: str | bytes) -> bytes:
    if isinstance(content, bytes):
        return content
    return content.encode("utf-8", "replace")  # half a surrogate pair, from a file name that is no UTF-8


def _replace(place: Place, content: bytes, *, temporary: str) -> None:
    """Write a new file in an open directory and give it the name of the old one, with its mode and owner."""
    directory, name = place.directory, place.name
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o666, dir_fd=directory)
    try:
        with contextlib.suppress(FileNotFoundError):
            before = os.stat(name, dir_fd=directory, follow_symlinks=False)
            with contextlib.suppress(PermissionError):  # only root gives files away
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
        _write(descriptor, content, durable=True)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
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
def _locked(place: Place, timeout_s: float) -> Iterator[None]:
    """Hold the lock of a file."""
    directory, name = place.directory, f"{_hidden(place)}.lock"
    began = time.monotonic()
    while (lock := _lock(directory, name)) is None:
        waited_s = time.monotonic() - began
        if waited_s > min(timeout_s, _FOREIGN_LOCK_S):
            _require_permission(directory, name)
        if waited_s > timeout_s:
            owner = _owner(name, directory)
            whose = f"; that file belongs to {owner}" if owner else ""
            reason = f"another process has held its lock {name} for {timeout_s:.0f} s{whose}"
            raise TimeoutError(errno.ETIMEDOUT, reason, name)
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        if is_same(name, directory, lock):
            os.unlink(name, dir_fd=directory)  # before the lock is free: a process that waits looks at the name again
        os.close(lock)


def _lock(directory: int, name: str) -> int | None:
    """Take the lock; None if another process has it, or took it in a moment in which it was free.

    It is opened anew each time, so that this process never waits for a file that has lost its name.
    """
    try:
        lock = os.open(name, _LOCK_FLAGS, 0o600, dir_fd=directory)
    except OSError:
        if _owner(name, directory):  # it is there: of another user, or a link
            return None
        raise
    try:
        with contextlib.suppress(OSError):  # another user made it, or a file system without modes
            _share_with_writers(lock, os.fstat(directory))
        if is_locked(lock, fcntl.LOCK_EX) and is_same(name, directory, lock):
            return lock
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _require_permission(directory: int, name: str) -> None:
    """Raises ForeignLockError if the lock is a file that this user has no permission to open.

    A run of root that was killed, such as one in a container, leaves it so.
    """
    try:
        os.close(os.open(name, _LOCK_FLAGS, 0o600, dir_fd=directory))
    except PermissionError:
        if owner := _owner(name, directory):
            reason = f"its lock {name} belongs to {owner} and cannot be opened; if no run of that user goes on, "
            raise ForeignLockError(errno.EACCES, f"{reason}remove the file {name}", name) from None
    except OSError:  # a link
        return


def _owner(name: str, directory: int) -> str:
    """The user whose file it is, in words; empty if it is gone."""
    try:
        number = os.stat(name, dir_fd=directory, follow_symlinks=False).st_uid
        return f"{pwd.getpwuid(number).pw_name} (user {number})"
    except FileNotFoundError:
        return ""
    except KeyError:  # of a container
        return f"user {number}"


def _share_with_writers(lock: int, directory: os.stat_result) -> None:
    """Give users with permission to replace files of the directory the permission to open the lock."""
    sticky = bool(directory.st_mode & stat.S_ISVTX)  # files of other users cannot be replaced there
    group = 0 if sticky or not directory.st_mode & stat.S_IWGRP else stat.S_IRGRP | stat.S_IWGRP
    others = 0 if sticky or not directory.st_mode & stat.S_IWOTH else stat.S_IROTH | stat.S_IWOTH
    mode, status = 0o600 | group | others, os.fstat(lock)
    if group and status.st_gid != directory.st_gid:
        os.fchown(lock, -1, directory.st_gid)
    if stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(lock, mode)


def is_locked(descriptor: int, how: int) -> bool:
    """Lock an open file for this process; False if another one has locked it."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: NFS, some of user space
        return True
    return True
