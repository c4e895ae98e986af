"""One session with perf tests: what lives as long as it, and the hooks that collect results and write files.

Made when the first perf test is to run, or in the controller of a distributed run. Results travel with the test
reports, so that a distributed run ends with what a serial run gives; one process writes. Also: ``plugin/run_end.py``
writes and gives the exit code.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from msgspec.structs import replace

from pytest_mlpatterns.analysis.changes.series import USUAL_SCATTER
from pytest_mlpatterns.analysis.choice.criteria import SelectionCriteria
from pytest_mlpatterns.baseline.session import BaselineSession, Collected
from pytest_mlpatterns.config.run_settings import RunSettings, read_run_settings
from pytest_mlpatterns.config.settings import Settings
from pytest_mlpatterns.engines.engine import engine_names
from pytest_mlpatterns.errors import MlpatternsError, PerfFailure, SettingError
from pytest_mlpatterns.judging.experiment import Experiment, LoadDriver
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.loadgen.ceiling import measure_library_overhead
from pytest_mlpatterns.plugin.acceptances import Acceptances
from pytest_mlpatterns.plugin.collection import (
    COMPLETE,
    MEASURED_COMMIT,
    PERF_ITEM,
    REFERENCE_TREES,
    Collection,
    PerfItem,
    parameter_names,
)
from pytest_mlpatterns.plugin.engine_sessions import EngineSessions, Generators
from pytest_mlpatterns.plugin.experiment_builder import ExperimentBuilder, FixtureValues, ItemReader
from pytest_mlpatterns.plugin.interrupts import InterruptHooks, ends_with_summary, written_first
from pytest_mlpatterns.plugin.options import given_ini, given_options
from pytest_mlpatterns.plugin.run_end import ReportHooks, RunOutput, require_room
from pytest_mlpatterns.plugin.runtest import RuntestHooks
from pytest_mlpatterns.plugin.settlements import Settlements
from pytest_mlpatterns.plugin.terminal import LiveLine, Terminal
from pytest_mlpatterns.plugin.xdist import (
    ControllerHooks,
    MachineLock,
    RunTime,
    WorkerInput,
    report_end,
    report_usage_error,
)
from pytest_mlpatterns.records.result import group_of
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.system.child import end_with_parent
from pytest_mlpatterns.system.empty_results import write_empty_results
from pytest_mlpatterns.system.environment import environment
from pytest_mlpatterns.system.scratch_directory import ScratchDirectory
from pytest_mlpatterns.wording import visible

if TYPE_CHECKING:
    from pytest_mlpatterns.history.session import HistorySession
    from pytest_mlpatterns.history.stable_level import OwnScatter
    from pytest_mlpatterns.plugin.other_revision import OtherRevision
    from pytest_mlpatterns.revision.client import RevisionClient
    from pytest_mlpatterns.revision.worktree import Worktree

SERVE_REVISION: pytest.StashKey[Callable[[Experiment], None]] = pytest.StashKey()
"""Set beside :data:`REFERENCE_TREES`: starts and stops deployments of one test, until the other side is done."""
_OPTIONS_OF_THE_RUN = (
    *("against", "baseline", "baseline-file", "baseline-from", "history", "history-fail", "html", "json", "rank"),
    *("settle", "smoke", "time"),
)
"""Options without influence on how a single test is served."""


class PerfSession:
    """Everything that belongs to the session and to no single test.

    Raises pytest.UsageError: an option that cannot be read, a baseline file that is damaged, foreign or newer, or a
    directory for temporary files on a file system that changes owners.
    """

    def __init__(self, config: pytest.Config, collection: Collection) -> None:
        self._config, self._collection = config, collection
        self._trees = config.stash.get(REFERENCE_TREES, None)
        self._job = config.stash.get(MEASURED_COMMIT, None)
        self._options, self._ini = _given(config)
        self._item_reader = ItemReader(self._options, self._ini, collection)
        self._rivals: Counter[str] = Counter()
        self._scratch, self._resources = _new_scratch_directory(), contextlib.ExitStack()
        self._directory = self._scratch.path
        sent = WorkerInput.of(config)
        self._is_worker = sent is not None
        self._writes_results = not self._is_worker and self._trees is None
        if self._is_worker:
            end_with_parent()
        terminal = Terminal(config, ascii_only=None if sent is None else sent.ascii_only)
        self._live = LiveLine(config, terminal.spell, silent=self._trees is not None or self._job is not None)
        shared = None if sent is None else sent.lock_directory
        self._lock = None if shared is None else self._machine_lock(shared)
        self._machine, root = environment(name for name in engine_names() if name != "local"), config.rootpath
        try:
            self._run = self._read_run(root)
            self._item_reader.defaults()
            self._baseline = BaselineSession(self._run, self._machine, root=root)
            self._history = self._new_history()
            self._output = RunOutput(
                self._run, self._baseline, self._machine, history=self._history, terminal=terminal, root=root
            )
            worktree = self._laid_out() if sent is None else sent.worktree
            self._acceptances = Acceptances(root, self._run, worktree)
        except MlpatternsError as error:
            self._remove_files()
            raise pytest.UsageError(terminal.spell(str(error))) from None
        self._time = None if self._run.time_ns is None else RunTime(self._run.time_ns, shared)
        self._revision = None if worktree is None else self._other_revision(worktree)
        self._settlements = Settlements(config, self._run, directory=self._directory, resources=self._resources)
        self._engines = EngineSessions(self._options, self._ini, root=root, directory=self._directory)
        generators, live = Generators(self._engines, self._directory), self._live
        self._driver = LoadDriver(generators, live.show, self._run.smoke, live.note, live.search, live.foresee)
        trees = self._trees if self._job is None else self._job.trees
        self._builder = ExperimentBuilder(config, self._directory, self._driver, engines=self._engines, trees=trees)
        self._runtest = RuntestHooks(
            self._lock, self._output, self._live, terminal=terminal, smoke=self._run.smoke, time=self._time
        )
        self._controller = ControllerHooks(WorkerInput(self._directory, terminal.ascii_only, worktree), self._baseline)

    def hooks(self) -> Mapping[str, object]:
        """Further objects with hooks of this session, made anew, by the names under which pytest knows them."""
        return {
            "mlpatterns-runtest": self._runtest,
            "mlpatterns-reports": ReportHooks(self._config, self._output, is_worker=self._is_worker),
            "mlpatterns-xdist": self._controller,
            "mlpatterns-interrupts": InterruptHooks(writes_results=self._writes_results),
        }

    # --- for the plugin's own hooks and fixtures ----------------------------------------------------------------------

    def prepare(self, items: Sequence[pytest.Item]) -> None:
        """Read every perf test's settings before anything runs, and look for baseline entries without a test.

        Raises pytest.UsageError: an engine is not installed, or its settings cannot be read; or the project is imported
        from a copy and compared with a revision.
        """
        try:
            if items and self._revision is not None and not self._run.against_env:
                self._revision.require_own_code()
            for item in items:
                self._read(item)
            if self._writes_results:
                states = [item.stash[PERF_ITEM] for item in items]
                self._engines.begin_for(state.settings for state in states if state.marker_error is None)
        except SettingError as error:
            if self._is_worker:  # the controller shows it
                report_usage_error(self._config, str(error))
            raise pytest.UsageError(visible(str(error))) from None
        if self._revision is not None and not self._run.smoke:
            self._revision.announce(item.stash[PERF_ITEM].settings.schedule for item in items)
        self._live.tests = len(items)
        self._rivals.update(group_of(item.nodeid, parameter_names(item)) for item in items)
        files, tests = self._collection.files, self._collection.tests
        whole = () if self._config.getoption("lf", False) else [file for file, clean in files.items() if clean]
        variable = filter(None, map(self._item_reader.name_with_variable_id, tests.values()))
        self._baseline.look_for_gone(Collected(whole, tests.keys(), [*variable]))

    def ahead(self, item: pytest.Item) -> contextlib.AbstractContextManager[None]:
        """Let the other revision collect a test while its fixtures are made here, if it is compared with one."""
        settings = self._state(item).settings
        is_here = settings.engine == "local" and settings.compare != () and not self._run.smoke
        if self._revision is None or self._trees is not None or not is_here:
            return contextlib.nullcontext()
        return self._revision.ahead(item.nodeid, settings)

    @contextlib.contextmanager
    def measurement(self, item: pytest.Item, fixtures: FixtureValues) -> Iterator[Perf]:
        """The ``perf`` fixture: the measurement of one test, and its deployment.

        An error here fails the test's body, not its set-up. If this pytest serves tests of another revision, no body
        runs, and the value is a :class:`pytest_mlpatterns.plugin.session.ServedPerf`.
        """
        state = self._state(item)
        if state.marker_error is not None and fixtures.figures is not None:
            state = self._read_with_figures(item, fixtures)
        state.restart(item)
        self._live.begin(item.nodeid, state.settings.duration_ns)
        if self._trees is not None:
            yield self._served(item, state, fixtures)  # type: ignore[misc]
            return
        with contextlib.ExitStack() as resources:
            resources.callback(self._live.end)
            if fixtures.client is not None:  # whose modules the generator's processes have from now on
                resources.callback(self._driver.on(state.settings.generators_on).close)
            try:
                if state.setup_error is None:
                    state.perf = self._perf(item, state.settings, fixtures, resources=resources)
            except (MlpatternsError, PerfFailure) as error:
                state.setup_error = error
            if state.setup_error is not None and _body_runs():
                raise state.setup_error
            is_watched = not _body_runs() or self._runtest.watched is item
            yield state.perf  # type: ignore[misc]  # without one the body does not run
            if state.perf is not None and not is_watched:
                state.perf.finish(item.warn)

    @contextlib.contextmanager
    def deployed(
        self, node: pytest.Item | pytest.Session, fixtures: FixtureValues, arguments: Mapping[str, object]
    ) -> Iterator[Deployment]:
        """The fixtures ``perf_deploy`` and ``perf_deploy_session``: a deployment without load.

        ``fixtures``: what the test's fixtures gave; the target may be an argument of ``perf_deploy``. ``arguments``:
        ``pattern``, ``wire``, ``model``, ``payload``, ``request`` and ``cpus`` of ``perf_deploy``. The test's marker
        gives the model, the payload and the cores if they do not.
        """
        settings = self._item_reader.read_deployment(arguments, self._settings_around(node))
        if arguments["pattern"] is not None and fixtures.target is not None:
            raise SettingError(f"perf_deploy({arguments['pattern']}, target={fixtures.target}), expected one of them")
        deployment = self._builder.deployment(node, settings, fixtures)
        try:
            yield deployment
        finally:
            deployment.close()

    # --- hooks --------------------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, trylast=True)  # within the wrapper that prints the summary, before any teardown
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Iterator[None]:
        """Write the baseline and the results, in the one process that has them all; then processes end."""
        with ends_with_summary(session, exitstatus):
            with written_first():
                if self._is_worker:
                    report_end(self._config, self._baseline)
                else:
                    complete = exitstatus in COMPLETE and not self._controller.is_cut
                    self._output.uncollected = self._collection.failed
                    if (selected := self._controller.selected()) is not None:
                        self._output.selected = selected
                    session.exitstatus = self._output.close(exitstatus, complete=complete)
            self._driver.close()
            self._engines.close()
        with ends_with_summary(session, exitstatus):  # also if the end was interrupted before, pytest goes on here
            yield

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table of all perf tests, and which files were written."""
        if not self._is_worker:
            self._output.lines += self._engines.lines
            self._output.show(terminalreporter, verbose=self._config.get_verbosity() > 0)

    def pytest_unconfigure(self) -> None:
        """End processes and remove temporary files."""
        self._driver.close()
        self._engines.close()
        self._remove_files()

    # --- steps --------------------------------------------------------------------------------------------------------

    def _served(self, item: pytest.Item, state: PerfItem, fixtures: FixtureValues) -> ServedPerf:
        """What stands for the measurement in a pytest that serves another revision."""
        if state.marker_error is not None:
            raise state.marker_error
        state.experiment = experiment = self._builder.experiment(item, state.settings, fixtures)

        def serve() -> NoReturn:
            self._config.stash[SERVE_REVISION](experiment)
            pytest.skip("the deployments of this revision have been served")

        if _body_runs():
            serve()
        return ServedPerf(serve)

    @functools.cached_property
    def _scatter(self) -> OwnScatter:
        """By how much the launches of each test differ, as the history knows it; workers read it themselves."""
        from pytest_mlpatterns.history.stable_level import OwnScatter

        known = None if self._history is None else self._history.known
        return OwnScatter(self._run, self._machine, known=known)

    def _new_history(self) -> HistorySession | None:
        """What the run does with the history; None without one, or if another process has all results."""
        if not (self._run.history and self._writes_results):
            return None
        from pytest_mlpatterns.history.session import HistorySession

        return HistorySession(self._run, self._machine, root=self._config.rootpath)

    def _laid_out(self) -> Worktree | None:
        """The files of what the run compares with; None if that is no revision."""
        if self._job is not None:
            return self._job.reference
        if self._run.against is None:
            return None
        from pytest_mlpatterns.plugin.other_revision import lay_out
        from pytest_mlpatterns.revision.commits import resolve_revision

        revision = resolve_revision(self._config.rootpath, self._run.against)
        return lay_out(revision, self._config, self._run, resources=self._resources)

    def _other_revision(self, worktree: Worktree) -> OtherRevision:
        from pytest_mlpatterns.plugin.other_revision import OtherRevision

        other = OtherRevision(self._config, worktree, self._directory)
        if not self._is_worker:
            self._output.revision = worktree.revision
            self._output.lines += other.lines
        return other

    def _machine_lock(self, directory: Path) -> MachineLock:
        lock = MachineLock(directory)
        self._resources.callback(lock.close)
        return lock

    def _remove_files(self) -> None:
        self._resources.close()
        self._scratch.remove()

    def _state(self, item: pytest.Item) -> PerfItem:
        """What is known of a perf test; one that asks for the fixture by name while it runs is read now."""
        if (state := item.stash.get(PERF_ITEM, None)) is None:
            state = self._read(item)
            if self._lock is not None:
                self._lock.make_exclusive()
        return state

    def _read_run(self, root: Path) -> RunSettings:
        """The settings of the run; if this process writes its files, they can be, and the results begin as none."""
        here = self._config.invocation_params.dir
        run = read_run_settings(self._options, self._ini, invoked_in=here, root=root)
        if self._writes_results:
            require_room(run)
            if run.json_file is not None and self._job is None:
                with contextlib.suppress(OSError):  # an earlier run's are replaced already
                    write_empty_results(run.json_file)
        return run

    def _read(self, item: pytest.Item) -> PerfItem:
        """Read one test; an old commit's is measured as its job asks for."""
        state = item.stash[PERF_ITEM] = self._item_reader.read(item)
        if self._job is not None:
            state.settings = self._job.applied(state.settings)
        return state

    def _read_with_figures(self, item: pytest.Item, fixtures: FixtureValues) -> PerfItem:
        """Read a test once more whose marker may name figures of its own, since its fixture has given them now."""
        try:
            self._builder.describe_figures(item, fixtures)
        except SettingError as error:
            return PerfItem(self._state(item).settings, error)
        return self._read(item)

    def _settings_around(self, node: pytest.Item | pytest.Session) -> Settings:
        """The settings of the test that a deployment belongs to, or of the run."""
        if isinstance(node, pytest.Session):
            return self._item_reader.defaults()
        state = self._state(node)
        if state.marker_error is not None:
            raise state.marker_error
        return state.settings

    def _perf(
        self, item: pytest.Item, settings: Settings, fixtures: FixtureValues, *, resources: contextlib.ExitStack
    ) -> Perf:
        """The measurement of one test; ``resources`` ends its processes."""
        revision: RevisionClient | None = None
        serving = self._engines.serving(settings, fixtures.target)
        self._engines.await_ready(settings)
        generator = self._driver.on(settings.generators_on)
        generator.start(1 if self._run.smoke else settings.generators)  # in the time that the model takes to start
        is_compared = settings.compare != ()
        if self._revision is not None and is_compared:
            revision = self._revision.client(item.nodeid, settings, serving)
            resources.callback(revision.close)
            if not self._run.smoke:
                revision.start_process()
        criteria = self._criteria(item)
        if criteria is not None:
            criteria.check_currency(settings.price)
        experiment = self._within_the_run(self._builder.experiment(item, settings, fixtures))
        cluster = self._engines.cluster_of(settings, fixtures.target)
        measured = item.nodeid, experiment.setup, cluster.description if cluster else ""
        match = self._baseline.match(*measured) if is_compared else experiment.baseline
        experiment = replace(
            experiment,
            cluster=cluster,
            scatter=self._scatter.of(*measured) if self._run.history else USUAL_SCATTER,
            baseline=match,
            revision=revision,
            settle=None
            if experiment.system.is_attached  # no repository shows whether it changed
            else self._settlements.of(item.nodeid, match, settings, session=serving, closing=resources),
            comparison_required=self._run.against_required,
            ranked=() if criteria is None else criteria.metrics,
            searches=criteria.searches if criteria is not None and experiment.system.model is not None else (),
            accepted=self._acceptances.of(item, settings, match),
            results_file=self._run.results_from_here,
        )
        runner = experiment.runner()
        resources.callback(runner.close)
        is_interleaved = revision is not None and fixtures.target is None  # which starts both variants itself
        began_ns = time.perf_counter_ns()
        is_known = generator.library_overhead_ns is not None or self._run.smoke
        if not is_interleaved and runner.deployment.endpoint.remote and not (fixtures.client or is_known):
            measure_library_overhead(generator, self._directory)
        return Perf(experiment, runner, time.perf_counter_ns() - began_ns)

    def _within_the_run(self, experiment: Experiment) -> Experiment:
        return experiment if self._time is None else experiment.within(self._time.share_ns(self._live.tests))

    def _criteria(self, item: pytest.Item) -> SelectionCriteria | None:
        """What ranks this test; None if it has no rivals or is not ranked."""
        has_rivals = self._rivals[group_of(item.nodeid, parameter_names(item))] > 1
        return self._run.rank if has_rivals else None


