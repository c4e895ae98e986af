"""A verdict as a value: the metric, the reference, the outcome and the reason.

A test that fails for another reason than a verdict has no verdict that shows it; :class:`Unjudged` does.

An acceptance is a worsening that a team has agreed to, with its reason and its end.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
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

ACCEPTED_FILE = "perf-accepted.toml"  # The file of a team's acceptances, beside the baseline file
_ITSELF = re.compile(r"\\([*?])|(\[)")  # What in a pattern stands for itself, although it does not for :mod:`fnmatch`
_COARSE = 0.05  # Ceilings are whole multiples of this share, since what is measured again differs by some per cent
_FINE = 0.01  # The same of changes below a tenth, and of shares such as the error rate


class Acceptance(Struct, frozen=True):
    """One metric of some tests may be worse than its reference, up to a ceiling."""

    metric: str  # its name
    ceiling: float  # largest accepted worsening, such as 0.6; of a share the difference
    reason: str  # why, in the team's words
    # pattern of pytest's ids, in which ``*`` and ``?`` stand for others, and after a backslash for themselves;
    # brackets belong to an id
    test: str = "*"
    issue: str = ""  # where it was discussed; empty if nowhere
    since: str = ""  # commit from which on it holds; empty if unknown
    until: datetime.date | None = None  # last day on which it holds; None without an end

    def __str__(self) -> str:
        """As the marker writes it: ``rtm +60 %: larger model, #123, until 2026-12-31``."""
        issue = f", {self.issue}" if self.issue else ""
        until = "" if self.until is None else f", until {self.until.isoformat()}"
        return f"{self.metric} +{round(100 * self.ceiling, 6):g} %: {self.reason}{issue}{until}"

    @property
    def identity(self) -> str:
        """Its text and its first commit. A later acceptance may have the same text, but not the same first commit."""
        return f"{self}, since {self.since}" if self.since else str(self)

    def is_of(self, test: str) -> bool:
        """Whether it holds for a test: the pattern is or matches its id, or is its id without those brackets."""
        if self.test in (test, test.partition("[")[0]):
            return True
        return fnmatchcase(test, _ITSELF.sub(lambda found: f"[{found[1] or found[2]}]", self.test))


def pattern_of(test: str) -> str:
    """The pattern that matches this id of a test and no other."""
    return re.sub(r"[*?]", r"\\\g<0>", test)


def rounded_ceiling(share: float) -> float:
    """A ceiling in per cent, not below a change that was measured: what is measured again differs a little."""
    step = _COARSE if share > 2 * _COARSE else _FINE
    return round(100 * step * math.ceil(share / step - 1e-9), 6)


class Accepted(Struct, frozen=True):
    """The acceptances of one test."""

    in_force: tuple[Acceptance, ...] = ()  # those that hold in this run
    ended: tuple[tuple[Acceptance, str], ...] = ()  # those that no longer do, and why

    def without(self, ended: Collection[str], why: str) -> Accepted:
        """The same, but those in force that are among these no longer hold."""
        over = tuple((one, why) for one in self.in_force if one.identity in ended)
        return Accepted(tuple(one for one in self.in_force if one.identity not in ended), (*self.ended, *over))

    @property
    def states(self) -> dict[str, str]:
        """Why each no longer holds, by its identity; empty while it holds."""
        return {one.identity: "" for one in self.in_force} | {one.identity: why for one, why in self.ended}

    @property
    def notes(self) -> tuple[str, ...]:
        """What to do about those that ended, a sentence each."""
        return tuple(f"accepted is {one}; {why}, so remove it" for one, why in self.ended)


def held_by(revision: str) -> str:
    """Why an acceptance ends that this revision has too: its change is on both sides."""
    return f"{revision} has it already"


NOTHING_ACCEPTED = Accepted()  # Of a test of which nothing is accepted


