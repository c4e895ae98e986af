"""The revision that ``--perf-against`` names: its files, and a client for each test there."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_mlpatterns.config.run_settings import RunSettings
from pytest_mlpatterns.config.settings import Settings
from pytest_mlpatterns.engines.engine import EngineSession
from pytest_mlpatterns.errors import MlpatternsError
from pytest_mlpatterns.judging.revision_comparison import least_ns
from pytest_mlpatterns.plugin.collection import MEASURED_COMMIT
from pytest_mlpatterns.plugin.options import given_options, values_of_conftests
from pytest_mlpatterns.revision.client import RevisionClient
from pytest_mlpatterns.revision.commits import Revision
from pytest_mlpatterns.revision.dependencies import change_note
from pytest_mlpatterns.revision.environment import revision_environment
from pytest_mlpatterns.revision.messages import InheritedOptions
from pytest_mlpatterns.revision.worktree import Worktree, checkout, remove_stale
from pytest_mlpatterns.system.import_redirect import is_installed
from pytest_mlpatterns.system.installed_copies import require_no_copy
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import count, visible
from pytest_mlpatterns.workload.schedule import Schedule

_CACHE = "mlpatterns-environments"
_OPTIONS_OF_A_TEST = ("patterns", "startup-timeout", "cpus", "engine")
"""Per-test options that the run at the other revision needs too."""


def lay_out(
    revision: Revision, config: pytest.Config, run: RunSettings, *, resources: contextlib.ExitStack
) -> Worktree:
    """Write the files of a commit into a directory, after those that killed runs left are removed.

    With ``--perf-against-env`` it has an environment of the packages that it asks for.
    """
    root, say = config.rootpath, functools.partial(_say, config)
    remove_stale(root, say)
    worktree = resources.enter_context(checkout(root, revision, run.against_files, say=say))
    if not run.against_env or run.smoke:
        return worktree
    cache = getattr(config, "cache", None)  # absent with -p no:cacheprovider
    folder = worktree.root.parent if cache is None else cache.mkdir(_CACHE)
    environment = revision_environment(worktree, folder, say)
    return replace(worktree, environment=resources.enter_context(environment))


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
        self._begun: dict[str, RevisionClient] = {}
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
        """Refuse a project that is imported from a copy, which is the same code on both sides."""
        if MEASURED_COMMIT not in self._config.stash:  # what measures an old commit has looked at the user's tree
            require_no_copy(self._config.rootpath, self.worktree.present_root)

    def announce(self, schedules: Iterable[Schedule]) -> None:
        """Say how long the loads that have a length of their own will take, before anything is sent."""
        needed = [needed_ns for schedule in schedules if (needed_ns := least_ns(schedule))]
        if needed:
            tests = count(len(needed), "test has a load", "tests have a load")
            takes = f"comparing with {self.worktree.revision.name} takes at least {format_duration(sum(needed))}"
            _say(self._config, f"{tests} with a length of its own: {takes}")

    @contextlib.contextmanager
    def ahead(self, test: str, settings: Settings) -> Iterator[None]:
        """Start the process that collects a test there, for :meth:`client`; it ends with the context."""
        client = self.client(test, settings)
        with contextlib.suppress(MlpatternsError):  # the test starts it again, and reports why it cannot
            client.start_process()
            self._begun[test] = client
        try:
            yield
        finally:
            self._begun.pop(test, None)
            client.close()

    def client(self, test: str, settings: Settings, session: EngineSession | None = None) -> RevisionClient:
        """A client for one test; its process was started :meth:`ahead`, or is not yet."""
        if session is None and (begun := self._begun.pop(test, None)) is not None:
            return begun
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
            import_path = tuple(path for path in import_path if not is_installed(path))
            project_paths = tuple(os.path.join(self.worktree.root, path) for path in environment.project_paths)
        return InheritedOptions(tuple(options), values_of_conftests(config), import_path, project_paths, python_path)
