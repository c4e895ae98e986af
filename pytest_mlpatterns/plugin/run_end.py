"""The end of a run: the results of all processes, the files and summaries that are made of them, and the exit code.

The baseline, the result file, the page, the terminal's summary and GitHub's are written here only, by the one process
that has all results. :mod:`pytest_mlpatterns.reports` makes their text. Also: ``plugin/interrupts.py`` sets the exit
code of an interrupted run, and ``cli/verdict_command.py`` has its own.
"""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pytest_mlpatterns.config.run_settings import BaselineMode, BaselineSource, RunSettings
from pytest_mlpatterns.errors import MlpatternsError, ResultFileError, SettingError
from pytest_mlpatterns.fields import unrun_answer
from pytest_mlpatterns.records.baseline_entry import Level
from pytest_mlpatterns.records.history import NewChange
from pytest_mlpatterns.records.result import FailedTest, Ranking, RunEnd, TestResult
from pytest_mlpatterns.records.setup import Environment
from pytest_mlpatterns.records.verdict import Gate, Unjudged
from pytest_mlpatterns.reports.files.ci_reports import job_summary, workflow_commands
from pytest_mlpatterns.reports.files.result_file import read_results, results_json
from pytest_mlpatterns.reports.text.history_text import new_change_lines
from pytest_mlpatterns.reports.text.summary_table import end_lines, kind_word, summary_lines
from pytest_mlpatterns.reports.text.terminal_text import line
from pytest_mlpatterns.system.files import append_text, replace_file
from pytest_mlpatterns.system.git import commit
from pytest_mlpatterns.system.owned_files import place_of
from pytest_mlpatterns.wording import count, first_line

if TYPE_CHECKING:
    from pytest_mlpatterns.baseline.session import BaselineSession
    from pytest_mlpatterns.history.session import HistorySession
    from pytest_mlpatterns.plugin.terminal import Terminal
    from pytest_mlpatterns.revision.commits import Revision

_ROOM_BYTES = 256 << 10  # Room that each file needs; a page has three times as much, a baseline of few tests a tenth
_RERUN = "rerun"  # The outcome that pytest-rerunfailures gives to an attempt that it repeats
_WOULD_FAIL = "would fail"  # How pytest counts a test whose verdicts failed while its gate only warns; it has passed


