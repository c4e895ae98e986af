"""Collects the results of tests from pytest's reports, which come from all processes of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlpatterns.records.failed_test import FailedTest
from pytest_mlpatterns.records.kind import Gate
from pytest_mlpatterns.reports.text.headline import kind_word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.plugin.run_output import RunOutput

__all__ = ["ReportHooks"]

_RERUN = "rerun"
"""The outcome that pytest-rerunfailures gives to an attempt that it repeats."""
_WOULD_FAIL = "would fail"
"""How pytest counts a test whose verdicts failed while its gate only warns; it has passed."""


class ReportHooks:
    """The hooks of a session that read its reports.

    Args:
        config: of the run.
        output: takes the results and the failures.
        is_worker: this process is a worker of a distributed run; its controller reads the same reports.
    """

    def __init__(self, config: pytest.Config, output: RunOutput, *, is_worker: bool) -> None:
        self._config = config
        self._output = output
        self._is_worker = is_worker

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Collect a result and a failure, and pass the result to the other plugins.

        Of a test with subtests only the test's own report counts, which comes after theirs. Of a test that is rerun
        only the last attempt counts.
        """
        if type(report) is not pytest.TestReport or str(report.outcome) == _RERUN:
            return
        data = getattr(report, "perf_result", None)
        failure = getattr(report, "perf_failure", None)
        if data is not None:
            result = self._output.take_result(data)
            if not self._is_worker:
                self._config.hook.pytest_mlpatterns_result(config=self._config, result=result.to_json())
        if failure is not None:
            self._output.take_failure(FailedTest.from_json(failure), measured=data is not None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, tuple[str, Mapping[str, bool]]] | None:
        """Show and count a test that its gate let pass, instead of a pass."""
        data = getattr(report, "perf_failure", None)
        if data is None or not report.passed or data["gate"] != Gate.WARN:
            return None
        return _WOULD_FAIL, "f", (kind_word(FailedTest.from_json(data).kind).upper(), {"red": True})
