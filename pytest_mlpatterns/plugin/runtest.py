"""Hooks that run one perf test: the lock on the machine, the test's call, and its report."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pytest_mlpatterns.errors import InconclusiveWarning, InvalidResultError, MlpatternsError, PerfFailure, PerfWarning
from pytest_mlpatterns.plugin.collection import PERF_ITEM, PerfItem, measures, parameter_names, perf_tests
from pytest_mlpatterns.plugin.failures import (
    Failures,
    death_of,
    fail_as_expected,
    location_of,
    raise_at_definition,
    spell_report_text,
)
from pytest_mlpatterns.plugin.interrupts import follows_an_interrupt
from pytest_mlpatterns.records.result import TestResult, group_of
from pytest_mlpatterns.records.verdict import Kind, Unjudged
from pytest_mlpatterns.reports.files.ci_reports import properties_of
from pytest_mlpatterns.reports.text.failure import measurement_text

if TYPE_CHECKING:
    import warnings

    from pytest_mlpatterns.judging.perf import Perf
    from pytest_mlpatterns.plugin.run_end import RunOutput
    from pytest_mlpatterns.plugin.terminal import LiveLine, Terminal
    from pytest_mlpatterns.plugin.xdist import MachineLock, RunTime

_PASSED = "perf measurement, stdout of call"
"""Section of a test that passed: with ``-rP``, and in PyCharm, whose reporter shows sections of such a name."""


class RuntestHooks:
    """The hooks of a session that run its tests.

    ``lock``: of the machine, in a worker of a distributed run; None if no other process runs tests. ``time``: that the
    tests share; None if they have any.

    ``watched``: the test whose body runs, and which is compared after it; None between bodies.
    """

    def __init__(
        self,
        lock: MachineLock | None,
        output: RunOutput,
        live: LiveLine,
        *,
        terminal: Terminal,
        smoke: bool,
        time: RunTime | None,
    ) -> None:
        self.watched: pytest.Item | None = None
        self._lock = lock
        self._output = output
        self._live = live
        self._terminal = terminal
        self._smoke = smoke
        self._time = time

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which perf tests this process is to run, in a worker for the controller too, which collects none."""
        self._output.selected = perf_tests(session)
        if self._lock is not None:
            self._lock.leave_selected(self._output.selected)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Give a perf test the machine to itself; other tests share it."""
        state = item.stash.get(PERF_ITEM, None)
        with contextlib.nullcontext() if self._lock is None else self._lock.held(exclusive=state is not None):
            if state is not None and self._lock is not None:
                self._lock.leave_word(death_of(item, state))
            result = yield
            perf = _perf_of(item)
            if self._time is not None and state is not None:
                self._time.note(0 if perf is None else perf.took_ns)
            if perf is not None and perf.interrupted:  # by now its failure is reported
                raise KeyboardInterrupt
            return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Raise the error of the set-up; after the body, measure what is missing, and compare."""
        __tracebackhide__ = True
        state = item.stash.get(PERF_ITEM, None)
        if state is not None and state.setup_error is not None:
            raise_at_definition(item, state.setup_error)
        self.watched = item
        try:
            result = yield
            if (perf := _perf_of(item)) is not None:
                try:
                    perf.finish(item.warn)
                except Exception as failure:
                    from pytest_mlpatterns.measurement.answer_check import cut_to_function

                    if cut_to_function(failure):
                        raise_at_definition(item, failure, keep=True)
                    if isinstance(failure, PerfFailure | MlpatternsError | InconclusiveWarning):
                        raise_at_definition(item, failure)
                    raise
        except InvalidResultError as error:
            if self._smoke:
                error.args = (f"{error}; this is a smoke run: put what reads figures under `if not perf.smoke:`",)
            raise
        except KeyboardInterrupt:
            self._keep_partial(item)
            raise KeyboardInterrupt from None  # pytest prints the name of any other class
        except pytest.exit.Exception:
            self._keep_partial(item)
            raise
        finally:
            self.watched = None
            self._live.end()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach the result to the report, which takes it to the process that writes the files."""
        failure = None if call.excinfo is None else call.excinfo.value
        if follows_an_interrupt(failure):
            self._keep_partial(item)
            raise KeyboardInterrupt
        if isinstance(failure, MlpatternsError | PerfFailure):
            failure.args = tuple(map(str, failure.args))
            self._terminal.spell_error(failure)
        elif PERF_ITEM in item.stash:  # a user's check may quote an answer
            self._terminal.spell_error(failure)
        report = yield
        failure = None if call.excinfo is None else call.excinfo.value  # of a unittest.TestCase it is known only now
        if (state := item.stash.get(PERF_ITEM, None)) is None:
            return report
        if self.watched is item:  # then it is a subtest's
            state.subtest_errors += [failure] if report.failed else []
            return report
        if report.failed:
            spell_report_text(report.longrepr, self._terminal.spell)
        if state.perf is not None and state.perf.advised:
            fail_as_expected(report, str(state.perf.advised[0]))
        failures = Failures.of(state, report, failure)
        if not report.skipped:  # nor failed as expected
            self._attach_result(item, state, report, failures=failures)
        elif measures(item):
            report.perf_skipped = True  # type: ignore[attr-defined]
        return report

    def _attach_result(
        self, item: pytest.Item, state: PerfItem, report: pytest.TestReport, *, failures: Failures
    ) -> None:
        """Attach what a phase of a test measured, and its failures; a kind that no result has goes to JUnit too."""
        result = None
        if report.when == "call" and state.perf is not None:
            result = state.perf.result(passed=not failures.errors)
            if result is not None:
                group = group_of(item.nodeid, parameter_names(item))
                definition = replace(result.definition, group=group, location=location_of(item))
                result = replace(_unjudged(result, failures.unjudged), definition=definition)
                report.perf_result = result.to_json()  # type: ignore[attr-defined]
                self._attach(item, report, properties_of(result), state=state)
            self._add_sections(report, state.perf, result, failures=failures)
        if (found := failures.test(item, state, result)) is None:
            return
        report.perf_failure = found.to_json()  # type: ignore[attr-defined]
        if found.text:
            report.sections.append(("advisory perf verdicts", self._terminal.spell(found.text)))
        if result is None:
            self._attach(item, report, [("perf_kind", found.kind.value)], state=state)

    def _add_sections(
        self, report: pytest.TestReport, perf: Perf, result: TestResult | None, *, failures: Failures
    ) -> None:
        """Add to the report what was measured, unless the failure has it, and what explains a failure."""
        has_facts = any(isinstance(error, PerfFailure) for error in failures.errors)  # in its own message
        if result is not None and not has_facts:
            name = "perf measurement" if report.failed else _PASSED
            report.sections.append((name, self._terminal.spell(measurement_text(result))))
        if report.failed and (text := perf.diagnosis()):
            report.sections.append(("perf deployment", self._terminal.spell(text)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        """Spell our own warnings in characters that the terminal has, before pytest writes them.

        That of an undecided test is one line: the summary has its reason, and the line of code explains nothing.
        """
        if isinstance(warning := warning_message.message, InconclusiveWarning):
            warning.args = (warning.short,)
            warning_message.line = ""
        if isinstance(warning, PerfWarning):
            warning.args = tuple(self._terminal.spell(str(part)) for part in warning.args)

    def _keep_partial(self, item: pytest.Item) -> None:
        """Add what a test measured that ends the run: it gets no report."""
        if (perf := _perf_of(item)) is not None and (partial := perf.result(passed=False)) is not None:
            stopped = replace(partial, judged=replace(partial.judged, interrupted=True, unjudged=None))
            why = Unjudged(Kind.INTERRUPTED, "the run was interrupted") if stopped.kind is Kind.INTERRUPTED else None
            self._output.add(_unjudged(stopped, why))

    @staticmethod
    def _attach(
        item: pytest.Item, report: pytest.TestReport, properties: list[tuple[str, str]], *, state: PerfItem
    ) -> None:
        """Add properties for JUnit, in place of properties with the same names."""
        names = {name for name, _ in properties}
        replaced = [one for one in state.properties if one[0] in names]
        for kept in (state.properties, report.user_properties, item.user_properties):
            kept[:] = [one for one in kept if one not in replaced]
        state.properties += properties
        report.user_properties += properties
        item.user_properties += properties  # JUnit reads those of the teardown's report, which is made of these


def _perf_of(item: pytest.Item) -> Perf | None:
    """The measurement of a test; the body may have asked for it by name."""
    state = item.stash.get(PERF_ITEM, None)
    return None if state is None else state.perf


def _unjudged(result: TestResult, why: Unjudged | None) -> TestResult:
    """The result of a kind that its verdicts do not show, if there is a reason for one."""
    return result if why is None else replace(result, judged=replace(result.judged, unjudged=why))
