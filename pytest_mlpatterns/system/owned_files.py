"""Removes, renames and opens up directories of this user only, and never through a link.

Directories for temporary files are shared with other users. A name that a run wrote down there, or that git lists, may
meanwhile be another user's directory, or a link to anything. So one rule holds for each removal, renaming and change of
a mode in this package: a directory is opened without following a link, its owner must be the user of this process, and
everything below it is reached through its descriptor, so that a name that another user exchanges meanwhile changes
nothing. What does not fit stays as it is, and the caller gets an error. ``tempfile.TemporaryDirectory`` is no way
around it: before Python 3.11.8 its removal changes modes through links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from msgspec import Struct

_IN_PLACE = os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | _IN_PLACE
_ABOVE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags for the directory above: only names in it are looked up, so it need not be readable."""
_PRIVATE = 0o700  # Mode of a directory that no other user may enter
_MOST_LINKS = 40  # Links that lead to each other, as many as Linux follows


class NotOwnedError(OSError):
    """A file or directory is of another kind, such as a link, or belongs to another user."""


class OwnedDirectory(Struct, frozen=True):
    """An open directory of this user; :func:`owned_directory` opens it."""

    path: Path  # where it was when it was opened; for messages, and for the removal of its name
    descriptor: int

    def open(self, name: str, flags: int) -> int:
        """Open a file of this user in it, with mode 0600 if it is made; returns a descriptor.

        Raises OSError: it cannot be opened, is a link or no regular file, or belongs to another user.
        """
        opened = os.open(name, flags | os.O_NONBLOCK | _IN_PLACE, 0o600, dir_fd=self.descriptor)
        try:
            _require(os.fstat(opened), stat.S_ISREG, self.path / name)
        except OSError:
            os.close(opened)
            raise
        return opened

    def close_to_others(self) -> None:
        """Let no other user enter it."""
        os.fchmod(self.descriptor, _PRIVATE)

    def rename(self, name: str) -> OwnedDirectory:
        """Give it another name in the directory that it lies in; it is open as before.

        Raises OSError: its name leads to another directory meanwhile, or the new one is taken.
        """
        with _above(self.path) as above:
            self._require_name(above)
            os.rename(self.path.name, name, src_dir_fd=above, dst_dir_fd=above)
        return OwnedDirectory(self.path.with_name(name), self.descriptor)

    def empty(self, keep: Collection[str] = ()) -> None:
        """Remove everything in it, also what a test made read-only, but for these names."""
        self._remove_entries(keep)
        if set(os.listdir(self.descriptor)) - set(keep):
            self._open_up()
            self._remove_entries(keep)

    def remove(self) -> None:
        """Remove everything in it, and its name.

        Raises OSError: something in it cannot be removed, or its name leads to another directory meanwhile.
        """
        self.empty()
        with _above(self.path) as above:
            self._require_name(above)
            os.rmdir(self.path.name, dir_fd=above)

    def _remove_entries(self, keep: Collection[str]) -> None:
        for name in os.listdir(self.descriptor):
            if name in keep:
                continue
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(_status(name, self.descriptor).st_mode):
                    shutil.rmtree(name, ignore_errors=True, dir_fd=self.descriptor)
                else:
                    os.unlink(name, dir_fd=self.descriptor)

    def _open_up(self) -> None:
        """Let this user enter and change all its own directories in it."""
        os.fchmod(self.descriptor, _PRIVATE)
        for _, names, _, folder in os.fwalk(".", dir_fd=self.descriptor):
            for name in names:
                with contextlib.suppress(OSError):  # a link, or a directory of another user
                    _require(_status(name, folder), stat.S_ISDIR, self.path / name)
                    _make_private(name, folder)

    def _require_name(self, above: int) -> None:
        if not is_same(self.path.name, above, self.descriptor):
            raise OSError(errno.ESTALE, "Another file has taken its name", str(self.path))


class Place(Struct, frozen=True):
    """A name in an open directory; :func:`place_of` opens it."""

    directory: int  # its descriptor; names in it can be looked up, but perhaps not listed
    name: str


