"""Which commit a user means, and how git is asked: about the repository of one directory, changing nothing in passing.

This module must not know what a revision is for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import DeploymentError, SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Git", "Place", "Revision", "resolve_revision"]

_MERGE_BASE = "merge-base:"
_OBEYED = re.compile(r"GIT_(CONFIG_|SSH|SSL_|EXEC_PATH$|CEILING_DIRECTORIES$|DISCOVERY_ACROSS_FILESYSTEM$)")
"""Of git's variables in the environment, those that do not lead to another repository, index or reading of paths."""
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",  # would leave a daemon behind for a directory that is gone soon
    "submodule.recurse": "false",  # would fetch
    "worktree.useRelativePaths": "false",  # would change the repository's format
    "filter.lfs.smudge": "",  # would fetch; what is here of Git LFS is filled in without it
    "filter.lfs.process": "",
    "filter.lfs.required": "false",
}
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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a directory lies in its repository: under which top, and which way down from there."""

    top: Path
    below: Path


@dataclass(frozen=True, slots=True)
class Git:
    """Runs git on the repository of a directory, and on none that the environment points to.

    Args:
        directory: exists.
        options: of git itself, before the command.
        index: file that it uses as its index.
        inherits: open file descriptors that stay open as long as a git that was started runs.
    """

    directory: Path
    options: tuple[str, ...] = ()
    index: Path | None = None
    inherits: tuple[int, ...] = ()

    def succeeds(self, *arguments: str) -> bool:
        """Whether git succeeds.

        Raises:
            DeploymentError: there is no git.
        """
        return self._process(arguments).returncode == 0

    def run(self, *arguments: str) -> str:
        """What git prints; bytes that are no text are kept as in file names.

        Raises:
            DeploymentError: with git's own message.
        """
        process = self._process(arguments)
        if process.returncode:
            message = process.stderr.decode(errors="replace").strip()
            raise DeploymentError(f"`git {arguments[0]}` failed in {self.directory}: {message}")
        return os.fsdecode(process.stdout)

    def place(self) -> Place:
        """Where the directory lies.

        Raises:
            SettingError: in no repository.
            DeploymentError: git refuses, as where somebody else owns the repository.
        """
        try:
            top, below, *_ = self.run("rev-parse", "--show-toplevel", "--show-prefix").split("\n")
        except DeploymentError as error:
            if "not a git repository" not in str(error):
                raise
            raise SettingError(
                f"{self.directory} is not in a git repository, expected one to compare with a revision of it"
            ) from None
        return Place(Path(top), Path(below))

    def _process(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        executable = shutil.which("git")
        if executable is None:
            raise DeploymentError("found no `git` on PATH, expected it to lay out a revision: install git")
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or _OBEYED.match(name)}
        index = {} if self.index is None else {"GIT_INDEX_FILE": str(self.index)}
        return subprocess.run(
            [executable, "-C", str(self.directory), *settings, *self.options, *arguments],
            env={**kept, **index, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            pass_fds=self.inherits,
            start_new_session=True,  # an interrupt is for us: git would stop in the middle of a removal
        )


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
