"""The verdicts of one test: a failing one fails the test or is kept, an open one follows the test's policy."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_mlpatterns.config.settings import InconclusivePolicy
from pytest_mlpatterns.errors import InconclusiveFailure, InconclusiveWarning, PerfFailure
from pytest_mlpatterns.judging.at_the_call import frame_of_the_test
from pytest_mlpatterns.records.kind import Gate
from pytest_mlpatterns.records.result import Location
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.text.failure import failure_text
from pytest_mlpatterns.reports.text.suspicions import open_in_short
from pytest_mlpatterns.reports.text.where import where_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.errors import GeneratorLimitError
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["VerdictLog", "no_verdict"]


def no_verdict(metric: str, against: Literal["limit", "baseline", "revision"], error: GeneratorLimitError) -> Verdict:
    """The verdict on a metric when the load generator or the machine was the limit, not the service."""
    why = str(error)
    return Verdict(metric, against, Outcome.INCONCLUSIVE, f"no verdict: {why}", why_open=why, by_machine=True)


def _warn_at_the_test(warning: Warning) -> None:
    """Issue a warning at the line of the test: the nearest one outside this package."""
    _, level = frame_of_the_test()
    warnings.warn(warning, stacklevel=level)


def _asserted_at(test: str) -> Location:
    """The line that asserted what is judged now, in the file of the test or in one of its helpers."""
    frame, _ = frame_of_the_test()
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
        gate: whether a failure is raised.

    Attributes:
        all: every verdict so far.
        advised: failures that were not raised, because the gate only warns; the body of the test goes on after each.
        warn: takes the warning of an open verdict.
    """

    def __init__(
        self,
        test: str,
        policy: InconclusivePolicy,
        result: Callable[[], TestResult | None],
        *,
        results_file: str = "",
        gate: Gate = Gate.FAIL,
    ) -> None:
        self.all: list[Verdict] = []
        self.advised: list[PerfFailure] = []
        self.warn: Callable[[Warning], None] = _warn_at_the_test
        self._test = test
        self._policy = policy
        self._result = result
        self._results_file = results_file
        self._gate = gate

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
            self.fail(self._failure(failure, failed))
            return
        undecided = [verdict for verdict in verdicts if verdict.outcome is Outcome.INCONCLUSIVE]
        if undecided and self._policy is InconclusivePolicy.FAIL:
            self.fail(self._failure(InconclusiveFailure, undecided))
        if undecided and self._policy is InconclusivePolicy.WARN:
            self._warn_of(undecided)

    def _warn_of(self, undecided: Sequence[Verdict]) -> None:
        reasons = "; ".join(verdict.reason for verdict in undecided)
        try:
            self.warn(InconclusiveWarning(f"{self._test}: undecided: {reasons}", open_in_short(undecided)))
        except InconclusiveWarning:  # the project's filter makes errors of warnings
            if self._gate is Gate.FAIL:
                raise
            self.fail(self._failure(InconclusiveFailure, undecided))

    def fail(self, failure: PerfFailure) -> None:
        """Raise a failure, or keep it if the gate only warns."""
        if self._gate is Gate.FAIL:
            raise failure
        self.advised.append(failure)

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
