"""One session with perf tests: what lives as long as it, and the hooks that measure, judge, collect and write.

Made when the first perf test is collected, or in the process that distributes tests to others. Results travel with the
test reports, so that a distributed run ends with what a serial run gives; one process writes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlpatterns.baseline.session import BaselineSession, Collected
from pytest_mlpatterns.config.run_settings import read_run_settings
from pytest_mlpatterns.config.settings import Settings, merge_markers, read_settings
from pytest_mlpatterns.errors import (
    InconclusiveWarning,
    InvalidResultError,
    MlpatternsError,
    PerfFailure,
    SettingError,
)
from pytest_mlpatterns.judging.experiment import LoadDriver
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.loadgen.ceiling import measure_ceiling, measure_library_overhead
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.plugin.experiment_builder import ExperimentBuilder
from pytest_mlpatterns.plugin.live_line import LiveLine
from pytest_mlpatterns.plugin.location import location_of, perf_markers, raise_at_definition
from pytest_mlpatterns.plugin.machine_lock import MachineLock
from pytest_mlpatterns.plugin.options import given_ini, given_options, values_of_conftests
from pytest_mlpatterns.plugin.run_output import RunOutput
from pytest_mlpatterns.plugin.terminal import Terminal
from pytest_mlpatterns.records.result import group_of
from pytest_mlpatterns.reports.files.junit import properties_of
from pytest_mlpatterns.reports.text.failure import measurement_text
from pytest_mlpatterns.revision.client import RevisionClient
from pytest_mlpatterns.revision.messages import InheritedOptions
from pytest_mlpatterns.revision.resolve import resolve_revision
from pytest_mlpatterns.revision.worktree import Worktree, checkout, remove_stale
from pytest_mlpatterns.serving.engine import engine_named
from pytest_mlpatterns.system.child import end_with_parent
from pytest_mlpatterns.system.environment import environment

if TYPE_CHECKING:
    import warnings
    from collections.abc import Generator as Yielding
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_mlpatterns.plugin.experiment_builder import FixtureValues
    from pytest_mlpatterns.records.objective import Objective
    from pytest_mlpatterns.serving.deployment import Deployment

__all__ = ["REFERENCE_TREES", "PerfSession"]

REFERENCE_TREES: pytest.StashKey[tuple[Path, Path]] = pytest.StashKey()
"""Set where this pytest only serves tests of another revision: the tops of the present tree and of that one."""
_SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
_PERF: pytest.StashKey[Perf] = pytest.StashKey()
_DEFERRED: pytest.StashKey[MlpatternsError] = pytest.StashKey()
_OF_THE_WHOLE_RUN = ("against", "baseline", "baseline-file", "calibrate", "html", "json", "rank", "smoke")
"""Options that say nothing of how a single test is served."""
_OF_A_TEST = ("patterns", "startup-timeout")
"""Options without which a test may not exist at another revision, or not start."""
_LOCK = "mlpatterns_lock"
_ASCII_ONLY = "mlpatterns_ascii_only"
_WORKTREE = "mlpatterns_worktree"
_USAGE_ERROR = "mlpatterns_usage_error"
_LEDGER = "mlpatterns_ledger"
_DONE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
"""How a run ends that came to its end."""


class PerfSession:
    """Everything that belongs to the session and to no single test.

    Raises:
        pytest.UsageError: an option that cannot be read, or a baseline file that is damaged, foreign or newer.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._trees = config.stash.get(REFERENCE_TREES, None)
        self._options, self._ini = given_options(config), given_ini(config)
        if self._trees is not None:
            self._options |= dict.fromkeys(_OF_THE_WHOLE_RUN) | {"baseline": "off"}
            self._ini |= dict.fromkeys(_OF_THE_WHOLE_RUN)
        self._groups: Counter[str] = Counter()
        self._directory = Path(tempfile.mkdtemp(prefix="pytest-mlpatterns-"))
        self._leaving = contextlib.ExitStack()
        self._worktree: Worktree | None = None
        self._generator = Generator(self._directory / "generator.log", measure_ceiling)
        worker_input = getattr(config, "workerinput", None)
        self._is_worker = worker_input is not None
        if self._is_worker:
            end_with_parent()
        self._screen = Terminal(config, ascii_only=worker_input.get(_ASCII_ONLY) if worker_input else None)
        self._live = LiveLine(config, self._screen.spell)
        self._lock = MachineLock(Path(worker_input[_LOCK])) if worker_input and _LOCK in worker_input else None
        self._environment = environment()
        try:
            self._run = read_run_settings(
                self._options, self._ini, invoked_in=config.invocation_params.dir, root=config.rootpath
            )
            read_settings({}, self._options, self._ini)
            driver = LoadDriver(self._generator, self._live.show, self._run.smoke)
            self._builder = ExperimentBuilder(config, self._directory, driver, self._trees)
            self._ledger = BaselineSession(
                self._run, self._environment, root=config.rootpath, directory=self._directory
            )
            self._output = RunOutput(self._run, self._ledger, self._environment, self._screen, root=config.rootpath)
            if worker_input and _WORKTREE in worker_input:
                self._worktree = Worktree.from_plain(worker_input[_WORKTREE])
            elif self._run.against is not None and not self._is_worker:
                self._worktree = self._lay_out(self._run.against)
        except MlpatternsError as error:
            raise pytest.UsageError(str(error)) from None

    # --- asked by the plugin -------------------------------------------------------------------------------------

    def prepare(
        self,
        items: Sequence[pytest.Item],
        files: Mapping[str, bool] = MappingProxyType({}),
        tests: Mapping[str, pytest.Item] = MappingProxyType({}),
    ) -> None:
        """Read every perf test's settings, and look which tests there are, before anything runs.

        Args:
            items: the perf tests that are to run.
            files: ids of the files that were collected as a whole, and whether that went without errors.
            tests: by their ids, those that were collected, before options such as ``-k`` took some away.

        Raises:
            pytest.UsageError: a marker argument or option that cannot be served; names the test.
        """
        for item in items:
            given = getattr(getattr(item, "callspec", None), "params", {})
            members = {"pattern": given.get("_perf_pattern"), "wire": given.get("_perf_wire")}
            try:
                marker = merge_markers(perf_markers(item))
                item.stash[_SETTINGS] = read_settings(
                    marker, self._options, self._ini, pattern=members["pattern"], wire=members["wire"]
                )
                engine_named(item.stash[_SETTINGS].engine, "perf(engine=...)")
                if "perf" in item.fixturenames:  # type: ignore[attr-defined]  # of what asks for a fixture
                    _see_that_lists_made_tests(marker, members)
            except SettingError as error:
                text = f"{item.nodeid}: {error}"
                if self._is_worker:  # only the process that distributes the tests can end the run in one line
                    self._config.workeroutput[_USAGE_ERROR] = text  # type: ignore[attr-defined]  # pytest-xdist's
                raise pytest.UsageError(text) from None
        self._live.tests = len(items)
        self._groups.update(group_of(item.nodeid, _listed(item)) for item in items)
        whole = () if self._config.getoption("lf", False) else [file for file, clean in files.items() if clean]
        self._ledger.look_for_gone(Collected(whole, tests.keys(), [*filter(None, map(_variable, tests.values()))]))

    @contextlib.contextmanager
    def measurement(self, item: pytest.Item, fixtures: FixtureValues) -> Iterator[Perf]:
        """The ``perf`` fixture: a deployment that runs, and the measurement of it.

        What goes wrong here fails the test's body, not its set-up.
        """
        settings = item.stash[_SETTINGS]
        self._live.begin(item.nodeid, settings.duration_ns)
        if self._trees is not None:
            yield self._builder.experiment(item, settings, fixtures)  # type: ignore[misc]  # no body runs
            return
        with contextlib.ExitStack() as leaving:
            try:
                item.stash[_PERF] = self._perf(item, settings, fixtures, leaving)
            except MlpatternsError as error:
                item.stash[_DEFERRED] = error
            yield item.stash.get(_PERF, None)  # type: ignore[misc]  # without one the body does not run

    @contextlib.contextmanager
    def deployed(
        self, item: pytest.Item, fixtures: FixtureValues, arguments: Mapping[str, object]
    ) -> Iterator[Deployment]:
        """The ``perf_deploy`` fixture: a deployment without load.

        Args:
            item: the test.
            fixtures: what its fixtures gave; the target may be an argument of ``perf_deploy``.
            arguments: ``pattern``, ``wire``, ``model`` and ``request`` of ``perf_deploy``. The test's marker gives the
                model if they do not.

        Raises:
            DeploymentError: it did not start.
            SettingError: there is no model, both a pattern and a target, or another wire than this version serves.
        """
        for name in ("pattern", "wire"):
            if isinstance(value := arguments[name], list | tuple):
                raise SettingError(
                    f"perf_deploy({name}={value!r}), expected one {name}; start one deployment after the other"
                )
        of_test = item.stash[_SETTINGS]
        settings = read_settings(arguments, self._options, self._ini, caller="perf_deploy")
        settings = replace(
            settings,
            model=of_test.model if settings.model is None else settings.model,
            payload=of_test.payload,
            startup_timeout_ns=of_test.startup_timeout_ns,
            engine=of_test.engine,
        )
        if arguments["pattern"] is not None and fixtures.target is not None:
            raise SettingError(f"perf_deploy({arguments['pattern']}, target={fixtures.target}), expected one of them")
        deployment = self._builder.deployment(item, settings, fixtures)
        try:
            yield deployment
        finally:
            deployment.close()

    # --- hooks ---------------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Yielding[None, object, object]:
        """Beside other processes of this session: a perf test has the machine to itself, others share it."""
        with self._lock.held(exclusive=_SETTINGS in item.stash) if self._lock else contextlib.nullcontext():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Yielding[None, object, object]:
        """Raise what went wrong in the set-up; after the body, measure if it did not, and compare."""
        __tracebackhide__ = True
        if (deferred := item.stash.get(_DEFERRED, None)) is not None:
            raise_at_definition(item, deferred)
        perf = item.stash.get(_PERF, None)
        try:
            result = yield
            if perf is not None:
                try:
                    perf.finish(item.warn)
                except (AssertionError, MlpatternsError, InconclusiveWarning) as failure:
                    raise_at_definition(item, failure)
        except InvalidResultError as error:
            if self._run.smoke:
                error.args = (f"{error}; this is a smoke run: guard what reads figures with `if not perf.smoke:`",)
            raise
        except KeyboardInterrupt:
            if perf is not None and (partial := perf.result(passed=False)) is not None:
                self._output.add(partial)
            raise KeyboardInterrupt from None  # pytest prints the name of any other class
        finally:
            self._live.end()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Yielding[None, pytest.TestReport, pytest.TestReport]:
        """Attach the result to the report, which takes it to the process that writes."""
        if call.excinfo is not None and isinstance(failure := call.excinfo.value, MlpatternsError | PerfFailure):
            failure.args = tuple(self._screen.spell(str(part)) for part in failure.args)
        report = yield
        perf = item.stash.get(_PERF, None)
        if report.failed and _SETTINGS in item.stash:
            report.perf_failure = _failure(item, report, call)  # type: ignore[attr-defined]
        if call.when == "call" and perf is not None:
            if (result := perf.result(passed=report.passed)) is not None:
                result = replace(
                    result,
                    tolerance=item.stash[_SETTINGS].tolerance,
                    group=group_of(item.nodeid, _listed(item)),
                    location=location_of(item),
                )
                report.perf_result = result.to_json()  # type: ignore[attr-defined]
                found = properties_of(result)
                report.user_properties += found
                item.user_properties += found  # of which the report of the teardown is made, which JUnit reads
                if report.failed and not (call.excinfo and isinstance(call.excinfo.value, PerfFailure)):
                    report.sections.append(("perf measurement", self._screen.spell(measurement_text(result))))
            if report.failed and (text := perf.diagnosis()):
                report.sections.append(("perf deployment", text))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the results, wherever they were measured, and hand them on."""
        if (data := getattr(report, "perf_result", None)) is not None:
            result = self._output.take_result(data)
            if not self._is_worker:
                self._config.hook.pytest_mlpatterns_result(config=self._config, result=result.to_json())
        if (failure := getattr(report, "perf_failure", None)) is not None:
            self._output.take_failure(failure, measured=data is not None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        """Spell our own warnings as the terminal can show them, before they are written there."""
        if isinstance(warning := warning_message.message, InconclusiveWarning):
            warning.args = tuple(self._screen.spell(str(part)) for part in warning.args)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where the lock is (pytest-xdist)."""
        node.workerinput[_LOCK] = str(self._directory)
        node.workerinput[_ASCII_ONLY] = self._screen.ascii_only
        if self._worktree is not None:
            node.workerinput[_WORKTREE] = self._worktree.to_plain()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker that met a usage error told it here, and what it knows of the baseline (pytest-xdist)."""
        told = getattr(node, "workeroutput", {})
        if text := told.get(_USAGE_ERROR):
            raise pytest.UsageError(text)
        if found := told.get(_LEDGER):
            self._ledger.take(found)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the baseline and the results, in the one process that has them all; end the generator."""
        self._generator.close()
        if self._is_worker:
            self._config.workeroutput[_LEDGER] = self._ledger.to_json()  # type: ignore[attr-defined]  # pytest-xdist's
            return
        if not self._output.close(complete=exitstatus in _DONE, measured=not self._config.option.collectonly):
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of all perf tests, and what was written."""
        if not self._is_worker:
            self._output.show(terminalreporter, verbose=self._config.get_verbosity() > 0)

    def pytest_unconfigure(self) -> None:
        """Leave nothing behind."""
        self._generator.close()
        if self._lock is not None:
            self._lock.close()
        self._leaving.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    # --- pieces --------------------------------------------------------------------------------------------------

    def _perf(
        self, item: pytest.Item, settings: Settings, fixtures: FixtureValues, leaving: contextlib.ExitStack
    ) -> Perf:
        """The measurement of one test, and what ends with it."""
        revision: RevisionClient | None = None
        if self._worktree is not None:
            revision = RevisionClient(
                item.nodeid,
                self._worktree,
                self._directory,
                startup_timeout_ns=settings.startup_timeout_ns,
                inherited_options=self._inherited_options,
            )
            leaving.callback(revision.close)
            if not self._run.smoke:
                revision.start_process()
        experiment = self._builder.experiment(item, settings, fixtures)
        experiment = replace(
            experiment,
            baseline=self._ledger.reference(item.nodeid, experiment.setup),
            revision=revision,
            searches=self._searches(item) if experiment.system.model is not None else (),
        )
        runner = experiment.runner()
        leaving.callback(runner.close)
        is_interleaved = revision is not None and fixtures.target is None  # which starts both variants itself
        if not is_interleaved and runner.deployment.endpoint.remote:
            self._measure_library_overhead()
        return Perf(experiment, runner)

    def _measure_library_overhead(self) -> None:
        """What the client library of remote targets adds to a request; once per session."""
        if self._generator.library_overhead_ns is None and not self._run.smoke:
            measure_library_overhead(self._generator, self._directory)

    @functools.cached_property
    def _inherited_options(self) -> InheritedOptions:
        """What of this run holds at another revision too, as it says which tests there are and what they do."""
        config, given = self._config, self._options
        options = [f"--perf-{name}={given[name]}" for name in _OF_A_TEST if given[name] is not None]
        options += [f"--import-mode={config.getoption('importmode')}", *(f"-p{name}" for name in config.option.plugins)]
        options += [f"-o{override}" for override in config.option.override_ini or ()]
        if config.option.inifilename and config.inipath is not None:
            options.append(f"-c{os.path.relpath(config.inipath, config.rootpath)}")
        import_path = tuple(map(os.path.abspath, sys.path))
        return InheritedOptions(tuple(options), values_of_conftests(config), import_path)

    def _searches(self, item: pytest.Item) -> tuple[Objective | None, ...]:
        """The searches for NMRT that a ranking needs of this test, which has rivals or is not ranked."""
        has_rivals = self._groups[group_of(item.nodeid, _listed(item))] > 1
        return self._run.rank.searches if self._run.rank is not None and has_rivals else ()

    def _lay_out(self, ref: str) -> Worktree:
        """The files of the revision to compare with, until the session ends."""
        root = self._config.rootpath
        revision = resolve_revision(root, ref)
        remove_stale(root)
        worktree = self._leaving.enter_context(checkout(root, revision, self._run.against_files))
        self._output.lines.append(f"compared with {revision.name}, {revision.short} {revision.subject}")
        self._output.lines += [f"note: {note}" for note in worktree.notes]
        return worktree


def _see_that_lists_made_tests(marker: Mapping[str, Any], members: Mapping[str, object]) -> None:
    for name, member in members.items():
        if isinstance(marker.get(name), list | tuple) and member is None:
            raise SettingError(
                f"perf({name}={marker[name]!r}) comes too late to make one test each; give the list to the marker of "
                f"the function, class or module, or one {name} here"
            )


def _variable(item: pytest.Item) -> str | None:
    """The id without brackets of a test that gets its patterns from the command line or the ini file, where given."""
    if "_perf_pattern" not in getattr(item, "fixturenames", ()):
        return None
    with contextlib.suppress(SettingError):  # of a test that does not run
        marker = merge_markers(perf_markers(item))
        if marker.get("pattern") is not None:
            return None
    return f"{item.parent.nodeid if item.parent else ''}::{getattr(item, 'originalname', item.name)}"


def _failure(item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[None]) -> dict[str, Any]:
    """What the process that writes is told of a failed test, as plain values."""
    location = location_of(item)
    return {
        "test": item.nodeid,
        "group": group_of(item.nodeid, _listed(item)),
        "pattern": str(item.stash[_SETTINGS].pattern),
        "location": None if location is None else asdict(location),
        "reason": _reason(report, call),
    }


def _reason(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    """Why a test failed: a line for each verdict, or the first line of another error."""
    if call.excinfo is not None and isinstance(error := call.excinfo.value, PerfFailure):
        return f"{type(error).__name__}: " + "\n".join(error.reasons)
    crash = getattr(report.longrepr, "reprcrash", None)
    message: str = report.longreprtext if crash is None else crash.message
    return message.strip().partition("\n")[0]


def _listed(item: pytest.Item) -> list[str]:
    """What in a test's id says which member of a list of ours it is about."""
    found: Mapping[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return [str(found[name]) for name in ("_perf_pattern", "_perf_wire") if name in found]