@contextlib.contextmanager
def place_of(path: Path) -> Iterator[Place]:
    """Where a file lies, behind links of this user and of root; the file need not be there.

    Each directory of the path is opened in the one above it, since a link of another user could lead anywhere. Links of
    the user whose working directory it is are followed: its code runs anyway, and in a container a root works on the
    files of a user outside of it.

    Raises FileNotFoundError: a directory is absent. Raises NotOwnedError: a link belongs to another user.
    """
    ahead, name, links = [*reversed(path.parts)], os.curdir, 0
    directory = os.open(os.curdir, _ABOVE)
    try:
        while ahead:
            name = ahead.pop()
            if (target := _target(name, directory, path)) is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, "Its symbolic links lead to each other", str(path))
                ahead += reversed(target.parts)
            elif ahead:
                below = os.open(name, _ABOVE | os.O_NOFOLLOW, dir_fd=directory)
                os.close(directory)
                directory = below
        yield Place(directory, name)
    finally:
        os.close(directory)


def _target(name: str, directory: int, path: Path) -> Path | None:
    """What a link leads to; None if the name is none."""
    with contextlib.suppress(FileNotFoundError):
        status = _status(name, directory)
        if stat.S_ISLNK(status.st_mode):
            if status.st_uid not in (os.geteuid(), 0, Path().stat().st_uid):
                raise NotOwnedError(errno.EPERM, f"{name} is a link of another user, of id {status.st_uid}", str(path))
            return Path(os.readlink(name, dir_fd=directory))
    return None


@contextlib.contextmanager
def owned_directory(path: Path) -> Iterator[OwnedDirectory]:
    """Open a directory of this user, without following a link in its place.

    Raises FileNotFoundError: it is absent. Raises NotOwnedError: it is a link or no directory, or belongs to another
    user. Raises OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, _DIRECTORY)
    except OSError:
        _require(path.lstat(), stat.S_ISDIR, path)  # raises the reason
        raise
    try:
        _require(os.fstat(descriptor), stat.S_ISDIR, path)
        yield OwnedDirectory(path, descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a directory of this user and everything in it; an absent one is no error.

    Raises OSError: it is a link or no directory, belongs to another user, or something in it cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError), owned_directory(path) as directory:
        directory.remove()


def remove_empty(path: Path) -> None:
    """Remove an empty directory of this user.

    Raises OSError: it is absent, not empty, a link or no directory, or belongs to another user.
    """
    with _above(path) as above:
        _require(_status(path.name, above), stat.S_ISDIR, path)
        os.rmdir(path.name, dir_fd=above)


def remove_file(path: Path, directory: int | None = None) -> None:
    """Remove a file of this user. ``directory``: descriptor of the one that it lies in, if it is open.

    Raises OSError: it is absent, a link or no regular file, or belongs to another user.
    """
    with _above(path) if directory is None else contextlib.nullcontext(directory) as above:
        _require(_status(path.name, above), stat.S_ISREG, path)
        os.unlink(path.name, dir_fd=above)


@contextlib.contextmanager
def temporary_directory(prefix: str, above: Path | None = None) -> Iterator[Path]:
    """A new private directory, by default in the system's place of temporary files, which is removed at the end."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=above))
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            remove_tree(path)


def is_same(name: str, directory: int, opened: int) -> bool:
    """Whether a name in an open directory belongs to an open file, and no link to it."""
    try:
        return os.path.samestat(_status(name, directory), os.fstat(opened))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _above(path: Path) -> Iterator[int]:
    """Descriptor of the directory that something lies in."""
    descriptor = os.open(path.parent, _ABOVE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _status(name: str, directory: int) -> os.stat_result:
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def _make_private(name: str, directory: int) -> None:
    """Set the mode of a directory that may not be readable, so that it cannot be opened for reading first."""
    if sys.platform != "linux":
        os.chmod(name, _PRIVATE, dir_fd=directory, follow_symlinks=False)
        return
    opened = os.open(name, os.O_PATH | os.O_DIRECTORY | _IN_PLACE, dir_fd=directory)
    try:
        _require(os.fstat(opened), stat.S_ISDIR, Path(name))
        os.chmod(f"/proc/self/fd/{opened}", _PRIVATE)  # Linux has no chmod that leaves links alone
    finally:
        os.close(opened)


def _require(status: os.stat_result, is_kind: Callable[[int], bool], path: Path) -> None:
    """Raises NotOwnedError if something is of another kind, such as a link, or belongs to another user."""
    if not is_kind(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "of another kind"
        raise NotOwnedError(errno.EINVAL, f"It is {kind}", str(path))
    if status.st_uid != os.geteuid():
        raise NotOwnedError(errno.EPERM, f"It belongs to another user, of id {status.st_uid}", str(path))
