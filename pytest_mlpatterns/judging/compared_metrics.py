"""Which metrics a comparison judges, and how: primary metrics and guards; and what every comparison answers.

A primary metric passes only if it is shown to be within its tolerance. A guard fails if it is surely worse beyond its
tolerance, keeps the measurement going while its estimate is, and passes otherwise: it need not be known precisely. The
primary metrics share the probability of a false alarm. A guard has a level of its own, since an unchanged one is far
from its tolerance.

A service that no longer streams still has a TTFT, that of the whole answer, which is the first content that its callers
see. So TTFT is judged beside the metrics of whole answers. A tail that has too few samples is left out, and the
reports name what it would take. This module must not know how launches are measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import geometric_mean
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import (
    LOCATIONS,
    comparable_metrics,
    is_comparable,
    leading_time,
    metric_named,
    with_role,
)
from pytest_mlpatterns.analysis.metrics.metric import (
    LatencyPercentile,
    Location,
    Metric,
    Role,
    StreamPercentile,
    times_of,
)
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric
from pytest_mlpatterns.analysis.statistics.intervals import min_samples
from pytest_mlpatterns.analysis.statistics.log_ratio import USUAL_PRIOR, RatioPrior
from pytest_mlpatterns.analysis.verdicts.tolerances import STORED_TAIL_FACTOR, Tolerances, accepted_ceiling
from pytest_mlpatterns.analysis.verdicts.verdicts import GUARD_ALPHA
from pytest_mlpatterns.errors import SettingError, TooFewSamplesError
from pytest_mlpatterns.judging.sequential import SPARE_REQUESTS, SequentialMeasurement
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict
from pytest_mlpatterns.units import format_count, format_duration
from pytest_mlpatterns.wording import did_you_mean, listed, shown

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.changes.series import LaunchScatter
    from pytest_mlpatterns.analysis.metrics.metrics import Metrics
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.launch import LaunchValue
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


def read_metrics(names: Sequence[str], argument: str) -> list[Metric]:
    """The metrics of a comparison, by name.

    ``argument``: where they come from, for messages; ``...`` in it is replaced.
    """
    known = comparable_metrics()
    for name in names if isinstance(names, list | tuple | set | frozenset) else [names]:
        if name is names or not is_comparable(name):
            hint = did_you_mean(name, known) if isinstance(name, str) else ""
            found = argument.replace("...", shown(names))
            raise SettingError(f"{found}, {hint}expected a tuple of {', '.join(known)}")
    return [metric_named(name) for name in names]


def compared_by_default(settings: Settings, *, streams: bool) -> tuple[Metric, ...]:
    """The metrics that every comparison of a test judges: those of ``compare=``, or the default ones.

    The throughput of an open loop is that of its schedule, so by default it is compared in closed loops only.
    """
    if settings.compare is not None:
        return tuple(map(metric_named, settings.compare))
    metrics = {**with_role(Role.PRIMARY, streams=streams), **with_role(Role.GUARD)}.values()
    judged = [metric for metric in metrics if streams or not metric.of_streams]
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
    always = Role.ALWAYS_GUARD
    roles = [
        (one, always in one.roles or one.is_tail or (not requested and Role.GUARD in one.roles)) for one in metrics
    ]
    primary = alpha / max(sum(not is_guard for _, is_guard in roles), 1)
    compared = [
        ComparedMetric(
            metric,
            tolerances.of(metric),
            GUARD_ALPHA if is_guard else primary,
            is_guard,
            requested,
            is_set=tolerances.names(metric),
        )
        for metric, is_guard in roles
    ]
    return [_with_ceiling(one, accepted) for one in compared]


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
        return replace(verdict, reason=f"{verdict.reason}; accepted was {compared.accepted}")
    return verdict


def is_asked_for(compared: ComparedMetric, settings: Settings) -> bool:
    """Whether the test or ``compare=`` names the metric: then it is searched for, or its absence is reported."""
    return compared.requested or compared.metric.name in (settings.compare or ())


def _with_ceiling(compared: ComparedMetric, accepted: Sequence[Acceptance]) -> ComparedMetric:
    """The metric with the highest ceiling that is accepted, if that is above its tolerance."""
    known = [(ceiling, one) for one in accepted if (ceiling := accepted_ceiling(one, compared.metric)) is not None]
    ceiling, acceptance = max(known, key=lambda pair: pair[0], default=(0.0, None))
    if acceptance is None or ceiling <= compared.tolerance:
        return compared
    return replace(compared, tolerance=ceiling, accepted=acceptance, usual=compared.tolerance)


class Basis(Struct, frozen=True, kw_only=True):
    """What a test was compared with, and what was not compared."""

    reference: Reference | None = None  # for reports; None if nothing was compared with
    missing: str = ""  # why nothing was compared, or what the test requested and was not; empty otherwise
    left_out: Mapping[str, LeftOut] = {}  # why each metric was not compared, by its label
    gap: BaselineGap | None = None  # why there is no comparable baseline; None with one, or if none is compared with
    note: str = ""  # what a reader of the comparison has to know; empty if there is nothing
    is_interleaved: bool = False  # whether the test was measured in turns with another revision
    # what of the environment differs from that of the reference, comparable or not; None if one is unknown
    facts_changed: tuple[FactChange, ...] | None = None
    remedy: str = ""  # what to do first so that something is compared; empty if nothing is known

    def required(self, command: str) -> str:
        """Why a test fails that has to be compared; empty if it was. ``command``: runs this test alone."""
        if not self.missing:
            return ""
        asked = "a comparison" if self.gap is None else f"one; record it: {command} --perf-baseline update"
        why, asked = (f"{self.remedy}; {self.missing}", "one") if self.remedy else (self.missing, asked)
        return f"{why}, and --perf-baseline require asks for {asked}"


class Comparison(Protocol):
    """What compares one test with what it was.

    Attributes:
        alpha: probability of a false alarm of a comparison, over all interim looks and metrics.
        kind: of the reference.
    """

    alpha: float
    kind: Literal["baseline", "revision"]

    @property
    def basis(self) -> Basis:
        """What was compared with so far, and what was not compared."""

    def judge(self, choice: Choice) -> Sequence[Verdict]:
        """Compare the metrics of a choice, and measure as much as that takes.

        Args:
            choice: those that are known on one side only are left out, and :attr:`basis` names them; if the test
                requested one of them itself, that is an error.

        Returns:
            One verdict for each metric that could be compared.

        Raises:
            DeploymentError: a deployment did not start, or died.
            InvalidResultError: the measurement supports no verdict.
            PerfFailure: a metric that the test requested cannot be compared.
        """


def facts_of(measured: Metrics | None) -> EnvironmentFacts:
    """The environment of what was measured; empty if it is not known."""
    return {} if measured is None else next((launch.facts for launch in measured.launches if launch.facts), {})


def choose(choice: Choice, *, before: bool, now: bool) -> Sequence[ComparedMetric]:
    """The metrics to compare: those of streams if both sides stream, and TTFT too if the present no longer does."""
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


def present_values(present: Metrics, metric: Metric, before: Sequence[LaunchValue]) -> Sequence[LaunchValue]:
    """A metric in the launches of the present; of a service that no longer streams, TTFT is that of whole answers.

    ``before``: the metric in the launches of the reference; empty if it is not known.
    """
    found = present.comparable_values(metric)
    whole = _of_whole_answers(metric)
    return present.comparable_values(whole) if not found and before and whole is not None else found


def noted(verdict: Verdict, metric: Metric, present: Metrics) -> Verdict:
    """A verdict with a note if it judges the TTFT of a service that no longer streams."""
    if present.streams or _of_whole_answers(metric) is None:
        return verdict
    why = "the answers no longer stream, so the first content is the whole answer"
    return replace(verdict, reason=f"{verdict.reason}; {why}")


def failed_by_whole_answers(verdicts: Sequence[Verdict], entry: Entry, present: Metrics) -> frozenset[str]:
    """Names of the metrics that fail on any machine, since the answers no longer stream.

    These are the TTFT verdicts for which the whole answers of the baseline itself took too long.
    """
    if present.streams:
        return frozenset()
    return frozenset(
        verdict.metric
        for verdict in verdicts
        if verdict.metric == leading_time(streams=True).name
        and (whole := _of_whole_answers(metric_named(verdict.figure))) is not None
        and (values := [one.value for one in entry.metrics.get(whole.name, ()) if one.value > 0])
        and geometric_mean(values) > (verdict.reference_value or 0.0) * (1 + (verdict.tolerance or 0.0))
    )


def _of_whole_answers(metric: Metric) -> Metric | None:
    """The same figure of whole answers, if it is one of TTFT; None for other metrics."""
    first = leading_time(streams=True).name
    match metric.kind:
        case Location(stands_for) if stands_for == first:
            return LOCATIONS[leading_time(streams=False).name]
        case StreamPercentile(quantity, percentile) if quantity == first:
            return percentile_metric(percentile)
    return None


_NAMED = 4  # Metrics that the sentence names as judged: as many as are read at a glance


def describe_too_few(error: TooFewSamplesError, duration_ns: int) -> LeftOut:
    """What a percentile needs, and the window that gives it: ``needs 459 requests, there were 300 (duration="5s")``."""
    if not error.found:
        return LeftOut(str(error), is_sentence=True)
    window = _longer(duration_ns, error.needed, error.found)
    return LeftOut(f"needs {error.needed:,} requests, there were {error.found:,} ({window})")


def describe_left_out(left_out: Mapping[str, LeftOut]) -> str:
    """Metrics that were not compared: ``p99 latency (is not recorded yet), peak memory (is not recorded yet)``."""
    return ", ".join(f"{name} ({why})" for name, why in left_out.items())


def tails_left_out(compared: Sequence[Metric], present: Metrics) -> dict[str, LeftOut]:
    """Why percentiles are not judged, by their labels: one sentence for all that need more requests than there were."""
    tails = _beyond(compared, present.requests)
    if not tails or not present.requests:
        return {}
    duration_ns = present.launches[-1].window.duration_ns
    window = _longer(duration_ns, max(tails.values()), present.requests)
    why = LeftOut(f"{_sentence(tails, present)} ({window})", is_sentence=True)
    return dict.fromkeys(tails, why)


def announce_tails(experiment: Experiment, measurement: SequentialMeasurement, compared: Sequence[Metric]) -> None:
    """Report the percentiles that even all launches of the budget cannot judge, as the launches so far show.

    ``measurement``: at least one launch.
    """
    present = measurement.metrics
    launches = len(present.launches)
    tails = _beyond(compared, math.floor(present.requests * measurement.reachable_launches / launches))
    if not tails or not present.requests:
        return
    open_yet = _beyond(compared, present.requests)
    others = [metric.label for metric in compared if metric.label not in open_yet]
    named = ", ".join([*others[:_NAMED], *(["…"] if len(others) > _NAMED else [])])
    judged = f"; judged are {named}" if others else ""
    experiment.driver.on_note(f"{_sentence(tails, present)}{judged}")


def sizes_for_tails(compared: Iterable[ComparedMetric]) -> list[int]:
    """Requests that each percentile among the guards needs."""
    kinds = [one.metric.kind for one in compared if one.is_guard]
    return [min_samples(kind.percentile) for kind in kinds if isinstance(kind, LatencyPercentile)]


def _beyond(compared: Sequence[Metric], requests: int) -> dict[str, int]:
    """The requests that percentiles need which need more of them, by label, the lowest first."""
    whole = [(one.percentile, one.label) for one in compared if one.is_tail or isinstance(one.kind, LatencyPercentile)]
    return {label: needed for percentile, label in sorted(whole) if (needed := min_samples(percentile)) > requests}


def _sentence(needed: Mapping[str, int], present: Metrics) -> str:
    """What they need: ``at 4.0 answers a second p95 latency needs 23 s and p99 latency needs 115 s``."""
    window_ns = sum(launch.window.duration_ns for launch in present.launches)
    times_ns = {label: size * window_ns / present.requests for label, size in needed.items()}
    needs = [f"{label} needs {format_duration(math.ceil(time_ns / 1e9) * 1e9)}" for label, time_ns in times_ns.items()]
    return f"at {format_count(present.requests * 1e9 / window_ns)} answers a second {listed(needs)}"


def _longer(duration_ns: int, needed: int, found: int) -> str:
    """The window with enough requests, if all launches so far had too few."""
    return f'duration="{math.ceil(SPARE_REQUESTS * duration_ns / 1e9 * needed / found)}s"'
