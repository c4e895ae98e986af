"""The revision that ``--perf-against`` names: its files, and a client for each test there."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_mlpatterns.config.run_settings import BaselineMode, SettleMode
from pytest_mlpatterns.errors import MlpatternsError
from pytest_mlpatterns.judging.experiment import Settlement
from pytest_mlpatterns.judging.revision_comparison import least_ns
from pytest_mlpatterns.plugin.options import given_options, values_of_conftests
from pytest_mlpatterns.revision.client import RevisionClient
from pytest_mlpatterns.revision.commits import RecordedRevisions, UnknownRevisionError, resolve_revision
from pytest_mlpatterns.revision.dependencies import change_note
from pytest_mlpatterns.revision.environment import revision_environment
from pytest_mlpatterns.revision.installed_copy import require_no_copy
from pytest_mlpatterns.revision.messages import InheritedOptions
from pytest_mlpatterns.revision.worktree import checkout, remove_stale
from pytest_mlpatterns.system.git import Git
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import count, visible

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pytest_mlpatterns.baseline.lookup import BaselineMatch
    from pytest_mlpatterns.config.run_settings import RunSettings
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.engines.engine import EngineSession
    from pytest_mlpatterns.history.commit_runs import CommitJob
    from pytest_mlpatterns.revision.commits import Revision
    from pytest_mlpatterns.revision.worktree import Worktree
    from pytest_mlpatterns.workload.schedule import Load

__all__ = ["MEASURED_COMMIT", "OtherRevision", "Settlements", "files_of", "lay_out", "with_its_packages"]

MEASURED_COMMIT: pytest.StashKey[CommitJob] = pytest.StashKey()
"""Set if this pytest measures an old commit, in a tree that is not the user's."""

_CACHE = "mlpatterns-environments"
_OPTIONS_OF_A_TEST = ("patterns", "startup-timeout", "cpus", "engine")
"""Per-test options that the run at the other revision needs too."""
_SETTLED_MODES = (BaselineMode.CHECK, BaselineMode.REQUIRE, BaselineMode.PRUNE)
"""Modes of the baseline in which a test is compared with it, so that its commit can settle the comparison."""
_SELF = "the present code"


def lay_out(config: pytest.Config, run: RunSettings, resources: contextlib.ExitStack) -> Worktree | None:
    """Write the files of the revision to compare with into a directory, and build its environment if that is asked for.

    Returns:
        None if the run compares with no revision. A run that measures an old commit is given what it compares with.

    Raises:
        SettingError: there is no such revision, or a file that it needs is missing.
        DeploymentError: the files cannot be written, or the environment cannot be built.
    """
    if (job := config.stash.get(MEASURED_COMMIT, None)) is not None:
        return job.reference
    if run.against is None:
        return None
    worktree = files_of(resolve_revision(config.rootpath, run.against), config, run, resources=resources)
    return with_its_packages(worktree, config, run, resources=resources)


def with_its_packages(
    worktree: Worktree, config: pytest.Config, run: RunSettings, *, resources: contextlib.ExitStack
) -> Worktree:
    """The revision with an environment of the packages that it asks for, if ``--perf-against-env`` is given.

    Raises:
        DeploymentError: the environment cannot be built.
    """
    if not run.against_env or run.smoke:
        return worktree
    cache = getattr(config, "cache", None)  # absent with -p no:cacheprovider
    folder = worktree.root.parent if cache is None else cache.mkdir(_CACHE)
    environment = revision_environment(worktree, folder, functools.partial(_say, config))
    return replace(worktree, environment=resources.enter_context(environment))


def files_of(
    revision: Revision, config: pytest.Config, run: RunSettings, *, resources: contextlib.ExitStack
) -> Worktree:
    """Write the files of a commit into a directory, after those that killed runs left are removed.

    Args:
        run: names the files that git does not track and the tests need.

    Raises:
        SettingError: a file that the tests need is missing.
        DeploymentError: the files cannot be written.
    """
    root, say = config.rootpath, functools.partial(_say, config)
    remove_stale(root, say)
    return resources.enter_context(checkout(root, revision, run.against_files, say=say))


