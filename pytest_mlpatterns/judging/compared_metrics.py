"""Which metrics a comparison judges, and how: primary metrics and guards; and what it was compared with.

A primary metric passes only if it is shown to be within its tolerance. A guard fails if it is surely worse beyond its
tolerance, keeps the measurement going while its estimate is, and passes otherwise: it need not be known precisely. The
primary metrics share the probability of a false alarm. A guard has a level of its own, since an unchanged one is far
from its tolerance.

This module must not know how launches are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import leading_time, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import LatencyPercentile, Metric, Role, times_of
from pytest_mlpatterns.analysis.statistics.intervals import min_samples
from pytest_mlpatterns.analysis.statistics.log_ratio import USUAL_PRIOR, RatioPrior
from pytest_mlpatterns.analysis.verdicts.tolerances import STORED_TAIL_FACTOR, Tolerances, accepted_ceiling
from pytest_mlpatterns.analysis.verdicts.verdicts import GUARD_ALPHA
from pytest_mlpatterns.config.settings import CountMode
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.changes.series import LaunchScatter
    from pytest_mlpatterns.analysis.metrics.metrics import Metrics
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.records.count import Count
    from pytest_mlpatterns.records.result_parts import BaselineGap, Reference
    from pytest_mlpatterns.records.setup import EnvironmentFacts, FactChange
    from pytest_mlpatterns.records.verdict import Acceptance

Choice = Callable[[bool], "Sequence[ComparedMetric]"]
"""Which metrics to compare, given whether the answers stream, which is known after a launch."""


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


class Basis(Struct, frozen=True, kw_only=True):
    """What a test was compared with, and what was not compared."""

    reference: Reference | None = None  # for reports; None if nothing was compared with
    missing: str = ""  # why nothing was compared, or what the test requested and was not; empty otherwise
    left_out: Mapping[str, LeftOut] = {}  # why each metric was not compared, by its label
    gap: BaselineGap | None = None  # why there is no comparable baseline; None with one, or if none is compared with
    note: str = ""  # what a reader of the comparison has to know; empty if there is nothing
    is_interleaved: bool = False  # whether the test was measured in turns with another revision
    # what of the environment differs from the reference's, comparable or not; None if one is unknown
    facts_changed: tuple[FactChange, ...] | None = None
    counted: Count | None = None  # the instructions of a request there; None if they were not counted
    not_counted: str = ""  # why instructions cannot be counted here that would decide it: the tool that is missing
    remedy: str = ""  # what to do first so that something is compared; empty if nothing is known

    def required(self, command: str) -> str:
        """Why a test fails that has to be compared; empty if it was. ``command``: runs this test alone."""
        if not self.missing:
            return ""
        asked = "a comparison" if self.gap is None else f"one; record it: {command} --perf-baseline update"
        why, asked = (f"{self.remedy}; {self.missing}", "one") if self.remedy else (self.missing, asked)
        return f"{why}, and --perf-baseline require asks for {asked}"


def facts_of(measured: Metrics | None) -> EnvironmentFacts:
    """The environment of what was measured; empty if it is not known."""
    return {} if measured is None else next((launch.facts for launch in measured.launches if launch.facts), {})


def choose(choice: Choice, *, before: bool, now: bool) -> Sequence[ComparedMetric]:
    """The metrics to compare: for streams if both sides stream, and TTFT too if the present no longer does."""
    whole = choice(before and now)
    if not before or now:
        return whole
    names = {one.metric.name for one in whole}
    first = leading_time(streams=True).name
    further = [one for one in choice(True) if one.metric.name == first and first not in names]
    primary = sum(not one.is_guard for one in whole)
    if not further or not primary:
        return [*whole, *further]
    divided = primary / (primary + len(further))  # the primary metrics share the probability of a false alarm
    shared = [one if one.is_guard else replace(one, alpha=one.alpha * divided) for one in whole]
    alpha = next(one.alpha for one in shared if not one.is_guard)
    return [*(replace(one, alpha=alpha) for one in further), *shared]


def with_own_scatter(compared: Sequence[ComparedMetric], scatter: LaunchScatter) -> list[ComparedMetric]:
    """The same metrics, whose intervals start from the scatter of this test's launches, where its history knows it."""
    return [
        replace(one, metric=scatter.of_launches(one.metric), ratio_prior=scatter.of_ratios(one.metric))
        for one in compared
    ]


def why_left_out(choice: Choice, *, before: bool, now: bool) -> dict[str, LeftOut]:
    """Why the metrics of streams are not compared, by label, if only one side streams; arguments as above."""
    if before == now:
        return {}
    why = "is not known: the answers no longer stream" if before else "is not known before: the answers stream now only"
    whole = {one.metric.name for one in choice(False)} | ({leading_time(streams=True).name} if before else set())
    return {one.metric.label: LeftOut(why) for one in choice(True) if one.metric.name not in whole}


def left_out_if_measured(
    compared: Iterable[ComparedMetric], measured: Metrics | None, why: LeftOut
) -> dict[str, LeftOut]:
    """The reason why metrics are not compared, by the label of each that the test measured itself.

    ``measured``: everything that was measured so far; None before the first launch.
    """
    return {} if measured is None else {one.metric.label: why for one in compared if measured.launch_values(one.metric)}


def describe_left_out(left_out: Mapping[str, LeftOut]) -> str:
    """Metrics that were not compared: ``p99 latency (is not recorded yet), peak memory (is not recorded yet)``."""
    return ", ".join(f"{name} ({why})" for name, why in left_out.items())


def sizes_for_tails(compared: Iterable[ComparedMetric]) -> list[int]:
    """Requests that each percentile among the guards needs."""
    kinds = [one.metric.kind for one in compared if one.is_guard]
    return [min_samples(kind.percentile) for kind in kinds if isinstance(kind, LatencyPercentile)]
