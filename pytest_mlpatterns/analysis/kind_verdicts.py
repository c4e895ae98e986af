"""Verdicts on launches of two kinds: each kind of the present is compared with the same kind of the reference.

The mean over both kinds changes with their shares, which chance decides, and would take fifty launches to be known.
Pure. ``benchmarks/launch_kinds_simulation.py`` counts the errors of both ways.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.launch_kinds import two_kinds
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.analysis.launch_kinds import Side, TwoKinds
    from pytest_mlpatterns.analysis.metric import Metric
    from pytest_mlpatterns.records.launch import LaunchValue
    from pytest_mlpatterns.records.verdict import Verdict

    Judge = Callable[[Sequence[LaunchValue], Sequence[LaunchValue]], Verdict]

__all__ = ["assignments", "is_expected", "judge_by_kind"]

_RARE = 0.05
"""Chance below which it is no accident that no launch was of a kind: one run in twenty stays undecided for it."""
_IMPLAUSIBLE = 0.01
"""Ratio of two chances below which the smaller one is left out: a wrong kind makes a wrong verdict."""
_USUAL_LAUNCHES = 8
"""Launches that a test may take by default, in which a kind should show itself."""


def judge_by_kind(metric: Metric, judge: Judge, *, present: Side, reference: Side) -> Verdict:
    """Compare launches with those of a reference: within its kinds if these are two, else all with all.

    Args:
        metric: what is compared.
        judge: compares launches of the present with some of the reference.
        present: the launches.
        reference: what they are compared with.
    """
    kinds = two_kinds(reference) if metric.launch_sd > 0 else None
    if kinds is not None and all(0 < one.value < math.inf for one in present.values):
        found = _KindComparison(metric, kinds, reference.values, judge).verdict(present)
        if found is not None:
            return found
    return judge(present.values, reference.values)


def is_expected(count: int, of: int) -> bool:
    """Whether a kind with this many of some launches is so common that it shows itself in eight others."""
    return (1 - count / of) ** _USUAL_LAUNCHES < _RARE


def assignments(kinds: TwoKinds, present: Side) -> list[tuple[bool, ...]]:
    """Which launches of a present sample are of the higher kind: one answer, two if both are possible, or none.

    If a figure of a layer goes with the kinds, it decides; a launch that it puts far from both is of neither. Otherwise
    both kinds may have changed by one factor. Of all divisions into lower and higher launches that one is taken for
    which the factor differs least between launches. Launches of one kind may then be of either.

    Args:
        kinds: of the reference.
        present: at least one value, all above zero.
    """
    figure = kinds.figure
    if figure is not None and len(found := present.figures.get(figure.name, ())) == len(present.values):
        return _by_figure(figure.low, figure.high, [one.value for one in found])
    logs = [math.log(one.value) for one in present.values]
    ascending = sorted(logs)

    def scatter(low: int) -> float:
        moved = [log - (kinds.distance if number >= low else 0.0) for number, log in enumerate(ascending)]
        mean = fmean(moved)
        return sum((one - mean) ** 2 for one in moved)

    best = min(range(len(logs) + 1), key=scatter)
    if best in (0, len(logs)):
        return _plausible(kinds, len(logs))
    return [tuple(log >= ascending[best] for log in logs)]


def _by_figure(low: float, high: float, values: Sequence[float]) -> list[tuple[bool, ...]]:
    if min(values) <= 0:
        return []
    place = [math.log(value / low) / math.log(high / low) for value in values]  # 0 is the lower kind, 1 the higher
    return [] if any(not -0.5 < one < 1.5 for one in place) else [tuple(one > 0.5 for one in place)]


def _plausible(kinds: TwoKinds, launches: int) -> list[tuple[bool, ...]]:
    """All launches are of one kind: of which ones that may be, by how often each was recorded."""
    chances = {high: (kinds.count(high=high) / len(kinds.is_high)) ** launches for high in (False, True)}
    likely = max(chances.values())
    return [(high,) * launches for high in (False, True) if chances[high] >= _IMPLAUSIBLE * likely]


@dataclass(frozen=True, slots=True)
class _KindComparison:
    """A comparison within the kinds of a reference.

    Attributes:
        metric: what is compared.
        kinds: of the reference.
        reference: its launches.
        judge: compares launches of the present with some of the reference.
    """

    metric: Metric
    kinds: TwoKinds
    reference: Sequence[LaunchValue]
    judge: Judge

    def verdict(self, present: Side) -> Verdict | None:
        """The verdict; None if the launches are of neither kind. Open if it depends on which kind they are of."""
        found = [self._judge(present.values, is_high) for is_high in assignments(self.kinds, present)]
        if not found:
            return None
        nearest = min(found, key=lambda one: abs(one.change.value) if one.change else 0.0)
        words = self.kinds.describe(self.metric)
        if len({one.outcome for one in found}) == 1:
            return replace(nearest, reason=f"{nearest.reason}; {words}")
        count = wording.count(len(present.values), "launch", "launches")
        why = f"{words}, and {count} of one way may be of either"
        return replace(nearest, outcome=Outcome.INCONCLUSIVE, reason=f"{nearest.reason}; {why}")

    def _judge(self, present: Sequence[LaunchValue], is_high: tuple[bool, ...]) -> Verdict:
        """The verdict if these launches are of the higher kind."""
        now = replace(self.kinds, is_high=is_high)
        of_each = [
            self.judge(mine, self.kinds.of(self.reference, high=high))
            for high in (False, True)
            if (mine := now.of(present, high=high))
        ]
        worst = max(of_each, key=lambda one: (one.outcome is Outcome.FAIL, one.change.value if one.change else 0.0))
        if len(of_each) == 1:
            return self._without_a_kind(worst, len(present), missing_high=not is_high[0])
        if worst.outcome is Outcome.FAIL:
            return worst
        both = self.judge(self._centred(present, is_high), self._centred(self.reference, self.kinds.is_high))
        is_suspected = worst.change is not None and worst.change.value > (worst.tolerance or 0.0)
        return worst if is_suspected and both.outcome is Outcome.PASS else both

    def _centred(self, values: Sequence[LaunchValue], is_high: Sequence[bool]) -> list[LaunchValue]:
        """Launches of both kinds, moved to the mean of the reference by what its kinds differ from it."""
        middle = math.exp(fmean(math.log(one.value) for one in self.reference))
        means = {False: self.kinds.low, True: self.kinds.high}
        return [replace(one, value=one.value * middle / means[high]) for one, high in zip(values, is_high, strict=True)]

    def _without_a_kind(self, verdict: Verdict, launches: int, *, missing_high: bool) -> Verdict:
        """A verdict on launches of one kind, open while the other one may come, or if the better one should have."""
        recorded, of = self.kinds.count(high=missing_high), len(self.kinds.is_high)
        value = self.metric.show(self.kinds.high if missing_high else self.kinds.low)
        count = wording.count(launches, "launch", "launches")
        why = f"none of {count} settled at {value}, as {recorded} of {of} recorded ones did"
        is_better = missing_high is (self.metric.better == "higher")
        may_come = (1 - recorded / of) ** launches >= _RARE
        is_open = is_expected(recorded, of) and (is_better or may_come)
        outcome = Outcome.INCONCLUSIVE if verdict.outcome is Outcome.PASS and is_open else verdict.outcome
        return replace(verdict, outcome=outcome, reason=f"{verdict.reason}; {why}")