def _say(config: pytest.Config, text: str) -> None:
    """Print a line while tests are collected."""
    if (reporter := config.pluginmanager.get_plugin("terminalreporter")) is not None:
        reporter.ensure_newline()
        reporter.write_line(visible(text))


class OtherRevision:
    """The revision to compare with, in one session."""

    def __init__(self, config: pytest.Config, worktree: Worktree, directory: Path) -> None:
        self._config = config
        self._directory = directory
        self.worktree = worktree

    @property
    def notes(self) -> list[str]:
        """What a reader of its verdicts has to know."""
        name, environment = self.worktree.revision.name, self.worktree.environment
        if environment is None:
            return [*filter(None, [change_note(self.worktree)]), *self.worktree.notes]
        return [f"{name} ran in an environment of its own ({environment.contents})", *self.worktree.notes]

    @property
    def lines(self) -> list[str]:
        """Its line in the summary of the run."""
        return [f"note: {note}" for note in self.notes]

    def require_own_code(self) -> None:
        """Refuse a project that is imported from a copy, which is the same code on both sides.

        Raises:
            SettingError: the message names the copy.
        """
        if MEASURED_COMMIT not in self._config.stash:  # what measures an old commit has looked at the user's tree
            require_no_copy(self._config.rootpath, self.worktree.present_root)

    def announce(self, schedules: Iterable[Load]) -> None:
        """Say how long the loads that have a length of their own will take, before anything is sent."""
        needed = [needed_ns for schedule in schedules if (needed_ns := least_ns(schedule))]
        if needed:
            tests = count(len(needed), "test has a load", "tests have a load")
            takes = f"comparing with {self.worktree.revision.name} takes at least {format_duration(sum(needed))}"
            _say(self._config, f"{tests} with a length of its own: {takes}")

    def client(self, test: str, settings: Settings, session: EngineSession | None = None) -> RevisionClient:
        """A client for one test; it starts no process yet.

        Args:
            session: of the engine that serves the test; None if it has none.

        Raises:
            SettingError: the engine cannot serve both revisions.
        """
        inherited = self._inherited_options
        if session is not None:
            environment = self.worktree.environment
            access = session.access_options(None if environment is None else environment.python)
            inherited = replace(inherited, options=(*inherited.options, *access))
        return RevisionClient(
            test,
            self.worktree,
            self._directory,
            startup_timeout_ns=settings.startup_timeout_ns,
            inherited_options=inherited,
            session=session,
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
        python_path = None
        if (job := config.stash.get(MEASURED_COMMIT, None)) is not None:  # the other side redirects the user's paths
            import_path, python_path = job.import_path, job.python_path
        project_paths = None
        if (environment := self.worktree.environment) is not None:
            import_path = tuple(path for path in import_path if not _is_installed(path))
            project_paths = tuple(os.path.join(self.worktree.root, path) for path in environment.project_paths)
        return InheritedOptions(tuple(options), values_of_conftests(config), import_path, project_paths, python_path)


def _is_installed(path: str) -> bool:
    """Whether an entry of ``sys.path`` holds Python itself or installed packages."""
    if os.path.basename(path) in ("site-packages", "dist-packages"):
        return True
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return path.endswith(".zip") or any(path == top or path.startswith(os.path.join(top, "")) for top in libraries)


class Settlements:
    """What settles the tests of one session.

    Args:
        run: names the baseline file and what may be done to settle.
    """

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
        """What finds the recorded code of one test; None if the file alone decides.

        Args:
            session: of the engine that serves the test; None if it has none.
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
                client = other.client(test, settings, session)
            except MlpatternsError as error:
                raise UnknownRevisionError(str(error)) from error
            closing.callback(client.close)
            return Settlement(client, client.name, "; ".join(filter(None, (found.note, *other.notes))))

        return find

    @functools.cache  # noqa: B019 - lives as long as the session, as this object does
    def _laid_out(self, revision: Revision) -> OtherRevision:
        """The files of a commit, which all tests that were recorded at it share."""
        root = self._config.rootpath
        if not self._run.against_env:  # which never runs a copy
            require_no_copy(root, Git(root).position().top)
        worktree = files_of(revision, self._config, self._run, resources=self._resources)
        worktree = with_its_packages(worktree, self._config, self._run, resources=self._resources)
        return OtherRevision(self._config, worktree, self._directory)
