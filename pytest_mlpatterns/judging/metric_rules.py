"""The verdict on one metric beside a reference, and what the metrics of a comparison come to together.

Launches are compared with a reference's, or the ratios of paired launches judged; a guard, such as the tail,
failed requests, memory, start or sizes, by a rule of its own. A launch gives one start and takes several times as long
as it; so a comparison that only the start leaves open goes on with starts alone. Pure. This module must not know how
anything is started or measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.capacity.scaling import why_unknown
from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, leading_time, metric_named
from pytest_mlpatterns.analysis.metrics.metric import (
    FigureOfAnswers,
    LatencyPercentile,
    Location,
    Metric,
    Role,
    StreamPercentile,
)
from pytest_mlpatterns.analysis.statistics.alpha_spending import CONFIRMING_PAIRS, FEWEST_PAIRS, SequentialPlan
from pytest_mlpatterns.analysis.statistics.intervals import launch_deviation, ratio_of
from pytest_mlpatterns.analysis.statistics.log_ratio import (
    USUAL_PRIOR,
    LogRatio,
    RatioPrior,
    RatioVerdict,
    judge_ratio,
    ratio_estimate,
)
from pytest_mlpatterns.analysis.verdicts.count_comparison import (
    STORED_TAIL_ALPHA,
    TAIL_ALPHA,
    judge_failures,
    judge_tail,
    tail_ceiling,
)
from pytest_mlpatterns.analysis.verdicts.few_samples import describe_too_few, tails_left_out
from pytest_mlpatterns.analysis.verdicts.launch_kinds import PairedKinds, judge_by_kind, paired_kinds, side_of
from pytest_mlpatterns.analysis.verdicts.tolerances import judge_time, noted, present_values, with_medians
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change, judge_guard, worsening
from pytest_mlpatterns.config.settings import Settings
from pytest_mlpatterns.errors import InvalidResultError, PerfFailure, TooFewSamplesError
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric, is_asked_for
from pytest_mlpatterns.judging.look import (
    AbsentMetricError,
    Look,
    Pairs,
    Sample,
    UnknownMetricError,
    counts_of,
    late_by_block,
    values_of,
)
from pytest_mlpatterns.judging.loop import Ruling
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.verdict import LeftOut, OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import format_percent
from pytest_mlpatterns.wording import count

_FURTHER_LAUNCHES = 2  # Launches that a comparison is worth only because a percentile has too few requests


def judge_metrics(compared: Sequence[ComparedMetric], look: Look) -> Ruling:
    """A verdict for each metric that both sides have, and why the others have none."""
    verdicts: list[Verdict] = []
    left_out: dict[str, Exception] = {}
    for one in compared:
        try:
            verdicts.append(judge_metric(one, look))
        except (UnknownMetricError, InvalidResultError) as error:
            left_out[one.metric.name] = error
    return Ruling(verdicts=verdicts, left_out=left_out)


_PART_FLOOR = 0.001
"""Floor of the time to the first token, as a share of the request that it begins. Of a stream of 10,000 lines in 2 s it
was 2 ms, and differed by a third from start to start, which no reader of these lines sees."""


def _with_floor(compared: ComparedMetric, look: Look) -> ComparedMetric:
    """The same with the floor of the first part of a request, by the whole requests of the reference alone."""
    metric = compared.metric
    if compared.is_set or not isinstance(metric.kind, StreamPercentile) or metric.kind.quantity != "ttft":
        return compared
    whole = values_of(look.reference, leading_time(streams=False))
    floor = _PART_FLOOR * fmean(one.value for one in whole) if whole else 0.0
    return replace(compared, metric=replace(metric, floor=max(metric.floor, floor)))


def judge_metric(compared: ComparedMetric, look: Look) -> Verdict:
    """The verdict on one metric beside its reference."""
    compared = _with_floor(compared, look)
    metric = compared.metric
    if look.pairs is not None and Role.PAIRED in metric.roles:
        return noted(_by_ratios(compared, look, look.pairs), metric, look.present)
    if compared.is_guard:
        found = judge_guarded(compared, look.reference, look.present, against=look.against, in_flight=look.in_flight)
        is_named = metric.name == START and look.present.starts_ns
        starts = count(len(look.present.starts_ns), "further start")
        return found.saying(f"with {starts} without load") if is_named else found
    if look.checks_samples and isinstance(metric.kind, LatencyPercentile | FigureOfAnswers):
        look.present.interval_of(metric)  # raises TooFewSamplesError
    if look.present.only_at_least(metric):
        raise UnknownMetricError("is a lower bound only, since its search ended before the deployment degraded")
    return noted(_by_values(compared, look), metric, look.present)


def _by_ratios(compared: ComparedMetric, look: Look, pairs: Pairs) -> Verdict:
    """The verdict by the ratios of paired launches.

    Late requests make two sides alike: a failure stands beside them, and a pass rests on the launches without any.
    """

    def deviation(of: Metric) -> float:
        return launch_deviation(pairs.first.launch_values(of)) if pairs.ratios(of.name) else math.inf

    def ratio(of: Metric, confidence: float) -> Estimate:
        return ratio_estimate(pairs.ratios(of.name), confidence=confidence)

    def judge(by: Metric) -> Verdict:
        if not pairs.ratios(compared.metric.name):
            raise AbsentMetricError("is not known of both sides")
        before, _ = pairs.means(by.name)
        allowed = by.allowed(compared.tolerance, before, look.in_flight)
        question = RatioQuestion.of_change(by, allowed, look.plan(compared.alpha))
        question = replace(question, equivalence=not compared.is_guard, prior=compared.ratio_prior)
        return question.change(pairs, tolerance=compared.tolerance, confirming=confirming_pairs(compared))

    found = judge_time(compared.metric, deviation, judge=judge, ratio=ratio)
    late = next((one.late for one in pairs.launches if one.late is not None), None)
    if late is None or found.outcome is not Outcome.PASS or Role.INDEPENDENT_OF_LATENCY in compared.metric.roles:
        return found
    punctual = pairs.punctual
    if len(punctual.launches) >= look.looks.first:
        return _by_ratios(compared, replace(look, pairs=punctual), punctual)
    return found.left_open(late, f"but {late}, which makes both sides alike")


def _by_values(compared: ComparedMetric, look: Look) -> Verdict:
    """The verdict by the launches of both sides."""
    metric = compared.metric

    def before(of: Metric) -> Sequence[LaunchValue]:
        return values_of(look.reference, of)

    def now(of: Metric) -> Sequence[LaunchValue]:
        return present_values(look.present, of, before(of))

    def deviation(of: Metric) -> float:
        return launch_deviation(before(of)) if now(of) else math.inf

    def ratio(of: Metric, confidence: float) -> Estimate:
        return ratio_of(now(of), before(of), metric.launch_sd, confidence=confidence)

    def judge(by: Metric) -> Verdict:
        judged = replace(by, launch_sd=metric.launch_sd, sd_degrees=metric.sd_degrees)  # of the same launches
        present, reference = now(judged), before(judged)
        _require_known(judged, look, present=present, reference=reference)
        plan = look.plan(compared.alpha, len(reference))
        change = partial(
            judge_change,
            judged,
            tolerance=compared.tolerance,
            plan=plan,
            launches=len(present),
            in_flight=look.in_flight,
        )
        mine, other = side_of(present, look.present.launch_values), side_of(reference, before)
        return judge_by_kind(judged, change, present=mine, reference=other)

    found = judge_time(metric, deviation, judge=judge, ratio=ratio)
    return replace(with_medians(found, metric, before=before(metric), now=now(metric)), against=look.against)


def _require_known(
    metric: Metric, look: Look, *, present: Sequence[LaunchValue], reference: Sequence[LaunchValue]
) -> None:
    """Refuse a metric that a side does not have."""
    if look.pairs is not None and not (present and reference):
        raise AbsentMetricError("is not known of both sides")
    why = "" if present else why_unknown(metric.name, look.present.indices.missing)
    if not reference and not why:
        raise UnknownMetricError("is not recorded yet; record it: --perf-baseline update")
    if not present:
        raise AbsentMetricError(f"is not known for {look.pattern}{why and f': {why}'}")


def confirming_pairs(compared: ComparedMetric) -> int:
    """Pairs that a failure rests on: fewer if the file saw it too, or of what no slow way of launches worsens."""
    has_ways = Role.PAIRED in compared.metric.roles or compared.metric.is_tail
    return CONFIRMING_PAIRS if has_ways and not compared.seen_worse else FEWEST_PAIRS


def rule_pairs(compared: Sequence[ComparedMetric], look: Look) -> Ruling:
    """What the metrics of an interleaved run come to together, and whether another pair or start may change it."""
    assert look.pairs is not None
    found, done = judge_metrics(compared, look), len(look.pairs.launches)
    waits = any(
        one.requested or one.is_suspected or launches_for_tail(error.needed, error.found, done) > done
        for one in compared
        if isinstance(error := found.left_out.get(one.metric.name), TooFewSamplesError)
    )
    failed = {verdict.metric for verdict in found.verdicts if verdict.outcome is Outcome.FAIL}
    if not waits and is_left_to_starts(found.verdicts):
        return replace(found, wants="start")
    wants_more = waits or any(one.outcome is Outcome.INCONCLUSIVE for one in found.verdicts)
    if failed:
        wants_more = done < min(confirming_pairs(one) for one in compared if one.metric.name in failed)
    return replace(found, wants="pair" if wants_more else None)


def require_requested(found: Ruling, compared: Sequence[ComparedMetric], *, beside: str) -> None:
    """Refuse a comparison without a metric that the test requested; ``beside``: what it was to be judged beside."""
    for one in compared:
        if one.requested and (error := found.left_out.get(one.metric.name)) is not None:
            why = _left_out_by(error).of("it")
            raise PerfFailure(f"assert_no_regression cannot judge {one.metric.label} against {beside}: {why}") from None


def why_not_compared(
    left_out: Mapping[str, Exception], compared: Sequence[ComparedMetric], look: Look, *, settings: Settings
) -> dict[str, LeftOut]:
    """Why metrics are not compared, by label; a guard that this system never has is not worth a note."""
    notes: dict[str, LeftOut] = {}
    tails = tails_left_out([one.metric for one in compared], look.present, paired=look.pairs is not None)
    for one in compared:
        if (error := left_out.get(one.metric.name)) is None:
            continue
        why = _left_out_by(error)
        if isinstance(error, TooFewSamplesError):
            duration_ns = settings.duration_ns if settings.requests is None else None
            few = describe_too_few(error, duration_ns) if look.pairs is None else why
            why = tails.get(one.metric.label, few)
        # short windows of pairs know no growth; that they know another guard of one side only is worth a note
        may_be_absent = one.is_guard and (look.pairs is None or one.metric.name in GROWTHS)
        if is_asked_for(one, settings) or not (may_be_absent and isinstance(error, AbsentMetricError)):
            notes[one.metric.label] = why
    return notes


def _left_out_by(error: Exception) -> LeftOut:
    return LeftOut(str(error), is_sentence=not isinstance(error, UnknownMetricError))


def launches_for_tail(needed: int, found: int, launches: int) -> int:
    """Launches after which a percentile has enough requests; ``launches`` if that takes over two further ones.

    A few much slower requests show in the tail alone, so a comparison waits for it if that takes little.

    ``needed``: requests that the percentile needs.
    """
    wanted = math.ceil(needed * launches / max(found, 1))
    return wanted if launches < wanted <= launches + _FURTHER_LAUNCHES else launches


def judge_guarded(
    compared: ComparedMetric,
    reference: Sample,
    present: Sample,
    *,
    against: Literal["baseline", "revision"],
    in_flight: int | None,
) -> Verdict:
    """Judge one guard.

    Each look has the level of its rule (``GUARD_ALPHA``, ``COUNT_ALPHA``, ``TAIL_ALPHA``, ``STORED_TAIL_ALPHA``) for a
    change exactly at the tolerance. An unchanged metric is far from it; ``benchmarks/verdict_simulation.py`` counts the
    false alarms of all.
    """
    metric, tolerance = compared.metric, compared.tolerance
    if not metric.is_tail and not metric.counts_failures:
        judge = partial(judge_guard, metric, tolerance=tolerance, in_flight=in_flight)
        return replace(_judge_values(metric, reference, present, against=against, judge=judge), against=against)
    then, now = counts_of(reference, metric), counts_of(present, metric)
    if not then:
        raise UnknownMetricError("is not recorded yet")
    if not any(one.requests for one in now):
        raise AbsentMetricError("is not known")
    if metric.counts_failures:
        return replace(judge_failures(then, now, tolerance=tolerance), against=against)
    alpha = STORED_TAIL_ALPHA if against == "baseline" else TAIL_ALPHA
    by_block = (late_by_block(reference, metric), late_by_block(present, metric))
    found = judge_tail(then, now, metric=metric, tolerance=tolerance, alpha=alpha, by_block=by_block)
    usual, ceiling = min(compared.usual_beside(against), tolerance), None
    if found.outcome is not Outcome.PASS or usual < tolerance:  # otherwise it passes without an acceptance
        ceiling = tail_ceiling(then, now, metric=metric, tolerance=usual, alpha=alpha, by_block=by_block)
    return replace(found, against=against, ceiling=ceiling)


def _judge_values(
    metric: Metric, reference: Sample, present: Sample, *, against: str, judge: Callable[..., Verdict]
) -> Verdict:
    """The verdict on a metric that each launch has one value of."""
    before, now = values_of(reference, metric), values_of(present, metric)
    if not before:
        recorded = against == "baseline" and metric.name not in GROWTHS  # short windows do not always know a growth
        raise UnknownMetricError("is not recorded yet") if recorded else AbsentMetricError("is not known of both sides")
    if not now:
        raise AbsentMetricError("is not known")
    if metric.name == START and against == "revision" and len(before) == len(now):
        return judge(now, before, paired=True)  # both sides start side by side
    mine, other = side_of(now, partial(values_of, present)), side_of(before, partial(values_of, reference))
    return judge_by_kind(metric, judge, present=mine, reference=other)


START = "cold_start"  # Metric that each start of a deployment gives, loaded or not


def is_left_to_starts(verdicts: Iterable[Verdict]) -> bool:
    """Whether the start is the only metric that is open, and no metric has failed.

    A start that is surely beyond its tolerance, and left open because the machine may explain it, needs a quieter
    machine and not another start.
    """
    found = {verdict.metric: verdict for verdict in verdicts if verdict.outcome is not Outcome.PASS}
    start = found.get(START)
    if len(found) != 1 or start is None or start.outcome is Outcome.FAIL:
        return False
    return start.change is None or start.change.low <= (start.tolerance or 0.0)


_LEAST = 1e-9  # Smallest limit on a ratio of rates, since 0 has no logarithm


class RatioQuestion(Struct, frozen=True):
    """One metric of a run, and the limit of the ratio second/first."""

    metric: Metric
    limit: float  # of the ratio
    better: Literal["lower", "higher"]  # whether a lower or a higher ratio is better
    plan: SequentialPlan  # the interim looks
    equivalence: bool = True  # whether a PASS has to be shown; False for a guard
    prior: RatioPrior = USUAL_PRIOR  # what the interval starts from

    @classmethod
    def of_change(cls, metric: Metric, allowed: float, plan: SequentialPlan) -> RatioQuestion:
        """Whether the second side is worse than the first by more than a share."""
        limit = 1 + allowed if metric.better == "lower" else max(1 - allowed, _LEAST)
        return cls(metric, limit, metric.better, plan)

    def verdict(self, ratios: Sequence[LogRatio], since: int = 1) -> RatioVerdict:
        """The verdict on these ratios, of the looks from ``since`` launches on."""
        plan = replace(self.plan, since=since)
        return judge_ratio(ratios, self.limit, self.better, plan=plan, prior=self.prior, equivalence=self.equivalence)

    def change(self, pairs: Pairs, *, tolerance: float, confirming: int) -> Verdict:
        """The verdict on the change of the metric, within the kinds of launches if these are two.

        ``confirming``: pairs that a failure rests on.
        """
        verdict, kinds = self._without_kinds(pairs, confirming)
        judged = change_verdict(self, verdict, pairs, tolerance=tolerance)
        return judged if kinds is None else _with_kinds(judged, kinds.describe(self.metric))

    def _without_kinds(self, pairs: Pairs, confirming: int) -> tuple[RatioVerdict, PairedKinds | None]:
        """The verdict on paired launches, and their kinds if these are two."""
        ratios = pairs.ratios(self.metric.name)
        first, second = (
            side_of([LaunchValue(value, 0.0) for value in values], metrics.launch_values)
            for values, metrics in zip(pairs.figures(self.metric.name), (pairs.first, pairs.second), strict=True)
        )
        kinds = paired_kinds(ratios, first, second)
        if kinds is None:
            verdict = self.verdict(ratios)
            is_early = verdict.outcome is Outcome.FAIL and verdict.launches < confirming <= len(ratios)
            return (self.verdict(ratios, since=confirming) if is_early else verdict), None
        judge = partial(self.verdict, since=min(len(ratios), self.plan.last))
        return kinds.verdict(judge, better=self.metric.better, tolerance=abs(self.limit - 1)), kinds


def _with_kinds(verdict: Verdict, words: str) -> Verdict:
    """The verdict with the kinds of its launches, which leave it open if its interval does not."""
    change, tolerance = verdict.change, verdict.tolerance or 0.0
    contains = change is not None and change.low <= tolerance < change.high
    if verdict.outcome is Outcome.INCONCLUSIVE and not contains:
        return verdict.left_open(WhyOpen(OpenBy.KINDS, words))
    return verdict.saying(words)


def change_verdict(question: RatioQuestion, verdict: RatioVerdict, pairs: Pairs, *, tolerance: float) -> Verdict:
    """The verdict on a ratio as one on a change, with its reason in words."""
    metric = question.metric
    printed = pairs.printed(metric.name, verdict)
    change = worsening(metric, verdict.judged)
    word, low, high = ("worse", change.low, change.high) if change.value >= 0 else ("better", -change.high, -change.low)
    by_floor = abs(question.limit - 1) > tolerance + _LEAST and change.high > tolerance
    floor = f"; changes up to {metric.floor_text} do not count" if by_floor else ""
    reason = (
        f"{metric.label} {pairs.named(metric.name, printed)}: {format_percent(abs(change.value))} {word} "
        f"({format_percent(low, signed=True)} to {format_percent(high, signed=True)}); "
        f"tolerance {format_percent(tolerance)}{floor}; {pairs.measured(verdict)}"
    )
    found = Verdict(metric.name, "revision", verdict.outcome, reason, change, tolerance, *printed)
    if not isinstance(metric.kind, Location):
        return found
    own = metric_named(metric.kind.stands_for)
    medians = " against ".join(map(own.show, pairs.means(own.name)))
    reason += f"; {own.label} {medians}"
    return replace(found, metric=own.name, reason=reason, judged_by=metric.name)