class RunOutput:
    """Results and failures of a run.

    ``history``: what the run does with the history; None without one. ``root``: directory that test ids are relative
    to. ``revision``: what the tests are compared with; None if it is the baseline. ``selected``: ids of the perf tests
    that this process was to run; None if other processes run them.
    """

    def __init__(
        self,
        run: RunSettings,
        baseline: BaselineSession,
        environment: Environment,
        *,
        history: HistorySession | None,
        terminal: Terminal,
        root: Path,
    ) -> None:
        self.lines: list[str] = []
        self.revision: Revision | None = None
        self.selected: Sequence[str] | None = None
        self.uncollected: Sequence[str] = ()
        self._run = run
        self._baseline = baseline
        self._environment = environment
        self._history = history
        self._terminal = terminal
        self._root = root
        self._results: list[TestResult] = []
        self._failures: dict[str, FailedTest] = {}
        self._unmeasured: dict[str, FailedTest] = {}
        self._rankings: tuple[Ranking, ...] = ()
        self._ended: set[str] = set()
        self._failed_tests: dict[str, None] = {}
        self._skipped_perf = False
        self._run_end = RunEnd()

    def take_result(self, data: Mapping[str, Any]) -> TestResult:
        """Add the plain values of :meth:`TestResult.to_json`."""
        result = self._baseline.with_drift(TestResult.from_json(data))
        self.add(result)
        return result

    def add(self, result: TestResult) -> None:
        """Add a result as it is."""
        self._results.append(result)

    def take_failure(self, failure: FailedTest, *, measured: bool) -> None:
        """Add the failure of a test."""
        known = self._failures.get(failure.test)
        if known is None or known.gate is Gate.WARN:  # a failure that counts is not hidden by one that does not
            self._failures[failure.test] = failure
        elif not measured:  # its teardown failed besides
            self._failures[failure.test] = replace(failure, reason=f"{known.reason}\n{failure.reason}")
        if measured:
            return
        number = next((n for n, one in enumerate(self._results) if one.test == failure.test), None)
        if number is None:
            self._unmeasured.setdefault(failure.test, failure)
        else:  # its teardown failed
            result, unjudged = self._results[number], Unjudged(failure.kind, first_line(failure.reason))
            self._results[number] = replace(result, judged=replace(result.judged, passed=False, unjudged=unjudged))

    def take_any_failure(self, test: str) -> None:
        """Note that a test failed, whether or not it is a perf test."""
        self._failed_tests[test] = None

    def take_end(self, test: str, *, is_skipped_perf: bool) -> None:
        """Note that a test came to an end; ``is_skipped_perf`` if it would have measured and was skipped."""
        self._ended.add(test)
        self._skipped_perf = self._skipped_perf or is_skipped_perf

    def close(self, exitstatus: int, *, complete: bool) -> int:
        """Write the files.

        Returns the exit status of the run: another one if a file was not written, if a change in the history fails the
        run, or if an update recorded nothing, or not all that it was to, which must not look like a success.
        :attr:`lines` name each file, or the error.
        """
        if self.revision is not None and (self._results or self._unmeasured):
            self.lines.insert(0, self._compared_with(self.revision))
        tests, baseline, history = self._results, self._baseline, self._history
        done = history is None or self._closed(history, lambda: history.close(tests, complete=complete))
        done = self._closed(baseline, lambda: baseline.close(tests, complete=complete, levels=self._levels())) and done
        if self._run.rank is not None and not self._run.smoke:
            from pytest_mlpatterns.analysis.choice.ranking import Unmeasured, rank

            unmeasured = [Unmeasured(one.test, one.group, one.pattern) for one in self._unmeasured.values()]
            self._rankings = rank(self._results, self._run.rank, unmeasured)
        self._run_end = self._end_of_run(complete=complete)
        done = self._write_files() and done
        self._write_job_summary()
        if not done:
            return pytest.ExitCode.USAGE_ERROR
        is_green = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        # Tests without a deployment under load record nothing; those that are skipped would have.
        ran = bool(self._results or self._unmeasured or self._skipped_perf)
        fails = (ran and self._baseline.recorded_nothing) or self._baseline.refused
        fails = fails or (self._history is not None and self._history.fails)
        return pytest.ExitCode.TESTS_FAILED if is_green and fails else exitstatus

    def show(self, reporter: pytest.TerminalReporter, *, verbose: bool) -> None:
        """Print the table of all perf tests and :attr:`lines`."""
        terminal, smoke, failures = self._terminal, self._run.smoke, [*self._failures.values()]
        if self._results or self.lines or (failures and not smoke):
            reporter.section("performance", sep="-")
        if self._results and smoke:
            sent = "sent one request" if len(self._results) == 1 else "sent one request each"
            terminal.write([line(f"smoke run: {count(len(self._results), 'perf test')} {sent}, no verdicts")])
        elif self._results:
            terminal.write(summary_lines(self._results, terminal.width, verbose=verbose, spell=terminal.spell))
        terminal.write(line(text) for text in self.lines)
        terminal.write(new_change_lines(self._new_changes))
        if not smoke:
            terminal.write(end_lines(self._results, failures, self._run_end))
            self._show_ranking(reporter)
        if self._on_github:
            root = self._root_in_repository()
            terminal.write_commands(workflow_commands(self._results, failures, self._new_changes, root=root))

    def _show_ranking(self, reporter: pytest.TerminalReporter) -> None:
        """Print which pattern is the best, or that there is nothing to rank if the run was to rank."""
        if self._run.rank is None or not self._results or (self._run.always_ranks and not self._rankings):
            return
        from pytest_mlpatterns.reports.text.summary_table import ranking_lines

        reporter.section("choosing a pattern", sep="-")
        lines = ranking_lines(self._rankings, self._results, self._terminal.width)
        self._terminal.write(line(text) for text in lines)

    def _compared_with(self, revision: Revision) -> str:
        """How many of the tests that ran were compared with the revision."""
        name = f"{revision.name} ({revision.short} {revision.subject})"
        if self._run.smoke:
            return f"not compared with {name}: a smoke run makes no verdict"
        compared = {one.test for one in self._results if one.reference and one.reference.kind == "revision"}
        ran = {one.test for one in self._results} | {*self._unmeasured}
        return f"compared {len(compared)} of {count(len(ran), 'test')} with {name}"

    @property
    def _on_github(self) -> bool:
        return bool(os.environ.get("GITHUB_ACTIONS"))

    def _root_in_repository(self) -> Path | None:
        """pytest's root directory relative to the checked-out repository; None if they are the same."""
        top = os.environ.get("GITHUB_WORKSPACE")
        inside = top is not None and self._root != Path(top) and self._root.is_relative_to(top)
        return self._root.relative_to(str(top)) if inside else None

    @property
    def _new_changes(self) -> Sequence[NewChange]:
        """The changes in the history that this run made known."""
        return () if self._history is None else self._history.changes

    def _closed(self, session: BaselineSession | HistorySession, close: Callable[[], None]) -> bool:
        """Close the baseline or the history, and take its lines; returns whether that succeeded."""
        try:
            close()
        except MlpatternsError as error:
            self.lines.append(f"ERROR: {error}")
            return False
        finally:
            self.lines += session.lines
        return True

    def _levels(self) -> Mapping[str, Level] | None:
        """The levels that an update records instead of this run's; None if it records what the run measured."""
        is_update = self._run.baseline is BaselineMode.UPDATE and not self._run.smoke
        if self._history is None or not is_update or self._run.baseline_source is not BaselineSource.HISTORY:
            return None
        return self._history.levels()

    def _end_of_run(self, *, complete: bool) -> RunEnd:
        """How the run ended, beside its results."""
        others = [one for one in (*self.uncollected, *self._failed_tests) if one not in self._failures]
        not_run: tuple[str, ...] | None = ()
        if self.selected is not None:
            done = self._ended | {one.test for one in self._results} | {*self._unmeasured}
            not_run = tuple(dict.fromkeys(test for test in self.selected if test not in done))
        elif not complete:
            not_run = None
        return RunEnd(complete, not_run, tuple(dict.fromkeys(others)), self._run.smoke)

    def _write_files(self) -> bool:
        """Write the requested files, and return whether all were written.

        The page is made from the text of the result file, as the command line does it.
        """
        json_file, html_file = self._run.json_file, self._run.html_file
        if json_file is None and html_file is None:
            return True
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        text = results_json(
            [*self._results, *self._unmeasured.values()],
            self._environment,
            now,
            baseline=self._baseline.report(),
            history={} if self._history is None else self._history.report(),
            ranking=[ranking.to_json() for ranking in self._rankings],
            commit=commit(self._root),
            run=self._run_end,
        )
        done = json_file is None or self._replace(json_file, text, "results")
        if html_file is not None:
            done = self._write_page(html_file, text) and done
        return done

    def _write_page(self, file: Path, results: str) -> bool:
        from pytest_mlpatterns.reports.html.page import HISTORY_PAGE, html_report

        beside = HISTORY_PAGE if (file.parent / HISTORY_PAGE).is_file() else ""
        try:
            page = html_report(read_results(results), beside, results_file=self._run.results_from_here)
        except ResultFileError as error:
            self.lines.append(f"ERROR: {file} is not written, because the text of the results {error}")
            return False
        return self._replace(file, page, "report")

    def _replace(self, file: Path, text: str, what: str) -> bool:
        try:
            replace_file(file, lambda: text)
        except OSError as error:
            self.lines.append(
                f"ERROR: {file} cannot be written: {error.strerror or error}; what it held before is unchanged, "
                "make room or name another file"
            )
            return False
        self.lines.append(f"{what} written to {file}")
        return True

    def _write_job_summary(self) -> None:
        """Append to GitHub's job summary, if there is one and there are results or failures."""
        file = os.environ.get("GITHUB_STEP_SUMMARY")
        if not self._on_github or not file or self._run.smoke or not (self._results or self._failures):
            return
        rankings = {ranking.group: ranking.sentence for ranking in self._rankings}
        failures = [*self._failures.values()]
        changes = self._new_changes
        text = job_summary(self._results, failures, rankings, changes=changes, notes=self.lines, run=self._run_end)
        try:
            append_text(Path(file), text)
        except OSError as error:  # it is a copy of what the terminal shows
            self.lines.append(
                f"WARNING: the job summary {file} (GITHUB_STEP_SUMMARY) cannot be written: {error.strerror or error}"
            )


