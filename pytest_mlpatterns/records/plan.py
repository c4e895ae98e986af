"""What a plan promises: the changes of a test's metrics that a machine sees, and what it takes to see smaller ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["WANTED_CHANGES", "Advice", "Help", "MetricPlan", "Seen", "TestPlan"]

WANTED_CHANGES = (0.02, 0.05, 0.10)
"""Changes that a plan gives the budget for, as shares; each at half of itself as the tolerance."""
_ROUNDING = 1e-9
"""Twice a tolerance of 10 % is 20 %, however floats round it."""


class Help(StrEnum):
    """What makes a change visible that is not."""

    REVISION = "revision"
    """Compare with a revision, not with the file."""
    BUDGET = "budget"
    """Give more time."""
    LAUNCHES = "launches"
    """Allow more launches, and the time for them."""
    DURATION = "duration"
    """Measure longer in each launch: the scatter comes from within them."""
    CORES = "cores"
    """Give the deployment a fixed number of cores: the scatter comes from one launch to the next."""
    METRIC = "metric"
    """Judge another metric of the same test, whose tolerance is seen."""
    TOLERANCE = "tolerance"
    """Set a tolerance that is seen."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that helps.

    Attributes:
        by: what to do.
        amount: seconds of a budget, number of launches, or a tolerance as a share; None if that has none.
        metric: the other metric; empty for other advice.
    """

    by: Help
    amount: float | None = None
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one kind of comparison sees of a metric.

    Attributes:
        change: smallest worsening that fails in 95 % of runs at the test's tolerance, as a share; None if none does.
        differs_by: standard deviation from launch to launch, or of the ratio from pair to pair, as a share.
        launches: launches, or pairs of them, that the test's budget has time for.
        seen_tolerance: smallest tolerance of which twice as much is seen in that time; None if there is none.
        needed: launches for each of ``WANTED_CHANGES``; None if neither 16 launches nor 24 pairs suffice; empty if
            that is not planned, as of a percentile.
        advice: what helps if twice the tolerance is not seen; empty if it is.
    """

    change: float | None
    differs_by: float
    launches: int
    seen_tolerance: float | None
    needed: tuple[int | None, ...]
    advice: tuple[Advice, ...] = ()

    def sees(self, tolerance: float) -> bool:
        """Whether a change of twice the tolerance fails in 95 % of runs."""
        return self.change is not None and self.change <= 2 * tolerance + _ROUNDING


@dataclass(frozen=True, slots=True)
class MetricPlan:
    """What is seen of one metric.

    Attributes:
        metric: its name.
        tolerance: largest acceptable worsening, as a share.
        file: against a stored baseline; None if it is not known.
        revision: against a revision; None if it is not known.
    """

    metric: str
    tolerance: float
    file: Seen | None
    revision: Seen | None


@dataclass(frozen=True, slots=True)
class TestPlan:
    """What is seen of one test.

    Attributes:
        test: its id.
        budget_s: seconds that a comparison may measure; None if they are not known.
        recorded: launches that a baseline entry has, or will have.
        launch_s: seconds of a launch; None if that is not known.
        pair_s: seconds of a pair of launches; None if that is not known.
        launches: launches that the scatter is known from.
        pairs: paired launches that the scatter of ratios is known from; 0 if it was derived from single ones.
        sittings: runs that the launches are from.
        metrics: that are judged launch by launch.
        left_out: names of the others.
        undecided: runs of a history that were undecided, and all of them; None without a history.
    """

    __test__ = False

    test: str
    budget_s: float | None
    recorded: int
    launch_s: float | None
    pair_s: float | None
    launches: int
    pairs: int
    sittings: int
    metrics: tuple[MetricPlan, ...]
    left_out: tuple[str, ...] = field(default=())
    undecided: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as plain values; beside each comparison, whether it sees twice the tolerance."""
        plain = asdict(self)
        for metric, found in zip(plain["metrics"], self.metrics, strict=True):
            for kind in ("file", "revision"):
                seen: Seen | None = getattr(found, kind)
                if seen is not None:
                    metric[kind]["sees_tolerance"] = seen.sees(found.tolerance)
        return plain
