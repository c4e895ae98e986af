"""Collects the results of tests from pytest's reports, which come from all processes of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_mlpatterns.plugin.run_output import RunOutput

__all__ = ["ReportHooks"]

_RERUN = "rerun"
"""The outcome that pytest-rerunfailures gives to an attempt that it repeats."""


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
        self._failed_subtests: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Collect a result and a failure, and pass the result to the other plugins.

        Of a test with subtests only the test's own report counts, which comes after theirs. Of a test that is rerun
        only the last attempt counts.
        """
        if type(report) is not pytest.TestReport:  # a subtest's
            if report.failed:
                self._failed_subtests.add(report.nodeid)
            return
        has_failed_subtests = report.when == "call" and report.nodeid in self._failed_subtests
        if has_failed_subtests:
            self._failed_subtests.remove(report.nodeid)
        if str(report.outcome) == _RERUN:
            return
        data = getattr(report, "perf_result", None)
        failure = getattr(report, "perf_failure", None)
        if data is not None:
            result = self._output.take_result({**data, "passed": data["passed"] and not has_failed_subtests})
            if not self._is_worker:
                self._config.hook.pytest_mlpatterns_result(config=self._config, result=result.to_json())
            if has_failed_subtests and failure is None:
                failure = {name: data[name] for name in ("test", "group", "location")}
                failure |= {"pattern": str(result.setup.pattern), "reason": "a subtest failed"}
        if failure is not None:
            self._output.take_failure(failure, measured=data is not None)