def require_room(run: RunSettings) -> None:
    """Check that the files of a run can be written before anything is measured.

    Raises SettingError: one of them cannot, such as on a full disk.
    """
    updated = run.baseline_file if run.baseline is BaselineMode.UPDATE and not run.smoke else None
    extended = None if run.smoke else run.history
    files = {"json": run.json_file, "html": run.html_file, "baseline-file": updated, "history": extended}
    for name, file in files.items():
        if file is None or (file.exists() and not file.is_file()):
            continue
        directory = os.path.dirname(os.path.realpath(file))
        try:
            with place_of(file):  # behind no link of another user
                pass
            if name == "history" and file.exists():
                os.close(os.open(file, os.O_WRONLY | os.O_APPEND))
                if not os.access(directory, os.W_OK):  # it is appended to
                    continue
            with tempfile.TemporaryFile(dir=directory) as trial:
                trial.write(bytes(_ROOM_BYTES))
        except OSError as error:
            raise SettingError(
                f"{file} cannot be written: {error.strerror or error}; nothing is measured; make room there, make its "
                f"directory writable, or name another file with --perf-{name}=PATH"
            ) from None


class ReportHooks:
    """The hooks of a session that read its reports."""

    def __init__(self, config: pytest.Config, output: RunOutput, *, is_worker: bool) -> None:
        self._config = config
        self._output = output
        self._is_worker = is_worker

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Collect a result and a failure, and pass the result to the other plugins.

        Of a test with subtests only the test's own report counts, which comes after theirs. Of a test that is rerun
        only the last attempt counts.
        """
        if str(report.outcome) == _RERUN:
            return
        if report.failed and not hasattr(report, "wasxfail"):
            self._output.take_any_failure(report.nodeid)
        if type(report) is not pytest.TestReport:
            return
        if report.when != "setup" or not report.passed:
            self._output.take_end(report.nodeid, is_skipped_perf=hasattr(report, "perf_skipped"))
        data = getattr(report, "perf_result", None)
        failure = getattr(report, "perf_failure", None)
        if data is not None:
            result = self._output.take_result(data)
            if not self._is_worker:
                answers = self._config.hook.pytest_mlpatterns_result(config=self._config, result=result.to_json())
                if why := next(filter(None, map(unrun_answer, answers)), ""):
                    raise pytest.UsageError(f"a hook pytest_mlpatterns_result {why}")
        if failure is not None:
            self._output.take_failure(FailedTest.from_json(failure), measured=data is not None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, tuple[str, Mapping[str, bool]]] | None:
        """Show and count a test that its gate let pass, instead of a pass."""
        data = getattr(report, "perf_failure", None)
        if data is None or not report.passed or data["gate"] != Gate.WARN:
            return None
        return _WOULD_FAIL, "f", (kind_word(FailedTest.from_json(data).kind).upper(), {"red": True})
