"""Launches that settle in one of two ways for their whole life, such as batches of 8 or of 16 inputs.

The mean of such launches shows how often each way came, which chance decides, and its interval is as wide as the ways
are apart. So the ways are recognised, named by the figure of the layer that goes with them, and compared one by one.
Both sides of a pair settle by themselves. Pure; it must not know limits or baselines.
``benchmarks/launch_kinds_simulation.py`` counts the errors. Also: ``judging/dropped_launches.py`` says which launches
do not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.statistics.distributions import excess_chance
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD
from pytest_mlpatterns.analysis.statistics.log_ratio import RATIO_SD, LogRatio, RatioVerdict
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import Unit

Judge = Callable[[Sequence[LaunchValue], Sequence[LaunchValue]], Verdict]

_FEWEST_LAUNCHES = 4  # Fewest launches whose two kinds are distinguished from scatter
_FEWEST_OF_A_KIND = 2  # Launches that make a kind; a single one that differs may have been disturbed
_LEAST_APART = 0.10
"""Smallest distance of two kinds, on the logarithm: closer ones are within the scatter of ordinary launches."""
_APART, _APART_PER_LAUNCH, _LEAST_DEVIATIONS = 11.4, 0.5, 6.4
"""Distance of two kinds in standard deviations within them: 9.4 for four launches, 6.4 from ten on. Less than 1 % of
samples of one kind that scatter by 1.7 to 8 % show it (by simulation, normal and with heavy tails)."""
_FIGURE_APART = 1.25  # Least ratio of a layer's figure in two kinds for which it names them
_ENOUGH_OF_A_KIND = 3
"""Launches of each kind that a baseline should hold: fewer do not show how much launches of one kind differ."""
_WHOLE = 3  # Count from which its decimals are left out
_NAMING = ("batch_size", "cache_hit_ratio")  # Figures of a layer that name a kind, the first one that goes with it


class Side(Struct, frozen=True):
    """The launches of one side of a comparison: a metric in each, and figures of their layers by name."""

    values: Sequence[LaunchValue]
    figures: Mapping[str, Sequence[LaunchValue]] = {}


class LayerFigure(Struct, frozen=True):
    """A figure of a layer that goes with the kinds: its metric, and its mean of the faster and the slower kind."""

    name: str
    low: float
    high: float


class TwoKinds(Struct, frozen=True):
    """Launches in two groups by a metric."""

    is_high: tuple[bool, ...]  # for each launch, whether it is of the kind with the higher values
    low: float  # geometric mean of the lower kind
    high: float  # of the higher kind
    scatter: float  # sum of squares of the logarithms within both
    figure: LayerFigure | None = None  # what goes with them; None if nothing is known to

    @property
    def distance(self) -> float:
        """How far the kinds are apart, on the logarithm."""
        return math.log(self.high / self.low)

    def count(self, *, high: bool) -> int:
        """Number of launches of one kind."""
        return self.is_high.count(high)

    def of(self, values: Sequence[LaunchValue], *, high: bool) -> list[LaunchValue]:
        """The launches of one kind."""
        return [value for value, is_high in zip(values, self.is_high, strict=True) if is_high is high]

    def exceeds(self, tolerance: float, better: str) -> bool:
        """Whether the worse kind is worse than the other one by more than a tolerance."""
        return (self.high / self.low - 1 if better == "lower" else 1 - self.low / self.high) > tolerance

    def shifted(self, shift: Shift, metric: Metric) -> str:
        """In words: ``the worse way came more often: 9 of 12 launches ran at 22.4 ms, before 0 of 12``."""
        launches = wording.count(shift.of_now, "launch", "launches")
        value = metric.show(self.high if metric.better == "lower" else self.low)
        return (
            f"the worse way came more often: {shift.now} of {launches} ran at {value}, before {shift.before} of "
            f"{shift.of_before}"
        )

    def describe(self, metric: Metric) -> str:
        """The kinds in words: ``launches run in one of two ways: batches of 8 (22.0 ms) or 16 (16.0 ms)``."""
        low, high = metric.show(self.low), metric.show(self.high)
        if self.figure is None:
            return f"launches run in one of two ways: {low} or {high}"
        named = METRICS[self.figure.name]
        is_count = named.unit is Unit.COUNT
        shown = [
            f"{f'{figure:.0f}' if is_count and figure >= _WHOLE else named.show(figure)} ({value})"
            for figure, value in sorted([(self.figure.low, low), (self.figure.high, high)])
        ]
        label = "batches of" if self.figure.name == "batch_size" else named.label
        return f"launches run in one of two ways: {label} {' or '.join(shown)}"


def side_of(values: Sequence[LaunchValue], read: Callable[[Metric], Sequence[LaunchValue]]) -> Side:
    """A side of a comparison. ``read``: gives any other metric of the same launches; empty if it is not known."""
    return Side(values, {name: read(METRICS[name]) for name in _NAMING})


def two_kinds(side: Side) -> TwoKinds | None:
    """The two kinds of launches of a sample; None if it may be of one.

    The launches are divided where the scatter within both groups is smallest. The groups are kinds if each has two
    launches, and the means of their logarithms are apart by ``11.4 - n/2`` standard deviations within them, n being the
    number of launches, and by 6.4 at least.
    """
    values = side.values
    if (is_high := _division(values, _FEWEST_OF_A_KIND)) is None:
        return None
    kinds = [
        [math.log(value.value) for value, one in zip(values, is_high, strict=True) if one is high]
        for high in (False, True)
    ]
    low, high = (math.exp(fmean(logs)) for logs in kinds)
    return TwoKinds(is_high, low, high, sum(map(_scatter, kinds)), _figure_of(is_high, side.figures))


def _figure_of(is_high: Sequence[bool], figures: Mapping[str, Sequence[LaunchValue]]) -> LayerFigure | None:
    """The figure of a layer that divides the launches as their kinds do; None if none does."""
    for name in _NAMING:
        values = [one.value for one in figures.get(name, ())]
        if len(values) != len(is_high):
            continue
        low, high = (
            [value for value, one in zip(values, is_high, strict=True) if one is side] for side in (False, True)
        )
        smaller, larger = sorted((low, high), key=fmean)
        if max(smaller) < min(larger) and fmean(larger) >= _FIGURE_APART * fmean(smaller):
            return LayerFigure(name, fmean(low), fmean(high))
    return None


def wants_more_launches(values: Sequence[LaunchValue]) -> bool:
    """Whether a baseline should be recorded from more launches: they may be of two kinds, and one of these has few.

    A single launch far from the others may be of a second kind, or disturbed.
    """
    is_high = _division(values, 1)
    return is_high is not None and min(is_high.count(False), is_high.count(True)) < _ENOUGH_OF_A_KIND


def _division(values: Sequence[LaunchValue], fewest: int) -> tuple[bool, ...] | None:
    """Which launches are of the higher kind; None if all may be of one."""
    size = len(values)
    if size < _FEWEST_LAUNCHES or min(value.value for value in values) <= 0:
        return None
    logs = [math.log(value.value) for value in values]
    ascending = sorted(logs)
    splits = range(fewest, size - fewest + 1)
    split = min(splits, key=lambda at: _scatter(ascending[:at]) + _scatter(ascending[at:]))
    below, above = ascending[:split], ascending[split:]
    within = math.sqrt((_scatter(below) + _scatter(above)) / (size - 2))
    apart = fmean(above) - fmean(below)
    deviations = max(_APART - _APART_PER_LAUNCH * size, _LEAST_DEVIATIONS)
    if above[0] <= below[-1] or apart < max(_LEAST_APART, deviations * max(within, LAUNCH_SD)):
        return None
    return tuple(log >= above[0] for log in logs)


def _scatter(logs: Sequence[float]) -> float:
    """Sum of squares around the mean."""
    mean = fmean(logs)
    return sum((log - mean) ** 2 for log in logs)


_RARE = 0.05
"""Chance below which it is no accident that no launch was of a kind: one run in twenty stays undecided for it."""
_IMPLAUSIBLE = 0.01  # Ratio of two chances below which the smaller one is left out: a wrong kind makes a wrong verdict
_USUAL_LAUNCHES = 8  # Launches that a test may take by default, in which a kind should show itself
_SURELY = 0.005
"""Chance of as many launches of the worse kind, or more, below which it is a change that it came more often. Over all
looks at pairs of an unchanged service it is met in at most 0.4 % of runs."""
_ENOUGH_TO_GUESS = 6
"""Pairs that a failure rests on whose ways no figure names: two more, as they show the ways and their distance too."""
_SIGN = 0.25  # The same below which nothing passes: unchanged sides even out with more launches


def judge_by_kind(metric: Metric, judge: Judge, *, present: Side, reference: Side) -> Verdict:
    """Compare launches with a reference's: within its kinds if these are two, else all with all."""
    kinds = two_kinds(reference) if metric.launch_sd > 0 else None
    if kinds is not None and all(0 < one.value < math.inf for one in present.values):
        found = _KindComparison(metric, kinds, reference.values, judge).verdict(present)
        if found is not None:
            return found
    return judge(present.values, reference.values)


