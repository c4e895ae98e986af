"""One session with perf tests: what lives as long as it, and the hooks that measure, judge, collect and write.

Made when the first perf test is collected, or in the process that distributes tests to others. Results travel with the
test reports, so that a distributed run ends with what a serial run gives; one process writes.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlpatterns.baseline import Baselines, Entry, read_baselines, write_baselines
from pytest_mlpatterns.config import BaselineMode, Settings, merge_markers, read_run_settings, read_settings
from pytest_mlpatterns.errors import MlpatternsError, SettingError
from pytest_mlpatterns.exclusive import MachineLock
from pytest_mlpatterns.live import LiveLine
from pytest_mlpatterns.load.ceiling import measure_ceiling, measure_library_overhead
from pytest_mlpatterns.load.generator import Generator
from pytest_mlpatterns.load.payload import read_payload
from pytest_mlpatterns.measure import Bench, LoadPlan
from pytest_mlpatterns.observe import commit, environment
from pytest_mlpatterns.options import given_ini, given_options
from pytest_mlpatterns.perf import Perf, Reference, Subject
from pytest_mlpatterns.records import LaunchValue, TestResult
from pytest_mlpatterns.reports.results import results_json
from pytest_mlpatterns.reports.terminal import summary_lines, update_lines
from pytest_mlpatterns.serve.local import Startup, attach, launch
from pytest_mlpatterns.serve.model import recipe_of
from pytest_mlpatterns.targets import Url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from collections.abc import Generator as Yielding

    from pytest_mlpatterns.patterns import Pattern
    from pytest_mlpatterns.serve.deployment import Deployment

__all__ = ["PerfSession"]

_SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
_PERF: pytest.StashKey[Perf] = pytest.StashKey()
_DEFERRED: pytest.StashKey[MlpatternsError] = pytest.StashKey()
_LOCK = "mlpatterns_lock"
_USAGE_ERROR = "mlpatterns_usage_error"


class PerfSession:
    """Everything that belongs to the session and to no single test.

    Raises:
        pytest.UsageError: an option that cannot be read, or a baseline file that is damaged, foreign or newer.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._options, self._ini = given_options(config), given_ini(config)
        self._results: list[TestResult] = []
        self._written: list[str] = []
        self._directory = Path(tempfile.mkdtemp(prefix="pytest-mlpatterns-"))
        self._generator = Generator(self._directory / "generator.log")
        self._live = LiveLine(config)
        worker_input = getattr(config, "workerinput", None)
        self._is_worker = worker_input is not None
        self._lock = MachineLock(Path(worker_input[_LOCK])) if worker_input and _LOCK in worker_input else None
        self._environment = environment()
        try:
            self._run = read_run_settings(
                self._options, self._ini, invoked_in=config.invocation_params.dir, root=config.rootpath
            )
            read_settings({}, self._options, self._ini)
            off = self._run.baseline is BaselineMode.OFF
            self._baselines: Baselines = {} if off else read_baselines(self._run.baseline_file)
        except MlpatternsError as error:
            raise pytest.UsageError(str(error)) from None

    # --- asked by the plugin -------------------------------------------------------------------------------------

    def prepare(self, items: Sequence[pytest.Item]) -> None:
        """Read every perf test's settings, before anything runs.

        Raises:
            pytest.UsageError: a marker argument or option that cannot be served; names the test.
        """
        for item in items:
            markers = [(mark.args, mark.kwargs) for mark in item.iter_markers("perf")]
            pattern = getattr(item, "callspec", None) and item.callspec.params.get("_perf_pattern")  # type: ignore[attr-defined]
            try:
                item.stash[_SETTINGS] = read_settings(merge_markers(markers), self._options, self._ini, pattern=pattern)
            except SettingError as error:
                text = f"{item.nodeid}: {error}"
                if self._is_worker:  # only the process that distributes the tests can end the run in one line
                    self._config.workeroutput[_USAGE_ERROR] = text  # type: ignore[attr-defined]  # pytest-xdist's
                raise pytest.UsageError(text) from None

    @contextlib.contextmanager
    def measurement(self, item: pytest.Item, *, model: object, payload: object, target: object) -> Iterator[Perf]:
        """The ``perf`` fixture: a deployment that runs, and the measurement of it.

        What goes wrong here fails the test's body, not its set-up.
        """
        bench: Bench | None = None
        try:
            if self._generator.ceiling_rps is None and not self._run.smoke:
                measure_ceiling(self._generator, self._directory)
            settings = item.stash[_SETTINGS]
            subject = self._subject(item, settings, model, payload, target)
            bench = Bench(
                subject.start, subject.plan, self._generator, self._live.of(item.nodeid), smoke=self._run.smoke
            )
            item.stash[_PERF] = Perf(item.nodeid, bench, settings, subject, self._reference(item.nodeid))
            if bench.deployment.remote and self._generator.library_overhead_ns is None and not self._run.smoke:
                measure_library_overhead(self._generator, self._directory)
        except MlpatternsError as error:
            item.stash[_DEFERRED] = error
        try:
            yield item.stash.get(_PERF, None)  # type: ignore[misc]  # without one the body does not run
        finally:
            if bench is not None:
                bench.close()

    @contextlib.contextmanager
    def deployed(
        self, item: pytest.Item, pattern: Pattern | str | None, *, wire: str, model: object, payload: object
    ) -> Iterator[Deployment]:
        """The ``perf_deploy`` fixture: a deployment without load.

        Raises:
            DeploymentError: it did not start.
            SettingError: there is no model, or another wire than this version serves.
        """
        settings = read_settings({"pattern": pattern, "wire": wire}, self._options, self._ini)
        startup = Startup(
            settings.startup_timeout_ns, None if payload is None else read_payload(payload), self._directory
        )
        deployment = launch(recipe_of(settings.pattern, model, self._by_value(item)), startup)
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
            _raise_at_definition(item, deferred)
        perf = item.stash.get(_PERF, None)
        try:
            result = yield
            if perf is not None:
                try:
                    perf.finish()
                except (AssertionError, MlpatternsError) as failure:
                    _raise_at_definition(item, failure)
        except KeyboardInterrupt:
            if perf is not None and (partial := perf.result(passed=False)) is not None:
                self._results.append(partial)
            raise KeyboardInterrupt from None  # pytest prints the name of any other class
        finally:
            self._live.clear()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Yielding[None, pytest.TestReport, pytest.TestReport]:
        """Attach the result to the report, which takes it to the process that writes."""
        report = yield
        perf = item.stash.get(_PERF, None)
        if call.when == "call" and perf is not None:
            if (result := perf.result(passed=report.passed)) is not None:
                report.perf_result = result.to_json()  # type: ignore[attr-defined]
            if report.failed and (text := perf.diagnosis()):
                report.sections.append(("perf deployment", text))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the results, wherever they were measured."""
        if (data := getattr(report, "perf_result", None)) is not None:
            self._results.append(TestResult.from_json(data))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where the lock is (pytest-xdist)."""
        node.workerinput[_LOCK] = str(self._directory)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker that met a usage error told it here (pytest-xdist)."""
        if text := getattr(node, "workeroutput", {}).get(_USAGE_ERROR):
            raise pytest.UsageError(text)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the baseline and the results, in the one process that has them all; end the generator."""
        self._generator.close()
        if self._is_worker:
            return
        complete = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        try:
            if self._run.baseline is BaselineMode.UPDATE and not self._run.smoke:
                if complete:
                    self._update_baseline()
                else:
                    self._written.append("baseline not updated: the run did not come to its end")
            if self._run.json_file is not None:
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                self._run.json_file.write_text(results_json(self._results, self._environment, now), encoding="utf-8")
                self._written.append(f"results written to {self._run.json_file}")
        except (MlpatternsError, OSError) as error:
            self._written.append(f"ERROR: {error}")
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of all perf tests, and what was written."""
        if self._is_worker or not (self._results or self._written):
            return
        terminalreporter.section("performance", sep="-")
        if self._results and self._run.smoke:
            count = len(self._results)
            who = "1 perf test sent one request" if count == 1 else f"{count} perf tests sent one request each"
            terminalreporter.line(f"smoke run: {who}, judged nothing")
        elif self._results:
            for line in summary_lines(self._results, self._config.get_terminal_writer().fullwidth):
                terminalreporter.line(line)
        for line in self._written:
            terminalreporter.line(line)

    def pytest_unconfigure(self) -> None:
        """Leave nothing behind."""
        self._generator.close()
        if self._lock is not None:
            self._lock.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    # --- pieces --------------------------------------------------------------------------------------------------

    def _subject(
        self, item: pytest.Item, settings: Settings, model: object, payload: object, target: object
    ) -> Subject:
        """What one test measures."""
        model = model if settings.model is None else settings.model
        payload = payload if settings.payload is None else settings.payload
        if payload is None:
            raise SettingError(
                f"{item.nodeid} asks for perf but there are no inputs; define a fixture perf_payload that returns "
                "a list of inputs, or give payload= to the marker"
            )
        inputs = read_payload(payload)
        startup = Startup(settings.startup_timeout_ns, inputs, self._directory)
        plan = LoadPlan(
            payload=inputs,
            schedule=settings.schedule,
            duration_ns=settings.duration_ns,
            warmup_ns=settings.warmup_ns,
            timeout_ns=settings.timeout_ns,
            check=settings.check,
            generators=settings.generators,
        )
        if target is not None:
            if not isinstance(target, Url):
                raise SettingError(f"perf_target is {target!r}, expected Url('http://127.0.0.1:8000/predict')")
            return Subject(str(target), lambda: attach(target, startup), plan)

        def under(pattern: Pattern) -> Callable[[], Deployment]:
            recipe = recipe_of(pattern, model, self._by_value(item))
            return lambda: launch(recipe, startup)

        return Subject(str(settings.pattern), under(settings.pattern), plan, under)

    def _reference(self, test: str) -> Reference:
        recorded = self._baselines.get(test, {})
        machine = self._environment.machine
        missing = "no baseline"
        if recorded and machine not in recorded:
            missing = f"baseline not comparable (machine: {'; '.join(recorded)} → {machine})"
        return Reference(self._run.baseline, recorded.get(machine), missing)

    def _update_baseline(self) -> None:
        passed = [result for result in self._results if result.passed]
        if not passed:
            self._written.append("baseline not updated: no perf test passed")
            return
        machine, revision = self._environment.machine, commit(self._config.rootpath)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        updates: Baselines = {}
        for result in passed:
            metrics = {
                name: tuple(LaunchValue(value, error) for value, error in launches)
                for name, launches in result.launches.items()
            }
            entry = Entry(result.setup, metrics, self._environment.versions, revision, today)
            updates[result.test] = {machine: entry}
        write_baselines(self._run.baseline_file, updates)
        self._written += [
            f"baseline {self._run.baseline_file} updated:",
            *update_lines(passed, self._baselines, machine),
        ]

    def _by_value(self, item: pytest.Item) -> list[ModuleType]:
        """The modules that no other process can import by name: the test's own file, and conftest files."""
        plugins = [plugin for plugin in self._config.pluginmanager.get_plugins() if isinstance(plugin, ModuleType)]
        conftests = [plugin for plugin in plugins if Path(plugin.__file__ or "").name == "conftest.py"]
        module = item.getparent(pytest.Module)
        return [*conftests, *([module.obj] if module is not None else [])]


def _raise_at_definition(item: pytest.Item, failure: BaseException) -> None:
    """Raise from the line that defines the test, so that reports point there and not into this package.

    A statement compiled under the test's own file name and line gives a traceback entry that is exactly that.
    """
    __tracebackhide__ = True
    function = getattr(getattr(item, "function", None), "__wrapped__", None) or getattr(item, "function", None)
    code = getattr(function, "__code__", None)
    if code is None:
        raise failure
    line = _definition_line(code)
    name = {"co_name": code.co_name, "co_qualname": code.co_qualname}
    statement = compile("raise failure from None", code.co_filename, "exec").replace(co_firstlineno=line, **name)
    exec(statement, {"failure": failure.with_traceback(None)})  # noqa: S102 - our own two words, see above


def _definition_line(code: Any) -> int:
    """The line of ``def``, below the decorators."""
    import linecache

    line: int = code.co_firstlineno
    for number in range(line, line + 50):
        if linecache.getline(code.co_filename, number).lstrip().startswith(("def ", "async def ")):
            return number
    return line
