"""A verdict as a value: the metric, the reference, the outcome and the reason.

A test that fails for another reason than a verdict has no verdict that shows it; :class:`Unjudged` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, Self

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.errors import (
    InconclusiveFailure,
    InconclusiveWarning,
    InvalidResultError,
    LimitFailure,
    PerfFailure,
    RegressionFailure,
    SettingError,
)
from pytest_mlpatterns.records.codec import Record
from pytest_mlpatterns.records.launch import Estimate

__all__ = [
    "ERRORS",
    "NO_CEILING",
    "Gate",
    "Kind",
    "LeftOut",
    "OpenBy",
    "Outcome",
    "Unjudged",
    "Verdict",
    "WhyOpen",
    "failure_kind",
    "judged_kind",
]


class Outcome(StrEnum):
    """Outcome of a comparison with a limit or a reference."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class OpenBy(StrEnum):
    """What leaves a verdict open that more measuring would not decide.

    They are: the machine, so that another moment would decide; two modes of the requests, between which the percentile
    lies; launches that scatter too much; too few requests to see a growth; a cache that still fills; and a change
    without a change of the code.
    """

    MACHINE = "machine"
    MODES = "modes"
    LAUNCHES = "launches"
    REQUESTS = "requests"
    CACHE = "cache"
    UNEXPLAINED = "unexplained"


class WhyOpen(Struct, frozen=True):
    """Why a verdict is open although more measuring would not decide it; the words have the figures."""

    by: OpenBy
    words: str

    def __str__(self) -> str:
        return self.words


NO_CEILING = 1e18
"""Ceiling of what no acceptance covers: a number, since JSON has no infinity."""


class Verdict(Record, frozen=True):
    """One verdict on one metric.

    Attributes:
        metric: its name.
        against: kind of the reference.
        outcome: of the comparison.
        reason: the verdict with its figures, as a sentence.
        change: relative change (of a share: the difference); worse is positive; None for a limit.
        tolerance: largest acceptable change; None for a limit.
        reference_value: the reference's figure, in the metric's unit; None if unknown, or for a limit.
        present_value: the present's figure that it is compared with.
        accepted: the acceptance to which a change beyond the usual tolerance owes its pass; empty for all others.
        judged_by: name of the metric that was judged in its place and that the figures are of, such as
            ``latency_mean`` for RTM; empty if it was judged itself.
        why_open: why it is open although more measuring would not decide it; None for all others.
        ceiling: of an acceptance with which these figures pass, :data:`NO_CEILING` if there is none; None if that is
            the upper end of ``change``.
    """

    metric: str
    against: Literal["limit", "baseline", "pattern", "service", "revision"]
    outcome: Outcome
    reason: str
    change: Estimate | None = None
    tolerance: float | None = None
    reference_value: float | None = None
    present_value: float | None = None
    accepted: str = ""
    judged_by: str = ""
    why_open: WhyOpen | None = None
    ceiling: float | None = None

    @property
    def needed_ceiling(self) -> float | None:
        """The ceiling of an acceptance with which these figures pass; None if no acceptance lets them pass."""
        if self.change is None:
            return None
        found = self.change.high if self.ceiling is None else self.ceiling
        return found if found < NO_CEILING else None

    @property
    def figure(self) -> str:
        """Name of the metric that the figures are of."""
        return self.judged_by or self.metric

    @property
    def by_machine(self) -> bool:
        """Whether the machine leaves it open, so that another moment would decide it."""
        return self.why_open is not None and self.why_open.by is OpenBy.MACHINE

    def left_open(self, why: WhyOpen, said: str = "") -> Verdict:
        """The verdict, left open for a reason that more measuring does not remove; the reason is said in its words.

        Args:
            why: the reason.
            said: longer words for it; empty for its own.
        """
        reason = f"{self.reason}; {said or why}"
        return replace(self, outcome=Outcome.INCONCLUSIVE, reason=reason, why_open=why)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values; JSON has no infinity, as which a percentile among failed requests is known."""
        return {
            **super().to_json(),
            "present_value": None if self.present_value == math.inf else self.present_value,
            "why_open": str(self.why_open or ""),
            "by_machine": self.by_machine,
            "open_by": None if self.why_open is None else self.why_open.by.value,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`, also of older files."""
        by = data.get("open_by") or (OpenBy.MACHINE if data.get("by_machine") else OpenBy.UNEXPLAINED)
        why = WhyOpen(OpenBy(by), data["why_open"]) if data.get("why_open") else None
        return super().from_json({**data, "why_open": why})

    @property
    def suspected(self) -> bool:
        """Whether an undecided change is beyond its tolerance by its estimate: a suspected regression."""
        if self.outcome is not Outcome.INCONCLUSIVE or self.change is None or self.tolerance is None:
            return False
        return self.change.value > self.tolerance


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


class Unjudged(Struct, frozen=True):
    """A kind that no verdict shows: ``test_error``, ``invalid`` or ``not_compared``; and the reason in one line."""

    kind: Kind
    reason: str


class LeftOut(Struct, frozen=True):
    """Why a metric was not compared.

    Attributes:
        words: the reason.
        is_sentence: whether the words name the metric themselves, as they do if several metrics share them; else they
            are a predicate, such as ``is not recorded yet``.
    """

    words: str
    is_sentence: bool = False

    def __str__(self) -> str:
        return self.words

    @classmethod
    def read(cls, label: str, text: str) -> LeftOut:
        """The reason that a file holds for the metric of a label."""
        return cls(text, is_sentence=label in text)

    def of(self, subject: str) -> str:
        """The whole sentence; ``subject`` is the metric, by its label or as ``it``."""
        return self.words if self.is_sentence else f"{subject} {self.words}"


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