def is_expected(count: int, of: int) -> bool:
    """Whether a kind with this many of some launches is so common that it shows itself in eight others."""
    return (1 - count / of) ** _USUAL_LAUNCHES < _RARE


class Shift(Struct, frozen=True):
    """How many launches of the worse kind came on both sides of a comparison."""

    now: int  # of the present
    of_now: int  # its launches
    before: int  # of the reference
    of_before: int  # its launches

    @classmethod
    def between(cls, before: Sequence[bool], now: Sequence[bool], *, better: str) -> Shift:
        """That of launches of which each is of the higher kind or not."""
        worse = better == "lower"
        return cls([*now].count(worse), len(now), [*before].count(worse), len(before))

    @property
    def chance(self) -> float:
        """The chance of as many now, or more, if nothing changed."""
        return excess_chance(self.now, self.of_now, before=self.before, of_before=self.of_before)

    def outcome(self, within: Outcome, worsening: float, tolerance: float) -> Outcome:
        """The outcome of a comparison that has this one within the kinds.

        FAIL if the worse kind surely came more often than before, no PASS while it may. The launches together show it:
        if they are not worse, what looks like a kind is their scatter.
        """
        chance = self.chance
        if within is Outcome.FAIL or (chance < _SURELY and worsening > tolerance):
            return Outcome.FAIL
        return Outcome.INCONCLUSIVE if within is Outcome.PASS and chance < _SIGN and worsening > 0 else within