def _given(config: pytest.Config) -> tuple[dict[str, object], dict[str, object]]:
    """The options of the command line and of the ini file, without those that do not count in this process."""
    options, ini = given_options(config), given_ini(config)
    if REFERENCE_TREES in config.stash:
        options |= dict.fromkeys(_OPTIONS_OF_THE_RUN) | {"baseline": "off"}
    if MEASURED_COMMIT in config.stash:  # the job gives what it is compared with, and where the results go
        options |= {name: None for name in _OPTIONS_OF_THE_RUN if name not in ("against", "json")}
    if REFERENCE_TREES in config.stash or MEASURED_COMMIT in config.stash:
        ini |= dict.fromkeys(_OPTIONS_OF_THE_RUN)
    return options, ini


def _body_runs() -> bool:
    """Whether a test's body runs, so that it asks for a fixture by name."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").endswith("(call)")


def _new_scratch_directory() -> ScratchDirectory:
    try:
        return ScratchDirectory()
    except SettingError as error:
        raise pytest.UsageError(visible(str(error))) from None


class ServedPerf:
    """Lets fixtures and tests that use ``perf`` run until they ask it for something."""

    def __init__(self, serve: Callable[[], NoReturn]) -> None:
        self.__serve = serve

    def __getattr__(self, name: str) -> object:
        """Serve, in place of an answer; what a fixture has set is found without this."""
        if name.startswith("__"):
            raise AttributeError(name)  # Python and pytest look for these
        self.__serve()
