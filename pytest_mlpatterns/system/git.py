"""Runs git on the repository of one directory, and changes nothing in passing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import DeploymentError, SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence


if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Git", "Place", "commit"]


def commit(directory: Path) -> str | None:
    """The commit that is checked out, with a plus sign where files differ from it; None outside of git."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],  # noqa: S607 - git from the PATH
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


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
