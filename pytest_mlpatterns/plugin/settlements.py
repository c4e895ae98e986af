"""What settles a test that its baseline file leaves open: the code that the entry was recorded at."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.config.run_settings import BaselineMode, RunSettings, SettleMode
from pytest_mlpatterns.engines.engine import EngineSession
from pytest_mlpatterns.errors import MlpatternsError
from pytest_mlpatterns.judging.experiment import Settlement
from pytest_mlpatterns.revision.commits import RecordedRevisions, Revision, UnknownRevisionError
from pytest_mlpatterns.system.git import Git

if TYPE_CHECKING:
    import pytest

    from pytest_mlpatterns.baseline.lookup import BaselineMatch
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.plugin.other_revision import OtherRevision

_SETTLED_MODES = (BaselineMode.CHECK, BaselineMode.REQUIRE, BaselineMode.PRUNE)
"""Modes of the baseline in which a test is compared with it, so that its commit can settle the comparison."""
_SELF = "the working tree itself"


class Settlements:
    """What settles the tests of one session."""

    def __init__(
        self, config: pytest.Config, run: RunSettings, *, directory: Path, resources: contextlib.ExitStack
    ) -> None:
        self._config = config
        self._run = run
        self._directory = directory
        self._resources = resources
        self._recorded = RecordedRevisions(
            config.rootpath, run.baseline_file, run.results_files, fetch=run.settle is SettleMode.FETCH
        )

    def of(
        self,
        test: str,
        match: BaselineMatch,
        settings: Settings,
        *,
        session: EngineSession | None,
        closing: contextlib.ExitStack,
    ) -> Callable[[], Settlement] | None:
        """What finds the recorded code of one test; None if the file alone decides."""
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
                client = other.client(test, settings, session)
            except MlpatternsError as error:
                raise UnknownRevisionError(str(error)) from error
            closing.callback(client.close)
            return Settlement(client, client.name, "; ".join(filter(None, (found.note, *other.notes))))

        return find

    @functools.cache  # noqa: B019 - lives as long as the session, as this object does
    def _laid_out(self, revision: Revision) -> OtherRevision:
        """The files of a commit, which all tests that were recorded at it share."""
        from pytest_mlpatterns.plugin.other_revision import OtherRevision, lay_out
        from pytest_mlpatterns.system.installed_copies import require_no_copy

        root = self._config.rootpath
        if not self._run.against_env:  # which never runs a copy
            require_no_copy(root, Git(root).position().top)
        worktree = lay_out(revision, self._config, self._run, resources=self._resources)
        return OtherRevision(self._config, worktree, self._directory)
