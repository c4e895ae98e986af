"""Which metrics a comparison judges, and how: primary metrics and guards.

A primary metric passes only if it is shown to be within its tolerance. A guard fails if it is surely worse beyond its
tolerance, keeps the measurement going while its estimate is, and passes otherwise: it need not be known precisely. The
primary metrics share the probability of a false alarm. A guard has a level of its own, since an unchanged one is far
from its tolerance.

This module must not know how launches are measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, leading_time, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import LatencyPercentile, Metric, Role, times_of
from pytest_mlpatterns.analysis.statistics.intervals import min_samples
from pytest_mlpatterns.analysis.statistics.log_ratio import USUAL_PRIOR, RatioPrior
from pytest_mlpatterns.analysis.verdicts.tolerances import STORED_TAIL_FACTOR, Tolerances, accepted_ceiling
from pytest_mlpatterns.analysis.verdicts.verdicts import GUARD_ALPHA
from pytest_mlpatterns.config.settings import CountMode, Settings
from pytest_mlpatterns.records.verdict import Acceptance, LeftOut, Outcome, Verdict

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.changes.series import LaunchScatter
    from pytest_mlpatterns.analysis.metrics.metrics import Metrics

Choice = Callable[[bool], "Sequence[ComparedMetric]"]
"""Which metrics to compare, given whether the answers stream, which is known after a launch."""


def only(choice: Choice, which: Callable[[ComparedMetric], bool]) -> Choice:
    """Those metrics of a choice for which this holds."""
    return lambda streams: [one for one in choice(streams) if which(one)]


class ComparedMetric(Struct, frozen=True):
    """One metric of a comparison."""

    metric: Metric  # which one
    tolerance: float  # largest acceptable worsening
    alpha: float  # probability of failing a change exactly at the tolerance, over all interim looks
    is_guard: bool  # whether it is a guard; otherwise it is primary
    requested: bool  # whether the test requested it itself; then a comparison that is not possible is an error
    is_set: bool = False  # whether a user set the tolerance of this very metric
    accepted: Acceptance | None = None  # what allows more than the usual tolerance; None if nothing does
    usual: float = 0.0  # the tolerance without the acceptance, if there is one
    ratio_prior: RatioPrior = USUAL_PRIOR  # what the interval of an interleaved comparison starts from
    is_suspected: bool = False  # whether the baseline file saw it worse, so that it is worth the pairs to judge it
    seen_worse: bool = False  # the same on a machine that was as quick and as quiet as then: fewer pairs confirm it

    @property
    def stored_tolerance(self) -> float:
        """The tolerance against a stored baseline: wider for the tail, unless a user set it."""
        return max(self.tolerance, self.usual_beside("baseline"))

    def usual_beside(self, against: str) -> float:
        """The tolerance without an acceptance, beside a ``baseline`` or a ``revision``."""
        usual = self.tolerance if self.accepted is None else self.usual
        is_wider = against == "baseline" and self.metric.is_tail and not self.is_set
        return usual * (STORED_TAIL_FACTOR if is_wider else 1.0)


class Chosen(Struct, frozen=True):
    """The metrics of a choice, once it is known whether the answers streamed before, and do now."""

    compared: Sequence[ComparedMetric]
    left_out: Mapping[str, LeftOut]  # why metrics of streams are not among them, by label

    @classmethod
    def of(cls, choice: Choice, scatter: LaunchScatter, *, before: bool, now: bool) -> Chosen:
        """The metrics of streams if both sides stream; TTFT and those of whole answers if the present no longer does.

        Their intervals start from the scatter of this test's launches, where its history knows it.
        """
        chosen = choice(before and now)
        if before and not now:
            chosen = _with_first_content(chosen, choice(True))
        left_out: dict[str, LeftOut] = {}
        if before != now:
            why = "is not known before: the answers stream now only"
            why = "is not known: the answers no longer stream" if before else why
            names = {one.metric.name for one in chosen}
            left_out = {one.metric.label: LeftOut(why) for one in choice(True) if one.metric.name not in names}
        compared = [
            replace(one, metric=scatter.of_launches(one.metric), ratio_prior=scatter.of_ratios(one.metric))
            for one in chosen
        ]
        return cls(compared, left_out)

    @property
    def growths(self) -> list[ComparedMetric]:
        """Those that only a long load decides."""
        return [one for one in self.compared if one.metric.name in GROWTHS]

    @property
    def together(self) -> list[ComparedMetric]:
        """The others that every launch has, which the same looks decide."""
        return [one for one in self.compared if one.metric.of is not None and one.metric.name not in GROWTHS]


def compared_by_default(settings: Settings, *, streams: bool) -> tuple[Metric, ...]:
    """The metrics that every comparison of a test judges: named by ``compare=``, or the default ones.

    An open loop's schedule sets its throughput, so by default it is compared in closed loops only.
    """
    if settings.compare is not None:
        return tuple(map(metric_named, settings.compare))
    metrics = {**with_role(Role.PRIMARY, streams=streams), **with_role(Role.GUARD)}.values()
    judged = [metric for metric in metrics if streams or not metric.of_streams]
    judged = [one for one in judged if settings.count is CountMode.INSTRUCTIONS or not one.is_counted]
    return tuple(metric for metric in judged if settings.schedule.closed or not times_of(metric))


def compared_metrics(
    metrics: Iterable[Metric],
    tolerances: Tolerances,
    alpha: float,
    *,
    requested: bool,
    accepted: Sequence[Acceptance] = (),
) -> Sequence[ComparedMetric]:
    """Divide the probability of a false alarm among the primary metrics that are judged together.

    ``alpha``: probability of a false alarm of all primary ones together.
    """
    chosen = [*metrics]
    always = {Role.ALWAYS_GUARD} if requested else {Role.ALWAYS_GUARD, Role.GUARD}
    guards = {one.name for one in chosen if one.is_tail or not always.isdisjoint(one.roles)}
    primary = alpha / max(sum(one.name not in guards for one in chosen), 1)
    levels = [(one, one.name in guards, GUARD_ALPHA if one.name in guards else primary) for one in chosen]
    return [
        _with_ceiling(
            ComparedMetric(one, tolerances.of(one), level, is_guard, requested, is_set=tolerances.names(one)), accepted
        )
        for one, is_guard, level in levels
    ]


def marked_accepted(verdict: Verdict, compared: ComparedMetric | None) -> Verdict:
    """The verdict with the acceptance that decided it, or that it went beyond.

    ``compared``: how the metric was compared; None if that is not known.
    """
    if compared is None or compared.accepted is None or verdict.change is None:
        return verdict
    worse = max(verdict.change.value, verdict.ceiling or 0.0)
    if verdict.outcome is Outcome.PASS and worse > compared.usual_beside(verdict.against):
        return replace(verdict, accepted=str(compared.accepted))
    if verdict.outcome is Outcome.FAIL:
        return verdict.saying(f"accepted was {compared.accepted}")
    return verdict


def is_asked_for(compared: ComparedMetric, settings: Settings) -> bool:
    """Whether the test or ``compare=`` names the metric: then it is searched for, or its absence is reported."""
    return compared.requested or compared.metric.name in (settings.compare or ())


def _with_ceiling(compared: ComparedMetric, accepted: Sequence[Acceptance]) -> ComparedMetric:
    """The metric with the highest ceiling that is accepted, if that is above its tolerance."""
    for one in accepted:
        ceiling = accepted_ceiling(one, compared.metric)
        if ceiling is not None and ceiling > compared.tolerance:
            usual = compared.tolerance if compared.accepted is None else compared.usual
            compared = replace(compared, tolerance=ceiling, accepted=one, usual=usual)
    return compared


def _with_first_content(whole: Sequence[ComparedMetric], streams: Sequence[ComparedMetric]) -> Sequence[ComparedMetric]:
    """The metrics of whole answers, and TTFT, with which the primary ones share the probability of a false alarm."""
    names, first = {one.metric.name for one in whole}, leading_time(streams=True).name
    further = [one for one in streams if one.metric.name == first and first not in names]
    primary = sum(not one.is_guard for one in whole)
    if not further or not primary:
        return [*whole, *further]
    divided = primary / (primary + len(further))
    shared = [one if one.is_guard else replace(one, alpha=one.alpha * divided) for one in whole]
    alpha = next(one.alpha for one in shared if not one.is_guard)
    return [*(replace(one, alpha=alpha) for one in further), *shared]


def left_out_if_measured(
    compared: Iterable[ComparedMetric], measured: Metrics | None, why: LeftOut
) -> dict[str, LeftOut]:
    """The reason why metrics are not compared, by the label of each that the test measured itself.

    ``measured``: everything that was measured so far; None before the first launch.
    """
    return {} if measured is None else {one.metric.label: why for one in compared if measured.launch_values(one.metric)}


def requests_for_tails(compared: Iterable[ComparedMetric], most: float = math.inf) -> int:
    """Requests that the percentiles among the guards need, of those that need at most this many; 0 if none does."""
    kinds = [one.metric.kind for one in compared if one.is_guard]
    sizes = [min_samples(kind.percentile) for kind in kinds if isinstance(kind, LatencyPercentile)]
    return max((size for size in sizes if size <= most), default=0)
