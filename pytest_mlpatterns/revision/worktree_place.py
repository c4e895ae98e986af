"""Where the worktree of a revision lies, whether its run lives, and how it goes: its files, and what git knows of it.

git itself removes no file: ``git worktree remove`` follows the path that it has noted, which may meanwhile be another
user's directory or a link. Directories are removed as :mod:`pytest_mlpatterns.system.owned_files` does it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.system.git import Git
from pytest_mlpatterns.system.owned_files import (
    NotOwnedError,
    OwnedDirectory,
    owned_directory,
    remove_empty,
    remove_tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Place", "common_directory", "place_worktree", "remove_stale", "unheard"]

_PREFIX = "mlpatterns-against-"
_OWNER = "owner"
"""Lock file, locked while the process that made a worktree runs. The kernel releases the lock when that process and the
git processes it started have ended. Unlike a process id, a lock is never reused."""


@dataclass(frozen=True, slots=True)
class Place:
    """A private directory for one worktree.

    Attributes:
        base: the directory.
        root: top directory of the worktree, in it; git makes it.
        owner: descriptor of the lock, for git processes to keep open.
    """

    base: Path
    root: Path
    owner: int


def unheard(_: str) -> None:
    """Takes a sentence, for callers that show none."""


@contextlib.contextmanager
def place_worktree(top: Path, say: Callable[[str], None] = unheard) -> Iterator[Place]:
    """Make a place for a worktree, which is removed when the context ends.

    Args:
        top: top directory of the repository.
        say: takes a sentence about files that had to be left.
    """
    above = Path(tempfile.gettempdir()).resolve()
    base = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=above))
    root = base / (top.name or "top")  # a top that is itself a package is imported by its name
    with owned_directory(base) as directory:
        owner = directory.open(_OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX)
            yield Place(base, root, owner)
        finally:
            directory.empty(keep=(_OWNER,))
            _forget(top, root)
            try:
                directory.remove()
            except OSError as error:
                say(f"{base}, where the revision was laid out, is left: {error.strerror}")
            os.close(owner)


def remove_stale(project: Path, say: Callable[[str], None] = unheard) -> list[Path]:
    """Remove the worktrees of this repository whose processes have ended.

    A worktree is only removed from a directory of this user that has the lock of an ended run. If another user's
    directory or a link has taken the place of the directory, that is left as it is, and git forgets the worktree.

    Args:
        project: a directory of the repository.
        say: takes a sentence about each worktree that was left or forgotten.

    Returns:
        Top directories of the removed worktrees.
    """
    git = Git(project)
    top = git.position().top
    listed = (line.removeprefix("worktree ") for line in git.run("worktree", "list", "--porcelain").split("\n"))
    removed = []
    for root in map(Path, listed):
        if not root.parent.name.startswith(_PREFIX):
            continue
        try:
            if _is_cleared(root, say) and _forget(top, root):
                removed.append(root)
        except NotOwnedError as error:
            if _forget(top, root):  # else it may be in use by another user
                say(
                    f"{root.parent}, where a run that was killed had laid out a revision, is left as it is: "
                    f"{error.strerror}; git forgets the worktree there"
                )
    return removed


def common_directory(git: Git) -> Path:
    """The directory of a repository that its worktrees share, such as ``.git``."""
    return git.directory / git.run("rev-parse", "--git-common-dir").rstrip("\n")


def _is_cleared(root: Path, say: Callable[[str], None]) -> bool:
    """Remove the files of a worktree whose run has ended; False if they are left, and git is to know them.

    Raises:
        NotOwnedError: another user's directory, or a link, has taken their place.
    """
    try:
        with owned_directory(root.parent) as directory:
            if not os.listdir(directory.descriptor):  # the run was killed during the removal
                directory.remove()
                return True
            try:
                owner = directory.open(_OWNER, os.O_RDWR)
            except OSError:
                say(
                    f"{root} has no lock of a run of --perf-against, so it is left as it is; if it is no worktree of "
                    f"your own, remove it: git worktree remove --force {root}"
                )
                return False
            return _is_removed(directory, owner)
    except FileNotFoundError:  # the system has cleaned its temporary directory
        return True
    except NotOwnedError:
        raise
    except OSError:  # a directory above it belongs to another user
        return False


def _is_removed(directory: OwnedDirectory, owner: int) -> bool:
    """Remove the directory if no process holds its lock, and close the lock."""
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its run goes on, or the file system has no locks
        return False
    else:
        directory.empty(keep=(_OWNER,))
        directory.remove()
        return True
    finally:
        os.close(owner)


def _forget(top: Path, root: Path) -> bool:
    """Let git forget a worktree; False if git does not know it, or another user's git has noted it.

    ``git worktree prune`` would also forget the user's worktrees on a disk that is not connected.
    """
    with contextlib.suppress(DeploymentError, OSError):  # the repository was removed, or has no other worktree
        known = common_directory(Git(top)) / "worktrees"
        for noted in known.iterdir():
            if _is_of(noted, root):
                remove_tree(noted)
                with contextlib.suppress(OSError):  # others are left
                    remove_empty(known)
                return True
    return False


def _is_of(noted: Path, root: Path) -> bool:
    try:
        return os.fsdecode((noted / "gitdir").read_bytes()).rstrip("\n") == str(root / ".git")
    except OSError:
        return False
