"""Which commit is checked out, where it stands along first parents, and whether the files are still those of it.

A history is of one line of development: the first parents of what is checked out. In a shallow clone the position of a
commit is not known. This module must not know what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.records.history import CommitPosition
from pytest_mlpatterns.revision.commits import commit_hash
from pytest_mlpatterns.system.git import Git, changed_files

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["Checkout", "checkout_of", "first_parents", "position_in"]

_MOST_COMMITS = 100_000
"""Commits along first parents that are read at most, the latest ones; that takes git about a second."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """What was checked out when a run began.

    Attributes:
        at: the commit; without a hash outside of git, and before the first commit.
        changed: files that differ from the commit, relative to the top of the repository.
    """

    at: CommitPosition
    changed: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether the files are those of the commit."""
        return not self.changed


def checkout_of(root: Path, leave_out: Collection[Path] = ()) -> Checkout:
    """What is checked out now.

    Args:
        root: a directory of the repository; the whole repository counts.
        leave_out: files that are no part of the code, such as the history and result files.

    Raises:
        DeploymentError: git fails, as in a damaged repository.
    """
    git = _repository(root)
    if git is None:
        return Checkout(CommitPosition())
    return Checkout(position_in(root, "HEAD"), changed_files(root, leave_out))


def position_in(root: Path, commit: str) -> CommitPosition:
    """The full hash of a commit and its position along first parents, 0 in a shallow clone.

    Args:
        root: a directory of the repository.
        commit: any name of it; it is returned as it is if this clone does not have it.
    """
    git = _repository(root)
    sha = None if git is None else commit_hash(git, commit)
    if git is None or sha is None:
        return CommitPosition(commit)
    if git.is_shallow:
        return CommitPosition(sha)
    return CommitPosition(sha, int(git.run("rev-list", "--count", "--first-parent", sha)))


def first_parents(root: Path) -> tuple[str, ...]:
    """The full hashes from the first commit to the one that is checked out, along first parents.

    Returns:
        None of them outside of git and in a shallow clone, whose first commits are missing.
    """
    git = _repository(root)
    if git is None or git.is_shallow:
        return ()
    listed = git.run("rev-list", "--first-parent", f"--max-count={_MOST_COMMITS}", "HEAD").split()
    return tuple(reversed(listed))


def _repository(root: Path) -> Git | None:
    """Git at the top of the repository; None outside of one, without git, and before the first commit."""
    try:
        git = Git(Git(root).position().top)
        return git if git.succeeds("rev-parse", "--verify", "--quiet", "HEAD") else None
    except (SettingError, DeploymentError):
        return None
