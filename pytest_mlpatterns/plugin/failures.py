"""How a perf test failed, from pytest's reports and its exceptions: the kind, and the reason in a few lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import PerfFailure
from pytest_mlpatterns.plugin.location import location_of
from pytest_mlpatterns.plugin.perf_item import parameter_names
from pytest_mlpatterns.records.failed_test import FailedTest
from pytest_mlpatterns.records.kind import Gate, Kind, Unjudged, failure_kind
from pytest_mlpatterns.records.result import group_of
from pytest_mlpatterns.wording import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from pytest_mlpatterns.plugin.perf_item import PerfItem
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["Failures", "fail_as_expected"]

_STRICT = "[XPASS(strict)] "
"""Begins pytest's text of a test that was expected to fail and did not."""
_SHOWN_BY_VERDICTS = (Kind.REGRESSION, Kind.LIMIT, Kind.UNDECIDED)


@dataclass(frozen=True, slots=True)
class Failures:
    """The failures of one phase of a test.

    Attributes:
        errors: the exceptions that failed it; None for a failure without one, such as a strict xfail that passed.
        advised: the failures that the test's gate let pass.
        reason: why it failed, or would have, in a few lines.
    """

    errors: Sequence[BaseException | None]
    advised: Sequence[PerfFailure]
    reason: str

    @classmethod
    def of(cls, state: PerfItem, report: pytest.TestReport, error: BaseException | None) -> Failures:
        """Read them from a phase.

        Args:
            state: what is known of the test; the failures that its gate let pass are new to one phase only.
            report: of the phase.
            error: its exception; None without one.
        """
        advised: Sequence[PerfFailure] = ()
        if state.perf is not None and report.when != "setup":
            advised = state.perf.advised[state.advised :]
            state.advised += len(advised)
        if report.failed:
            return cls([error], advised, visible(_reason(report, error)))
        if report.when == "call" and state.subtest_errors:
            return cls(state.subtest_errors, advised, "a subtest failed")
        return cls((), advised, visible("\n".join(map(_verdict_lines, advised))))

    @property
    def unjudged(self) -> Unjudged | None:
        """Why the test failed, if no verdict of it shows that; None if one does, or if it passed."""
        kinds = [failure_kind(one) for one in self.errors or self.advised]
        apart = [kind for kind in kinds if kind not in _SHOWN_BY_VERDICTS]
        if not apart or (not self.errors and len(apart) < len(kinds)):
            return None
        return Unjudged(apart[0], self.reason.partition("\n")[0])

    def test(self, item: pytest.Item, state: PerfItem, result: TestResult | None) -> FailedTest | None:
        """The failure as a value for the reports; None without one.

        Args:
            item: the test.
            state: what is known of it.
            result: what it measured; None if nothing, or if this phase is not its body.
        """
        if not self.errors and not self.advised:
            return None
        return FailedTest(
            item.nodeid,
            self.reason,
            location_of(item),
            kind=failure_kind((*self.errors, *self.advised)[0]) if result is None else result.kind,
            gate=Gate.FAIL if self.errors else Gate.WARN,
            group=group_of(item.nodeid, parameter_names(item)),
            pattern=str(state.settings.pattern),
            text="\n".join([*map(str, self.advised[:1]), *(one.reasons[0] for one in self.advised[1:])]),
        )


def fail_as_expected(report: pytest.TestReport, text: str) -> None:
    """Let an ``xfail`` fail that passed because its gate let the verdict pass, as the test expects a failure.

    Args:
        report: of the test's body.
        text: of the verdict.
    """
    expected = getattr(report, "wasxfail", None)
    if report.failed and isinstance(report.longrepr, str) and report.longrepr.startswith(_STRICT):
        expected = report.longrepr.removeprefix(_STRICT)
    if expected is not None:
        report.outcome, report.longrepr = "skipped", text
        report.wasxfail = expected


def _reason(report: pytest.TestReport, error: BaseException | None) -> str:
    """Why a test failed: a line for each verdict, or the first line of another error."""
    if isinstance(error, PerfFailure):
        return _verdict_lines(error)
    crash = getattr(report.longrepr, "reprcrash", None)
    message: str = report.longreprtext if crash is None else crash.message
    return message.strip().partition("\n")[0]


def _verdict_lines(failure: PerfFailure) -> str:
    return f"{type(failure).__name__}: " + "\n".join(failure.reasons)
