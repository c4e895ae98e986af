"""The recorded code of baseline entries: found, laid out once per commit, and run beside a test that it settles."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from pytest_mlpatterns.config.run_settings import BaselineMode, SettleMode
from pytest_mlpatterns.errors import MlpatternsError
from pytest_mlpatterns.judging.experiment import Settlement
from pytest_mlpatterns.plugin.other_revision import OtherRevision, files_of, with_its_packages
from pytest_mlpatterns.revision.installed_copy import require_no_copy
from pytest_mlpatterns.revision.recorded import RecordedRevisions, UnknownRevisionError
from pytest_mlpatterns.system.git import Git

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from pytest_mlpatterns.baseline.lookup import BaselineMatch
    from pytest_mlpatterns.config.run_settings import RunSettings
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.revision.resolve import Revision
    from pytest_mlpatterns.system.ray.session import RaySession

__all__ = ["Settlements"]

_SETTLED_MODES = (BaselineMode.CHECK, BaselineMode.REQUIRE, BaselineMode.PRUNE)
_SELF = "the present code"


class Settlements:
    """What settles the tests of one session.

    Args:
        config: of the run, whose options hold at the recorded commits too.
        run: names the baseline file and what may be done to settle.
        directory: takes the logs of the processes.
        resources: removes the worktrees when it closes.
    """

    def __init__(
        self, config: pytest.Config, run: RunSettings, *, directory: Path, resources: contextlib.ExitStack
    ) -> None:
        self._config = config
        self._run = run
        self._directory = directory
        self._resources = resources
        results = tuple(file for file in (run.json_file, run.html_file) if file is not None)
        self._recorded = RecordedRevisions(
            config.rootpath, run.baseline_file, results, fetch=run.settle is SettleMode.FETCH
        )

    def of(
        self,
        test: str,
        match: BaselineMatch,
        settings: Settings,
        *,
        cluster: RaySession | None,
        closing: contextlib.ExitStack,
    ) -> Callable[[], Settlement] | None:
        """What finds the recorded code of one test; None if the file alone decides.

        Args:
            test: id of the test.
            match: its baseline entry.
            settings: of the test.
            cluster: the Ray cluster that serves the test; None without one.
            closing: ends the process that runs the recorded code.
        """
        run = self._run
        if run.settle is SettleMode.OFF or run.against is not None or run.smoke or run.baseline not in _SETTLED_MODES:
            return None
        if match.recorded is None:
            return None
        key = match.recorded

        def find() -> Settlement:
            found = self._recorded.find(key)
            if found.is_present or found.revision is None:
                return Settlement(None, _SELF, found.note)
            try:
                other = self._laid_out(found.revision)
                client = other.client(test, settings, cluster)
            except MlpatternsError as error:
                raise UnknownRevisionError(str(error)) from error
            closing.callback(client.close)
            return Settlement(client, client.name, "; ".join(filter(None, (found.note, *other.notes))))

        return find

    @functools.cache  # noqa: B019 - lives as long as the session, as this object does
    def _laid_out(self, revision: Revision) -> OtherRevision:
        """The files of a commit, which all tests that were recorded at it share.

        Raises:
            MlpatternsError: the files cannot be written, or the project is imported from a copy.
        """
        root = self._config.rootpath
        if not self._run.against_env:  # which never runs a copy
            require_no_copy(root, Git(root).position().top)
        worktree = files_of(revision, self._config, self._run, resources=self._resources)
        worktree = with_its_packages(worktree, self._config, self._run, resources=self._resources)
        return OtherRevision(self._config, worktree, self._directory)
