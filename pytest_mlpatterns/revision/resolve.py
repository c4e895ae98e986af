"""Which commit a branch, tag, hash or ``merge-base:BRANCH`` names. Nothing in the repository is changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.git import Git

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Revision", "commit_hash", "resolve_revision"]

_MERGE_BASE = "merge-base:"
_SHALLOW = (
    "this clone is shallow, so it may only be missing here: `git fetch --unshallow`, and `git fetch origin NAME` for "
    "another branch; with actions/checkout, `fetch-depth: 0`"
)


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit.

    Attributes:
        sha: full hash.
        name: the user's name for it; with the name of the remote if only a remote has such a branch.
        subject: first line of the commit message.
        short: abbreviated hash.
    """

    sha: str
    name: str
    subject: str
    short: str


def resolve_revision(project: Path, ref: str) -> Revision:
    """Find the commit that a reference names.

    Args:
        project: a directory of the repository.
        ref: a branch, tag or commit, or ``merge-base:BRANCH`` for the last commit that HEAD and that branch share. The
            name of the remote may be left out if one remote only has the branch.

    Raises:
        SettingError: there is no repository, no commit yet, or no such revision.
        DeploymentError: git is missing or fails.
    """
    git = Git(project)
    top = git.position().top
    if not git.succeeds("rev-parse", "--verify", "--quiet", "HEAD"):
        raise SettingError(f"HEAD has no commit yet in {top}, expected a commit to compare with; commit first")
    name, sha = _commit(git, top, ref.removeprefix(_MERGE_BASE))
    if ref.startswith(_MERGE_BASE):
        if not git.succeeds("merge-base", "HEAD", sha):
            raise SettingError(
                f"{ref}: HEAD and {name} have no common commit in {top}, expected at least one{_if_shallow(git)}"
            )
        name, sha = f"{_MERGE_BASE}{name}", git.run("merge-base", "HEAD", sha).strip()
    described = git.run("log", "-1", "--no-show-signature", "--encoding=UTF-8", "--format=%h%n%s", sha)
    short, subject, *_ = described.split("\n")
    return Revision(sha, name, os.fsencode(subject).decode(errors="replace"), short)


def _commit(git: Git, top: Path, ref: str) -> tuple[str, str]:
    """Name and hash of a revision."""
    remotes = git.run("remote").split("\n")[:-1]
    found = {name: sha for name in (ref, *(f"{remote}/{ref}" for remote in remotes)) if (sha := commit_hash(git, name))}
    if ref in found or len(found) == 1:
        name = ref if ref in found else next(iter(found))
        return name, found[name]
    names = git.run("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes").split()
    close = list(found) or get_close_matches(ref, names, n=5) or names[:5]
    such = f" such as {', '.join(close)}" if close else ""
    raise SettingError(f"{ref!r} is no revision of {top}, expected a branch, tag or commit{such}{_if_shallow(git)}")


def commit_hash(git: Git, name: str) -> str | None:
    """The full hash of the commit that a name or an abbreviated hash stands for; None if there is none here."""
    verify = ("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    return git.run(*verify).strip() if name.lstrip("-^") == name != "" and git.succeeds(*verify) else None


def _if_shallow(git: Git) -> str:
    return f"; {_SHALLOW}" if git.run("rev-parse", "--is-shallow-repository").strip() == "true" else ""
