"""Commits along first parents: which one is checked out, where it stands, and those between two of them.

A history is of one line of development: the first parents of what is checked out. They are what a branch was, commit by
commit; the commits of a branch that was merged count as one. In a shallow clone the position of a commit is not known.
This module also knows whether the files are still the commit's, and must not know what is measured.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import Struct

from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.records.bisect import CommitName
from pytest_mlpatterns.records.history import CommitPosition
from pytest_mlpatterns.revision.commits import Revision, commit_hash, resolve_revision
from pytest_mlpatterns.system.git import Git, changed_files
from pytest_mlpatterns.wording import shown

_MOST_COMMITS = 100_000
"""Commits along first parents that are read at most, the latest ones; that takes git about a second."""


class Checkout(Struct, frozen=True):
    """What was checked out when a run began."""

    at: CommitPosition  # the commit; without a hash outside of git, and before the first commit
    changed: tuple[str, ...] = ()  # files that differ from the commit, relative to the top of the repository

    @property
    def clean(self) -> bool:
        """Whether the files are the commit's."""
        return not self.changed


def checkout_of(root: Path, leave_out: Collection[Path] = ()) -> Checkout:
    """What is checked out now."""
    git = _repository(root)
    if git is None:
        return Checkout(CommitPosition())
    return Checkout(position_in(root, "HEAD"), changed_files(root, leave_out))


def position_in(root: Path, commit: str) -> CommitPosition:
    """The full hash of a commit and its position along first parents, 0 in a shallow clone."""
    git = _repository(root)
    sha = None if git is None else commit_hash(git, commit)
    if git is None or sha is None:
        return CommitPosition(commit)
    if git.is_shallow:
        return CommitPosition(sha)
    return CommitPosition(sha, int(git.run("rev-list", "--count", "--first-parent", sha)))


def first_parents(root: Path) -> tuple[str, ...]:
    """The full hashes from the first commit to the one that is checked out, along first parents.

    Returns None of them outside of git and in a shallow clone, whose first commits are missing.
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


class CommitRange(Struct, frozen=True):
    """The commits of a range along first parents."""

    good: Revision  # the commit before the range
    bad: Revision  # the last one of the range
    shas: tuple[str, ...]  # hashes, from ``good`` to ``bad``, both included

    def revision(self, position: int) -> Revision:
        """The commit of a position; the ends have the names that the user gave them."""
        sha = self.shas[position]
        if sha == self.good.sha:
            return self.good
        return self.bad if sha == self.bad.sha else Revision(sha, sha[:12], "", sha[:12])


def read_range(project: Path, commits: str) -> CommitRange:
    """The commits that ``GOOD..BAD`` names; BAD may be left out for HEAD."""
    first, dots, last = commits.partition("..")
    if not dots or not first or last.startswith("."):
        raise SettingError(f"{shown(commits)} is no range of commits, expected GOOD..BAD; write v1.0..main")
    git = Git(project)
    good, bad = resolve_revision(project, first), resolve_revision(project, last or "HEAD")
    listed = git.run("rev-list", "--first-parent", "--reverse", f"{good.sha}..{bad.sha}", "--").split()
    if not listed:
        why = "are the same commit" if good.sha == bad.sha else f"has no commit: {bad.name} comes before {good.name}"
        raise SettingError(f"{shown(commits)} {why}, expected GOOD before BAD")
    parent = git.run("rev-list", "--parents", "-1", listed[0]).split()[1:2]
    if parent != [good.sha]:
        line = f"{good.name} is not on the line of first parents of {bad.name}, expected a commit of that branch"
        base = git.run("merge-base", good.sha, bad.sha).strip() if parent else ""
        named = f"; where they part is {base[:12]}: write {base[:12]}..{bad.name}" if base and base != good.sha else ""
        raise SettingError(f"{line}{named}")
    return CommitRange(good, bad, (good.sha, *listed))


def commit_names(project: Path, shas: tuple[str, ...]) -> Mapping[str, CommitName]:
    """How people name these commits, by hash."""
    form = "--format=%H%x00%h%x00%s%x00%an%x00%cI"
    listed = Git(project).run(
        "log", "--no-walk=unsorted", "--no-show-signature", "--encoding=UTF-8", "--stdin", form, stdin=_lines(shas)
    )
    fields = (os.fsencode(line).decode(errors="replace").split("\0") for line in listed.split("\n") if line)
    return {one[0]: CommitName(*one) for one in fields}


def _lines(shas: tuple[str, ...]) -> bytes:
    return "".join(f"{sha}\n" for sha in shas).encode()