def assignments(kinds: TwoKinds, present: Side) -> list[tuple[bool, ...]]:
    """Which launches of a present sample are of the higher kind: one answer, several if they are possible, or none.

    If a figure of a layer goes with the kinds, it decides; a launch that it puts far from both is of neither. Otherwise
    both kinds may have changed by one factor. With r the scatter within the kinds of n launches of the reference, and s
    that of the factor over m present ones, a division into lower and higher ones has, beside the best, the chance
    ``((r + least s) / (r + s)) ** ((n - 2 + m) / 2)``.

    ``present``: at least one value, all above zero.
    """
    figure = kinds.figure
    if figure is not None and len(found := present.figures.get(figure.name, ())) == len(present.values):
        return _by_figure(figure.low, figure.high, [one.value for one in found])
    logs = [math.log(one.value) for one in present.values]
    ascending, degrees = sorted(logs), len(kinds.is_high) - 2
    within = max(kinds.scatter, degrees * LAUNCH_SD**2)
    left = [
        within + _scatter([log - (kinds.distance if number >= low else 0.0) for number, log in enumerate(ascending)])
        for low in range(len(logs) + 1)
    ]
    possible = [(min(left) / one) ** ((degrees + len(logs)) / 2) >= _IMPLAUSIBLE for one in left]
    divided = [tuple(log >= ascending[low] for log in logs) for low in range(1, len(logs)) if possible[low]]
    return [*divided, *(_plausible(kinds, len(logs)) if possible[0] else [])]


