"""The revision that ``--perf-against`` names: its files, and a client for each test there."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

from pytest_mlpatterns.plugin.options import given_options, values_of_conftests
from pytest_mlpatterns.revision.client import RevisionClient
from pytest_mlpatterns.revision.messages import InheritedOptions
from pytest_mlpatterns.revision.resolve import resolve_revision
from pytest_mlpatterns.revision.worktree import checkout, remove_stale

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    import pytest

    from pytest_mlpatterns.config.run_settings import RunSettings
    from pytest_mlpatterns.revision.worktree import Worktree

__all__ = ["OtherRevision", "lay_out"]

_OPTIONS_OF_A_TEST = ("patterns", "startup-timeout")
"""Per-test options that the run at the other revision needs too."""


def lay_out(root: Path, run: RunSettings, resources: contextlib.ExitStack) -> Worktree | None:
    """Write the files of the revision to compare with into a directory.

    Args:
        root: pytest's root directory.
        run: names the revision.
        resources: removes the directory when it closes.

    Returns:
        None if the run compares with no revision.

    Raises:
        SettingError: there is no such revision, or a file that it needs is missing.
        DeploymentError: the files cannot be written.
    """
    if run.against is None:
        return None
    revision = resolve_revision(root, run.against)
    remove_stale(root)
    return resources.enter_context(checkout(root, revision, run.against_files))


class OtherRevision:
    """The revision to compare with, in one session.

    Args:
        config: of this run, whose options hold at the other revision too.
        worktree: the revision's files.
        directory: takes the logs of its processes.
    """

    def __init__(self, config: pytest.Config, worktree: Worktree, directory: Path) -> None:
        self._config = config
        self._directory = directory
        self.worktree = worktree

    @property
    def lines(self) -> list[str]:
        """What the summary of the run says of it."""
        return [f"note: {note}" for note in self.worktree.notes]

    def client(self, test: str, startup_timeout_ns: int) -> RevisionClient:
        """A client for one test; it starts no process yet."""
        return RevisionClient(
            test,
            self.worktree,
            self._directory,
            startup_timeout_ns=startup_timeout_ns,
            inherited_options=self._inherited_options,
        )

    @functools.cached_property
    def _inherited_options(self) -> InheritedOptions:
        """The options of this run that decide which tests exist and what they do."""
        config, given = self._config, given_options(self._config)
        options = [f"--perf-{name}={given[name]}" for name in _OPTIONS_OF_A_TEST if given[name] is not None]
        options += [f"--import-mode={config.getoption('importmode')}", *(f"-p{name}" for name in config.option.plugins)]
        options += [f"-o{override}" for override in config.option.override_ini or ()]
        if config.option.inifilename and config.inipath is not None:
            options.append(f"-c{os.path.relpath(config.inipath, config.rootpath)}")
        import_path = tuple(map(os.path.abspath, sys.path))
        return InheritedOptions(tuple(options), values_of_conftests(config), import_path)
