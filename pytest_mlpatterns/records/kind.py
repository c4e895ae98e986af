"""The kind of a test's result, which every report and exit code shows, and the gate that it went through.

A test that fails for another reason than a verdict has no verdict that shows it; :class:`Unjudged` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import (
    InconclusiveFailure,
    InconclusiveWarning,
    InvalidResultError,
    LimitFailure,
    PerfFailure,
    RegressionFailure,
    SettingError,
)
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["ERRORS", "Gate", "Kind", "Unjudged", "failure_kind", "judged_kind"]


class Kind(StrEnum):
    """What came of a test that asked for ``perf``, the most urgent first."""

    TEST_ERROR = "test_error"
    INVALID = "invalid"
    REGRESSION = "regression"
    LIMIT = "limit"
    UNDECIDED = "undecided"
    NOT_COMPARED = "not_compared"
    ACCEPTED = "accepted"
    PASSED = "passed"


ERRORS = (Kind.TEST_ERROR, Kind.INVALID)
"""Kinds of tests that failed without a verdict, which the gate does not let pass."""


class Gate(StrEnum):
    """What a failing verdict does: it fails the test, or it is only shown."""

    FAIL = "fail"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A kind that no verdict shows: ``test_error``, ``invalid`` or ``not_compared``; and the reason in one line."""

    kind: Kind
    reason: str

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> Unjudged:
        """The inverse of ``asdict``, also after a trip through JSON or between processes."""
        return cls(Kind(data["kind"]), data["reason"])


def failure_kind(error: BaseException | None) -> Kind:
    """The kind of a failure by its exception.

    Args:
        error: of the test or of one of its fixtures; None if it failed without one, such as a strict xfail that passed.
    """
    return next((kind for classes, kind in _KINDS_OF_ERRORS if isinstance(error, classes)), Kind.TEST_ERROR)


def judged_kind(verdicts: Sequence[Verdict], *, passed: bool, interrupted: bool) -> Kind:
    """The kind of a test by its verdicts alone.

    Args:
        verdicts: of the test.
        passed: whether the test passed; one that expects a failing verdict passes with it.
        interrupted: whether the run was, so that the test is decided by what it had by then.
    """
    failed = [] if passed else [one.against for one in verdicts if one.outcome is Outcome.FAIL]
    if failed:
        return Kind.REGRESSION if {"baseline", "revision"} & {*failed} else Kind.LIMIT
    if interrupted or any(one.outcome is Outcome.INCONCLUSIVE for one in verdicts):
        return Kind.UNDECIDED
    if not passed:
        return Kind.TEST_ERROR
    return Kind.ACCEPTED if any(one.accepted for one in verdicts) else Kind.PASSED


_KINDS_OF_ERRORS: Sequence[tuple[tuple[type[BaseException], ...], Kind]] = (
    ((RegressionFailure,), Kind.REGRESSION),
    ((LimitFailure,), Kind.LIMIT),
    ((InconclusiveFailure, InconclusiveWarning), Kind.UNDECIDED),
    ((PerfFailure,), Kind.NOT_COMPARED),
    ((InvalidResultError, SettingError), Kind.INVALID),
)
"""Exceptions and the kind of a test that they fail; the first that fits counts."""
