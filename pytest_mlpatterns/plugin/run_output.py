"""The output of a run: collects the results of all processes, and writes files and summaries at the end.

The baseline, the result file, the page, the terminal's summary and GitHub's are written here only, by the one process
that has all results. :mod:`pytest_mlpatterns.reports` makes their text.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlpatterns.analysis.ranking import Ranking, Unmeasured, rank
from pytest_mlpatterns.errors import MlpatternsError, ResultFileError
from pytest_mlpatterns.records.result import Location, TestResult
from pytest_mlpatterns.reports.files.github import Failure, accepted_annotation, annotation, job_summary
from pytest_mlpatterns.reports.files.result_file import read_results, results_json
from pytest_mlpatterns.reports.text.comparison import is_accepted
from pytest_mlpatterns.reports.text.ranking_table import ranking_lines
from pytest_mlpatterns.reports.text.styled_text import line
from pytest_mlpatterns.reports.text.summary_table import summary_lines
from pytest_mlpatterns.system.files import append_text, replace_file
from pytest_mlpatterns.system.git import commit
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.baseline.session import BaselineSession
    from pytest_mlpatterns.config.run_settings import RunSettings
    from pytest_mlpatterns.plugin.terminal import Terminal
    from pytest_mlpatterns.records.setup import Environment
    from pytest_mlpatterns.revision.resolve import Revision

__all__ = ["RunOutput"]


class RunOutput:
    """Results and failures of a run.

    Args:
        run: settings of the run.
        baseline: the baseline file.
        environment: the machine and what is installed.
        terminal: the terminal.
        root: directory that test ids are relative to.
        variables: environment variables of the process; GitHub Actions sets some.

    Attributes:
        lines: printed below the table.
        revision: what the tests are compared with; None if it is the baseline.
    """

    def __init__(
        self,
        run: RunSettings,
        baseline: BaselineSession,
        environment: Environment,
        *,
        terminal: Terminal,
        root: Path,
        variables: Mapping[str, str] = os.environ,
    ) -> None:
        self.lines: list[str] = []
        self.revision: Revision | None = None
        self._run = run
        self._baseline = baseline
        self._environment = environment
        self._terminal = terminal
        self._root = root
        self._variables = variables
        self._results: list[TestResult] = []
        self._failures: list[Failure] = []
        self._unmeasured: list[Unmeasured] = []
        self._rankings: tuple[Ranking, ...] = ()

    def take_result(self, data: Mapping[str, Any]) -> TestResult:
        """Add the plain values of :meth:`TestResult.to_json`.

        Returns:
            The result with the baseline's note on drift.
        """
        result = self._baseline.with_drift(TestResult.from_json(data))
        self.add(result)
        return result

    def add(self, result: TestResult) -> None:
        """Add a result as it is."""
        self._results.append(result)

    def take_failure(self, data: Mapping[str, Any], *, measured: bool) -> None:
        """Add the failure of a test.

        Args:
            data: its ``test``, ``group``, ``pattern``, ``location`` and the ``reason`` of the failure.
            measured: whether the test gave a result too.
        """
        location = None if data["location"] is None else Location(**data["location"])
        self._failures.append(Failure(data["test"], data["reason"], location))
        if not measured:
            self._unmeasured.append(Unmeasured(data["test"], data["group"], data["pattern"]))

    def close(self, exitstatus: int, *, complete: bool, measured: bool) -> int:
        """Write the files.

        Args:
            exitstatus: of the run so far.
            complete: whether the run was not interrupted.
            measured: whether tests ran, and were not only collected.

        Returns:
            The exit status of the run: another one if a file was not written, or if an update recorded nothing, which
            must not look like a success. :attr:`lines` name each file, or the error.
        """
        if measured and self.revision is not None and (self._results or self._unmeasured):
            self.lines.insert(0, self._compared_with(self.revision))
        done = not measured or self._close_baseline(complete=complete)
        if self._run.rank is not None and not self._run.smoke:
            self._rankings = rank(self._results, self._run.rank, self._unmeasured)
        done = self._write_files() and done
        self._write_job_summary()
        if not done:
            return pytest.ExitCode.USAGE_ERROR
        is_green = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        ran = bool(self._results or self._unmeasured)  # tests without a deployment under load record nothing
        recorded_nothing = measured and ran and self._baseline.recorded_nothing
        return pytest.ExitCode.TESTS_FAILED if is_green and recorded_nothing else exitstatus

    def show(self, reporter: pytest.TerminalReporter, *, verbose: bool) -> None:
        """Print the table of all perf tests and :attr:`lines`."""
        if self._results or self.lines:
            reporter.section("performance", sep="-")
        if self._results and self._run.smoke:
            sent = "sent one request" if len(self._results) == 1 else "sent one request each"
            self._terminal.write([line(f"smoke run: {count(len(self._results), 'perf test')} {sent}, no verdicts")])
        elif self._results:
            self._terminal.write(summary_lines(self._results, self._terminal.width, verbose=verbose))
        self._terminal.write(line(text) for text in self.lines)
        ranked = self._rankings or not self._run.always_ranks
        if self._run.rank is not None and self._results and ranked and not self._run.smoke:
            reporter.section("choosing a pattern", sep="-")
            lines = ranking_lines(self._rankings, self._results, self._terminal.width)
            self._terminal.write(line(text) for text in lines)
        if self._on_github:
            root = self._root_in_repository()
            accepted = [accepted_annotation(one, root) for one in self._results if is_accepted(one)]
            self._terminal.write_commands([*(annotation(failure, root) for failure in self._failures), *accepted])

    def _compared_with(self, revision: Revision) -> str:
        """How many of the tests that ran were compared with the revision."""
        name = f"{revision.name} ({revision.short} {revision.subject})"
        if self._run.smoke:
            return f"not compared with {name}: a smoke run makes no verdict"
        compared = {one.test for one in self._results if one.reference and one.reference.kind == "revision"}
        ran = {one.test for one in self._results} | {one.test for one in self._unmeasured}
        return f"compared {len(compared)} of {count(len(ran), 'test')} with {name}"

    @property
    def _on_github(self) -> bool:
        return bool(self._variables.get("GITHUB_ACTIONS"))

    def _root_in_repository(self) -> Path | None:
        """pytest's root directory relative to the checked-out repository; None if they are the same."""
        top = self._variables.get("GITHUB_WORKSPACE")
        inside = top is not None and self._root != Path(top) and self._root.is_relative_to(top)
        return self._root.relative_to(str(top)) if inside else None

    def _close_baseline(self, *, complete: bool) -> bool:
        """Update or prune the baseline file; returns whether that succeeded."""
        try:
            self._baseline.close(self._results, complete=complete)
        except MlpatternsError as error:
            self.lines.append(f"ERROR: {error}")
            return False
        finally:
            self.lines += self._baseline.lines
        return True

    def _write_files(self) -> bool:
        """Write the requested files, and return whether all were written.

        The page is made from the text of the result file, as the command line does it.
        """
        json_file, html_file = self._run.json_file, self._run.html_file
        if json_file is None and html_file is None:
            return True
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        text = results_json(
            self._results,
            self._environment,
            now,
            baseline=self._baseline.report(),
            ranking=[ranking.to_json() for ranking in self._rankings],
            commit=commit(self._root),
        )
        done = json_file is None or self._replace(json_file, text, "results")
        if html_file is not None:
            done = self._write_page(html_file, text) and done
        return done

    def _write_page(self, file: Path, results: str) -> bool:
        from pytest_mlpatterns.reports.html.page import html_report

        try:
            page = html_report(read_results(results))
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
        file = self._variables.get("GITHUB_STEP_SUMMARY")
        if not self._on_github or not file or self._run.smoke or not (self._results or self._failures):
            return
        rankings = {ranking.group: ranking.sentence for ranking in self._rankings}
        text = job_summary(self._results, self._failures, rankings, notes=self.lines)
        try:
            append_text(Path(file), text)
        except OSError as error:  # it is a copy of what the terminal shows
            self.lines.append(
                f"WARNING: the job summary {file} (GITHUB_STEP_SUMMARY) cannot be written: {error.strerror or error}"
            )
