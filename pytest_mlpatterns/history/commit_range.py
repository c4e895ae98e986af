"""Commits along first parents, as a range names them: ``GOOD..BAD``.

First parents are what a branch was, commit by commit; the commits of a branch that was merged count as one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.bisect import CommitName
from pytest_mlpatterns.revision.commits import Revision, resolve_revision
from pytest_mlpatterns.system.git import Git
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["CommitRange", "commit_names", "read_range", "tagged"]


@dataclass(frozen=True, slots=True)
class CommitRange:
    """The commits of a range along first parents.

    Attributes:
        good: the commit before the range.
        bad: the last one of the range.
        shas: hashes, from ``good`` to ``bad``, both included.
    """

    good: Revision
    bad: Revision
    shas: tuple[str, ...]

    def revision(self, position: int) -> Revision:
        """The commit of a position; the ends have the names that the user gave them."""
        sha = self.shas[position]
        if sha == self.good.sha:
            return self.good
        return self.bad if sha == self.bad.sha else Revision(sha, sha[:12], "", sha[:12])


def read_range(project: Path, commits: str) -> CommitRange:
    """The commits that ``GOOD..BAD`` names; BAD may be left out for HEAD.

    Raises:
        SettingError: it is no such range, a name is unknown, or GOOD is not on the line of first parents of BAD.
        DeploymentError: git is missing or fails.
    """
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


def tagged(project: Path, shas: tuple[str, ...]) -> frozenset[str]:
    """Those of the commits that have a tag."""
    lines = Git(project).run("for-each-ref", "--format=%(objectname) %(*objectname)", "refs/tags").split()
    return frozenset(lines) & frozenset(shas)


def _lines(shas: tuple[str, ...]) -> bytes:
    return "".join(f"{sha}\n" for sha in shas).encode()
