"""Which commit a user means, and how git is asked: about the repository of one directory, changing nothing in passing.

This module must not know what a revision is for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.git import Git

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Revision", "resolve_revision"]

_MERGE_BASE = "merge-base:"
_SHALLOW = (
    "this clone is shallow, so it may only be missing here: `git fetch --unshallow`, and `git fetch origin NAME` for "
    "another branch; with actions/checkout, `fetch-depth: 0`"
)


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit.

    Attributes:
        sha: its full hash.
        name: how the user named it; with the remote before it where only that has such a branch.
        subject: first line of its message.
        short: its abbreviated hash.
    """

    sha: str
    name: str
    subject: str
    short: str


def resolve_revision(project: Path, ref: str) -> Revision:
    """Find the commit that a user means.

    Args:
        project: a directory of the repository.
        ref: a branch, tag or commit, or ``merge-base:BRANCH`` for the commit at which HEAD left that branch. A branch
            that exists on one remote only need not be written with the remote.

    Raises:
        SettingError: there is no repository, no commit yet, or no such revision.
        DeploymentError: git is missing, or refuses.
    """
    git = Git(project)
    top = git.place().top
    if not git.succeeds("rev-parse", "--verify", "--quiet", "HEAD"):
        raise SettingError(f"HEAD has no commit yet in {top}, expected one to compare with: commit first")
    name, sha = _commit(git, top, ref.removeprefix(_MERGE_BASE))
    if ref.startswith(_MERGE_BASE):
        if not git.succeeds("merge-base", "HEAD", sha):
            raise SettingError(
                f"{ref}: HEAD and {name} have no commit in common in {top}, expected one{_if_shallow(git)}"
            )
        name, sha = f"{_MERGE_BASE}{name}", git.run("merge-base", "HEAD", sha).strip()
    said = git.run("log", "-1", "--no-show-signature", "--encoding=UTF-8", "--format=%h%n%s", sha)
    short, subject, *_ = said.split("\n")
    return Revision(sha, name, os.fsencode(subject).decode(errors="replace"), short)


def _commit(git: Git, top: Path, ref: str) -> tuple[str, str]:
    """A revision's name and hash."""
    remotes = git.run("remote").split("\n")[:-1]
    found = {name: sha for name in (ref, *(f"{remote}/{ref}" for remote in remotes)) if (sha := _hash(git, name))}
    if ref in found or len(found) == 1:
        name = ref if ref in found else next(iter(found))
        return name, found[name]
    names = git.run("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes").split()
    close = list(found) or get_close_matches(ref, names, n=5) or names[:5]
    such = f" such as {', '.join(close)}" if close else ""
    raise SettingError(f"{ref!r} is no revision of {top}, expected a branch, tag or commit{such}{_if_shallow(git)}")


def _hash(git: Git, name: str) -> str | None:
    verify = ("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    return git.run(*verify).strip() if name.lstrip("-^") == name != "" and git.succeeds(*verify) else None


def _if_shallow(git: Git) -> str:
    return f"; {_SHALLOW}" if git.run("rev-parse", "--is-shallow-repository").strip() == "true" else ""
