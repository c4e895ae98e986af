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

__all__ = ["Git", "RepositoryPosition", "commit"]


def commit(directory: Path) -> str | None:
    """The abbreviated hash of HEAD, with ``+`` if tracked files differ from it; None outside of git."""
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


_ENVIRONMENT_KEPT = re.compile(r"GIT_(CONFIG_|SSH|SSL_|EXEC_PATH$|CEILING_DIRECTORIES$|DISCOVERY_ACROSS_FILESYSTEM$)")
"""Variables of git's that are passed on: those that do not select another repository or index."""
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",  # would leave a daemon behind for a temporary directory
    "submodule.recurse": "false",  # would fetch
    "worktree.useRelativePaths": "false",  # would change the repository's format
    "filter.lfs.smudge": "",  # would fetch; objects that are here are filled in without it
    "filter.lfs.process": "",
    "filter.lfs.required": "false",
}


@dataclass(frozen=True, slots=True)
class RepositoryPosition:
    """Position of a directory in its repository: the top level, and the path below it."""

    top: Path
    below: Path


@dataclass(frozen=True, slots=True)
class Git:
    """Runs git on the repository of a directory, never on one that the environment selects.

    Args:
        directory: an existing directory.
        options: options of git itself, before the command.
        index: file to use as the index.
        inherits: file descriptors that started git processes keep open.
    """

    directory: Path
    options: tuple[str, ...] = ()
    index: Path | None = None
    inherits: tuple[int, ...] = ()

    def succeeds(self, *arguments: str) -> bool:
        """Whether the git command exits with 0.

        Raises:
            DeploymentError: git is not installed.
        """
        return self._process(arguments).returncode == 0

    def run(self, *arguments: str, stdin: bytes = b"") -> str:
        """Output of a git command; bytes that are no text are decoded as in file names.

        Args:
            arguments: the command and its arguments.
            stdin: what the command reads.

        Raises:
            DeploymentError: the command failed; the message is git's.
        """
        process = self._process(arguments, stdin)
        if process.returncode:
            message = process.stderr.decode(errors="replace").strip()
            raise DeploymentError(f"`git {arguments[0]}` failed in {self.directory}: {message}")
        return os.fsdecode(process.stdout)

    def position(self) -> RepositoryPosition:
        """Position of the directory in its repository.

        Raises:
            SettingError: the directory is in no repository.
            DeploymentError: git refused, for example because another user owns the repository.
        """
        try:
            top, below, *_ = self.run("rev-parse", "--show-toplevel", "--show-prefix").split("\n")
        except DeploymentError as error:
            if "not a git repository" not in str(error):
                raise
            raise SettingError(
                f"{self.directory} is not in a git repository, expected one to compare with a revision of it"
            ) from None
        return RepositoryPosition(Path(top), Path(below))

    def _process(self, arguments: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        executable = shutil.which("git")
        if executable is None:
            raise DeploymentError("found no `git` on PATH, expected it to lay out a revision: install git")
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        passed = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GIT_") or _ENVIRONMENT_KEPT.match(name)
        }
        index = {} if self.index is None else {"GIT_INDEX_FILE": str(self.index)}
        return subprocess.run(
            [executable, "-C", str(self.directory), *settings, *self.options, *arguments],
            env={**passed, **index, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            input=stdin,
            capture_output=True,
            check=False,
            pass_fds=self.inherits,
            start_new_session=True,  # Ctrl-C must reach this process only: git would stop in the middle of a removal
        )