def _by_figure(low: float, high: float, values: Sequence[float]) -> list[tuple[bool, ...]]:
    """By the figure of a layer: a ratio counts, but for a share that is 0, such as a cache's that never hit."""
    if min(low, high, *values) > 0:
        low, high, *values = map(math.log, (low, high, *values))
    place = [(value - low) / (high - low) for value in values]  # 0 is the lower kind, 1 the higher
    return [] if any(not -0.5 < one < 1.5 for one in place) else [tuple(one > 0.5 for one in place)]


def _plausible(kinds: TwoKinds, launches: int) -> list[tuple[bool, ...]]:
    """All launches are of one kind: of which ones that may be, by how often each was recorded."""
    chances = {high: (kinds.count(high=high) / len(kinds.is_high)) ** launches for high in (False, True)}
    likely = max(chances.values())
    return [(high,) * launches for high in (False, True) if chances[high] >= _IMPLAUSIBLE * likely]


class _KindComparison(Struct, frozen=True):
    """A comparison within the kinds of a reference."""

    metric: Metric  # what is compared
    kinds: TwoKinds  # of the reference
    reference: Sequence[LaunchValue]  # its launches
    judge: Judge  # compares launches of the present with some of the reference

    def verdict(self, present: Side) -> Verdict | None:
        """The verdict; None if the launches are of neither kind. Open if it depends on which kind they are of."""
        found = [
            self._with_shift(self._judge(present.values, is_high), present.values, is_high)
            for is_high in assignments(self.kinds, present)
        ]
        if not found:
            return None
        nearest = min(found, key=lambda one: abs(one.change.value) if one.change else 0.0)
        words = self.kinds.describe(self.metric)
        if len({one.outcome for one in found}) == 1:
            return nearest.saying(words)
        count = wording.count(len(present.values), "launch", "launches")
        why = f"{words}, and {count} of one way may be of either"
        return nearest.left_open(WhyOpen(OpenBy.KINDS, why))

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

    def _with_shift(self, found: Verdict, present: Sequence[LaunchValue], is_high: tuple[bool, ...]) -> Verdict:
        """A verdict within the kinds, as it is if the worse kind came no more often, or is within the tolerance."""
        shift = Shift.between(self.kinds.is_high, is_high, better=self.metric.better)
        whole, tolerance = self.judge(present, self.reference), found.tolerance or 0.0
        outcome = shift.outcome(found.outcome, 0.0 if whole.change is None else whole.change.value, tolerance)
        if outcome is found.outcome or not self.kinds.exceeds(tolerance, self.metric.better):
            return found
        why = self.kinds.shifted(shift, self.metric)
        if outcome is Outcome.INCONCLUSIVE:
            return found.left_open(WhyOpen(OpenBy.KINDS, why))
        return replace(whole.saying(why), outcome=outcome)

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
        why = f"none of {count} ran at {value}, as {recorded} of {of} recorded ones did"
        is_better = missing_high is (self.metric.better == "higher")
        may_come = (1 - recorded / of) ** launches >= _RARE
        is_open = is_expected(recorded, of) and (is_better or may_come)
        if verdict.outcome is Outcome.PASS and is_open:
            return verdict.left_open(WhyOpen(OpenBy.KINDS, why))
        return verdict.saying(why)


class PairedAnswer(Struct, frozen=True):
    """Paired launches, if these are the kinds of their sides."""

    ratios: Sequence[LogRatio]  # without the part that is due to the kinds
    first: Sequence[bool]  # for each launch of the first side, whether it is of the higher kind
    second: Sequence[bool]  # the same of the second side

    def lost(self, *, high: bool) -> bool:
        """Whether no launch of the second side is of a kind that is common on the first."""
        return high not in self.second and is_expected(list(self.first).count(high), len(self.first))


