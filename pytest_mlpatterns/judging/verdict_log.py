"""The verdicts of one test: a failing one fails the test, an open one follows the test's policy."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_mlpatterns.config.settings import InconclusivePolicy
from pytest_mlpatterns.errors import InconclusiveFailure, InconclusiveWarning, PerfFailure
from pytest_mlpatterns.records.result import Location
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.text.failure import failure_text
from pytest_mlpatterns.reports.text.where import where_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from pytest_mlpatterns.errors import GeneratorLimitError
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["VerdictLog", "no_verdict"]


def no_verdict(metric: str, against: Literal["limit", "baseline", "revision"], error: GeneratorLimitError) -> Verdict:
    """The verdict on a metric when the load generator or the machine was the limit, not the service."""
    return Verdict(metric, against, Outcome.INCONCLUSIVE, f"no verdict: {error}")


def _warn_at_the_test(warning: Warning) -> None:
    """Issue a warning at the line of the test: the nearest one outside this package."""
    _, level = _frame_of_the_test()
    warnings.warn(warning, stacklevel=level)


def _frame_of_the_test() -> tuple[FrameType, int]:
    """The nearest frame outside this package, and its level as the caller's warning counts it."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pytest_mlpatterns."):
        frame, level = frame.f_back, level + 1
    return frame, level


def _asserted_at(test: str) -> Location:
    """The line that asserted what is judged now, in the file of the test or in one of its helpers."""
    frame, _ = _frame_of_the_test()
    path, own = Path(frame.f_code.co_filename), test.partition("::")[0]
    file = own if path.as_posix().endswith(f"/{own}") else path.name
    return Location(file, frame.f_lineno)


class VerdictLog:
    """Collects verdicts, and raises failures.

    Args:
        test: the test's id.
        policy: what happens to an open verdict.
        result: builds the result of the test, once something was measured.
        results_file: that the run will write; empty if it writes none.

    Attributes:
        all: every verdict so far.
        warn: takes the warning of an open verdict.
    """

    def __init__(
        self,
        test: str,
        policy: InconclusivePolicy,
        result: Callable[[], TestResult | None],
        *,
        results_file: str = "",
    ) -> None:
        self.all: list[Verdict] = []
        self.warn: Callable[[Warning], None] = _warn_at_the_test
        self._test = test
        self._policy = policy
        self._result = result
        self._results_file = results_file

    def add(self, verdicts: Sequence[Verdict], failure: type[PerfFailure]) -> None:
        """Add verdicts to the result.

        Args:
            verdicts: of one assertion or comparison.
            failure: kind of the failure if one of them fails.

        Raises:
            PerfFailure: one of them fails; or one is open, and open ones fail the test.
        """
        self.all.extend(verdicts)
        if failed := [verdict for verdict in verdicts if verdict.outcome is Outcome.FAIL]:
            raise self._failure(failure, failed)
        undecided = [verdict for verdict in verdicts if verdict.outcome is Outcome.INCONCLUSIVE]
        if undecided and self._policy is InconclusivePolicy.FAIL:
            raise self._failure(InconclusiveFailure, undecided)
        if undecided and self._policy is InconclusivePolicy.WARN:
            reasons = "; ".join(verdict.reason for verdict in undecided)
            self.warn(InconclusiveWarning(f"{self._test}: undecided: {reasons}"))

    def says(self, reason: str) -> bool:
        """Whether a verdict has this reason already."""
        return any(verdict.reason == reason for verdict in self.all)

    def _failure(self, failure: type[PerfFailure], verdicts: Sequence[Verdict]) -> PerfFailure:
        result = self._result()
        assert result is not None
        result = replace(result, location=_asserted_at(self._test))
        where = [text for text in (where_sentence(result, verdicts),) if text]
        return failure(
            failure_text(verdicts, result, self._results_file), [*(verdict.reason for verdict in verdicts), *where]
        )