class Outcome(StrEnum):
    """Outcome of a comparison with a limit or a reference."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"

    @property
    def verb(self) -> str:
        """The verb between a value and its limit: it *is not* at least 8."""
        return {"pass": "is", "fail": "is not", "inconclusive": "may or may not be"}[self.value]


class OpenBy(StrEnum):
    """What leaves a verdict open."""

    MACHINE = "machine"  # so that another moment would decide
    CLIENT = "client"  # of the user's own, which is as busy at any moment
    MODES = "modes"  # of the requests, between which the percentile lies
    KINDS = "kinds"  # of launches, of which not all came
    LAUNCHES = "launches"  # that differ too much
    REQUESTS = "requests"  # too few of them
    CACHE = "cache"  # that still fills
    UNEXPLAINED = "unexplained"  # a change without a change of the code
    EDGE = "edge"  # of the tolerance, at which the change is
    STARTS = "starts"  # further ones failed
    RECORDED = "recorded"  # too few launches of the baseline
    WIDE = "wide"  # an interval that no reasonable time narrows, without another reason


class WhyOpen(Struct, frozen=True):
    """Why a verdict is open although more measuring would not decide it; the words have the figures."""

    by: OpenBy
    words: str

    def __str__(self) -> str:
        return self.words


NO_CEILING = 1e18  # Ceiling of what no acceptance covers: a number, since JSON has no infinity


class Verdict(Record, frozen=True):
    """One verdict on one metric."""

    metric: str  # its name
    against: Literal["limit", "baseline", "pattern", "service", "revision"]  # kind of the reference
    outcome: Outcome  # of the comparison
    reason: str  # the verdict with its figures, as a sentence
    change: Estimate | None = None  # relative change (of a share: the difference); worse is positive; None for a limit
    tolerance: float | None = None  # largest acceptable change; None for a limit
    # the reference's figure, in the metric's unit; None if unknown, or for a limit
    reference_value: float | None = None
    present_value: float | None = None  # the present's figure that it is compared with
    # the acceptance to which a change beyond the usual tolerance owes its pass; empty for all others
    accepted: str = ""
    # name of the metric that was judged in its place and that the figures are of, such as ``latency_mean`` for
    # ``rtm``; empty if it was judged itself
    judged_by: str = ""
    why_open: WhyOpen | None = None  # why it is open although more measuring would not decide it; None for all others
    # of an acceptance with which these figures pass, :data:`NO_CEILING` if there is none; None if that is the
    # upper end of ``change``
    ceiling: float | None = None
    # file and line that asserted a limit which fails, such as ``test_perf.py:12``; empty for all others
    asserted_at: str = ""

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

    def saying(self, more: str) -> Verdict:
        """The verdict with more in its reason; the same if that is empty."""
        return replace(self, reason=f"{self.reason}; {more}") if more else self

    def left_open(self, why: WhyOpen, said: str = "") -> Verdict:
        """The verdict, left open for a reason that more measuring does not remove, in the words ``said`` or its own."""
        return replace(self.saying(said or str(why)), outcome=Outcome.INCONCLUSIVE, why_open=why)

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

    @property
    def is_worse(self) -> bool:
        """Whether it is beyond the tolerance or the limit: a failure, or suspected."""
        return self.outcome is Outcome.FAIL or self.suspected


class Kind(StrEnum):
    """What came of a test that asked for ``perf``, the most urgent first."""

    TEST_ERROR = "test_error"
    INVALID = "invalid"
    REGRESSION = "regression"
    LIMIT = "limit"
    PROBABLY_SLOWER = "probably_slower"
    UNDECIDED = "undecided"
    INTERRUPTED = "interrupted"
    NOT_COMPARED = "not_compared"
    ACCEPTED = "accepted"
    PASSED = "passed"


ERRORS = (Kind.TEST_ERROR, Kind.INVALID)
"""Kinds of tests that failed without a verdict, which the gate does not let pass."""


OPEN_KINDS = (Kind.PROBABLY_SLOWER, Kind.UNDECIDED)
"""Kinds of tests whose verdicts leave it open whether they are slower; the exit codes are for undecided tests."""


class Gate(StrEnum):
    """What a failing verdict does: it fails the test, or it is only shown."""

    FAIL = "fail"
    WARN = "warn"


class Unjudged(Struct, frozen=True):
    """A kind that no verdict shows, and the reason in one line.

    It is ``test_error``, ``invalid``, ``interrupted`` or ``not_compared``.
    """

    kind: Kind
    reason: str


class LeftOut(Struct, frozen=True):
    """Why a metric was not compared."""

    words: str  # the reason
    # whether the words name the metric themselves, as they do if several metrics share them; else they are a
    # predicate, such as ``is not recorded yet``
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

    ``error``: of the test or of one of its fixtures; None if it failed without one, such as a strict xfail that passed.
    """
    return next((kind for classes, kind in _KINDS_OF_ERRORS if isinstance(error, classes)), Kind.TEST_ERROR)


def judged_kind(verdicts: Sequence[Verdict], *, passed: bool, interrupted: bool) -> Kind:
    """The kind of a test by its verdicts alone."""
    failed = [] if passed else [one.against for one in verdicts if one.outcome is Outcome.FAIL]
    if failed:
        return Kind.REGRESSION if {"baseline", "revision"} & {*failed} else Kind.LIMIT
    if interrupted:
        return Kind.INTERRUPTED
    if any(one.outcome is Outcome.INCONCLUSIVE for one in verdicts):
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