class PairedKinds(Struct, frozen=True):
    """The kinds of paired launches."""

    kinds: TwoKinds  # of the side in which they were seen, the first one if in both
    ratios: Sequence[LogRatio]  # with the part of the kinds
    answers: tuple[PairedAnswer, ...]  # two if the launches of one side may be of either kind

    def verdict(
        self, judge: Callable[[Sequence[LogRatio]], RatioVerdict], *, better: str, tolerance: float
    ) -> RatioVerdict:
        """The verdict on the ratios without the part of the kinds.

        It is open if it depends on which kind launches are of, or if the second side passes but lost the better kind or
        may have the worse one more often. If it surely has, that is a FAIL, on the ratios with the part of the kinds.

        ``judge``: judges ratios. ``tolerance``: of kinds that differ by no more it does not count how often they came.
        """
        found = [judge(answer.ratios) for answer in self.answers]
        nearest = min(found, key=lambda one: abs(math.log(one.judged.value)))
        lost = any(answer.lost(high=better == "higher") for answer in self.answers)
        is_guess = self.kinds.figure is None and len(self.ratios) < _ENOUGH_TO_GUESS
        doubted = {Outcome.PASS: lost, Outcome.FAIL: is_guess}.get(nearest.outcome)
        if doubted or len({one.outcome for one in found}) > 1:
            nearest = replace(nearest, outcome=Outcome.INCONCLUSIVE)
        whole = judge(self.ratios)
        worsening = whole.judged.value - 1 if better == "lower" else 1 - whole.judged.value
        outcome = self._shift(better).outcome(nearest.outcome, worsening, tolerance)
        if outcome is nearest.outcome or not self.kinds.exceeds(tolerance, better):
            return nearest
        return replace(whole if outcome is Outcome.FAIL else nearest, outcome=outcome)

    def _shift(self, better: str) -> Shift:
        """The smallest one of those that may be."""
        shifts = [Shift.between(answer.first, answer.second, better=better) for answer in self.answers]
        return max(shifts, key=lambda one: one.chance)

    def describe(self, metric: Metric) -> str:
        """The kinds in words, and if one side has more of the worse one than chance gives, how many."""
        shift, words = self._shift(metric.better), self.kinds.describe(metric)
        return f"{words}; {self.kinds.shifted(shift, metric)}" if shift.chance < _SIGN else words


def paired_kinds(ratios: Sequence[LogRatio], first: Side, second: Side) -> PairedKinds | None:
    """The ratios of paired launches whose sides are of two kinds; None if no side is seen to be.

    With h = 1 for a launch of the higher kind, else 0, each ratio is ``d + g (h2 - h1)`` plus scatter: d is the change,
    and g, how far the kinds are apart, is fitted by least squares and subtracted. Its standard error is added to that
    of each pair of different kinds.
    """
    ours, theirs = two_kinds(first), two_kinds(second)
    if (known := ours or theirs) is None:
        return None
    if ours is not None and theirs is not None:
        pairs = [(ours.is_high, theirs.is_high)]
    elif ours is not None:
        pairs = [(ours.is_high, other) for other in assignments(ours, second)]
    else:
        pairs = [(other, known.is_high) for other in assignments(known, first)]
    answers = tuple(PairedAnswer(_without_kinds(ratios, *pair), *pair) for pair in pairs)
    return PairedKinds(known, ratios, answers) if answers else None


def _without_kinds(ratios: Sequence[LogRatio], first: Sequence[bool], second: Sequence[bool]) -> list[LogRatio]:
    apart = np.array(second, dtype=float) - np.array(first, dtype=float)
    values = np.array([one.value for one in ratios])
    spread = float(((apart - apart.mean()) ** 2).sum())
    if not spread:  # every pair is of one kind
        return list(ratios)
    slope = float(((apart - apart.mean()) * values).sum()) / spread
    left = values - slope * apart
    scatter = float(((left - left.mean()) ** 2).sum()) / max(len(ratios) - 2, 1)
    error = math.sqrt(max(scatter, RATIO_SD**2) / spread)
    return [
        LogRatio(float(value), math.hypot(one.error, error * abs(moved)))
        for value, one, moved in zip(left, ratios, apart.tolist(), strict=True)
    ]
