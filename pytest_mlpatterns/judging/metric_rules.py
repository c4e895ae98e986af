"""The verdict on one metric beside a reference, and what the metrics of a comparison come to together.

Launches are compared with a reference's, or the ratios of paired launches judged; a guard, such as the tail,
failed requests, memory, start or sizes, by a rule of its own. A launch gives one start and takes several times as long
as it; so a comparison that only the start leaves open goes on with starts alone. Pure. This module must not know how
anything is started or measured.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.capacity.scaling import why_unknown
from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS
from pytest_mlpatterns.analysis.metrics.metric import FigureOfAnswers, LatencyPercentile, Metric, Role
from pytest_mlpatterns.analysis.statistics.alpha_spending import CONFIRMING_PAIRS, FEWEST_PAIRS
from pytest_mlpatterns.analysis.statistics.intervals import launch_deviation, ratio_of
from pytest_mlpatterns.analysis.statistics.log_ratio import ratio_estimate
from pytest_mlpatterns.analysis.verdicts.count_comparison import (
    STORED_TAIL_ALPHA,
    TAIL_ALPHA,
    judge_failures,
    judge_tail,
    tail_ceiling,
)
from pytest_mlpatterns.analysis.verdicts.few_samples import describe_too_few, tails_left_out
from pytest_mlpatterns.analysis.verdicts.launch_kinds import judge_by_kind, side_of
from pytest_mlpatterns.analysis.verdicts.tolerances import judge_time, with_medians
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change, judge_guard
from pytest_mlpatterns.analysis.verdicts.whole_answers import noted, present_values
from pytest_mlpatterns.errors import InvalidResultError, PerfFailure, TooFewSamplesError
from pytest_mlpatterns.judging.compared_metrics import is_asked_for
from pytest_mlpatterns.judging.look import AbsentMetricError, Look, MeasuredSample, Sample, UnknownMetricError
from pytest_mlpatterns.judging.loop import Ruling
from pytest_mlpatterns.judging.ratio_rules import RatioQuestion
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
    from pytest_mlpatterns.records.launch import Estimate, LaunchValue

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


def judge_metric(compared: ComparedMetric, look: Look) -> Verdict:
    """The verdict on one metric beside its reference."""
    metric = compared.metric
    if look.has_ratios(metric):
        return noted(_judge_by(_Ratios(compared, look)), metric, look.present)
    if compared.is_guard:
        sides = look.reference, MeasuredSample(look.present)
        found = judge_guarded(compared, *sides, against=look.against, in_flight=look.in_flight)
        return with_starts_named(found, len(look.present.starts_ns))
    if look.checks_samples and isinstance(metric.kind, LatencyPercentile | FigureOfAnswers):
        look.present.interval_of(metric)  # raises TooFewSamplesError
    if look.present.only_at_least(metric):
        raise UnknownMetricError("is a lower bound only, since its search ended before the deployment degraded")
    known = _Values(compared, look)
    verdict = with_medians(_judge_by(known), metric, before=known.before(metric), now=known.now(metric))
    return noted(replace(verdict, against=look.against), metric, look.present)


def _judge_by(known: _Ratios | _Values) -> Verdict:
    return judge_time(known.compared.metric, known.deviation, judge=known.judge, ratio=known.ratio)


class _Ratios(Struct, frozen=True):
    """One metric by the ratios of paired launches."""

    compared: ComparedMetric
    look: Look

    def deviation(self, of: Metric) -> float:
        """By how much launches of the reference deviate; infinite if one side does not know it."""
        assert self.look.pairs is not None
        values = self.look.pairs.first.launch_values(of)
        return launch_deviation(values) if self.look.pairs.ratios(of.name) else math.inf

    def ratio(self, of: Metric, confidence: float) -> Estimate:
        """The present over the reference."""
        assert self.look.pairs is not None
        return ratio_estimate(self.look.pairs.ratios(of.name), confidence=confidence)

    def judge(self, by: Metric) -> Verdict:
        """The verdict by one statistic."""
        compared, look = self.compared, self.look
        assert look.pairs is not None
        if not look.pairs.ratios(compared.metric.name):
            raise AbsentMetricError("is not known of both sides")
        before, _ = look.pairs.means(by.name)
        allowed = by.allowed(compared.tolerance, before, look.in_flight)
        question = RatioQuestion.of_change(by, allowed, look.plan(compared.alpha))
        question = replace(question, equivalence=not compared.is_guard, prior=compared.ratio_prior)
        return question.change(look.pairs, tolerance=compared.tolerance, confirming=confirming_pairs(compared))


class _Values(Struct, frozen=True):
    """One metric by the launches of both sides."""

    compared: ComparedMetric
    look: Look

    def before(self, of: Metric) -> Sequence[LaunchValue]:
        """Its launches of the reference."""
        return self.look.reference.values(of)

    def now(self, of: Metric) -> Sequence[LaunchValue]:
        """Its launches of the present."""
        return present_values(self.look.present, of, self.before(of))

    def deviation(self, of: Metric) -> float:
        """By how much launches of the reference deviate; infinite if one side does not know it."""
        return launch_deviation(self.before(of)) if self.now(of) else math.inf

    def ratio(self, of: Metric, confidence: float) -> Estimate:
        """The present over the reference."""
        return ratio_of(self.now(of), self.before(of), self.compared.metric.launch_sd, confidence=confidence)

    def judge(self, by: Metric) -> Verdict:
        """The verdict by one statistic."""
        metric, look = self.compared.metric, self.look
        judged = replace(by, launch_sd=metric.launch_sd, sd_degrees=metric.sd_degrees)  # of the same launches
        now, before = self._known(judged)
        change = partial(
            judge_change,
            judged,
            tolerance=self.compared.tolerance,
            plan=look.plan(self.compared.alpha, len(before)),
            launches=len(now),
            in_flight=look.in_flight,
        )
        mine, other = side_of(now, look.present.launch_values), side_of(before, look.reference.values)
        return judge_by_kind(judged, change, present=mine, reference=other)

    def _known(self, of: Metric) -> tuple[Sequence[LaunchValue], Sequence[LaunchValue]]:
        """The values of both sides, if both have some."""
        now, before = self.now(of), self.before(of)
        if self.look.pairs is not None and not (now and before):
            raise AbsentMetricError("is not known of both sides")
        why = "" if now else why_unknown(of.name, self.look.present.indices.missing)
        if not before and not why:
            raise UnknownMetricError("is not recorded yet; record it: --perf-baseline update")
        if not now:
            raise AbsentMetricError(f"is not known for {self.look.pattern}{why and f': {why}'}")
        return now, before


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
    tails = tails_left_out([one.metric for one in compared], look.present)
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
    then, now = reference.counts_for(metric), present.counts_for(metric)
    if not then:
        raise UnknownMetricError("is not recorded yet")
    if not any(one.requests for one in now):
        raise AbsentMetricError("is not known")
    ceiling: float | None = None
    if metric.counts_failures:
        found = judge_failures(then, now, tolerance=tolerance)
    else:
        alpha = STORED_TAIL_ALPHA if against == "baseline" else TAIL_ALPHA
        found = judge_tail(then, now, metric=metric, tolerance=tolerance, alpha=alpha)
        usual = min(compared.usual_beside(against), tolerance)
        if found.outcome is not Outcome.PASS or usual < tolerance:  # otherwise it passes without an acceptance
            ceiling = tail_ceiling(then, now, metric=metric, tolerance=usual, alpha=alpha)
    value = found.present_value if math.isfinite(found.present_value) else None
    figures = (found.change, tolerance, found.reference_value, value)
    return Verdict(metric.name, against, found.outcome, found.reason, *figures, ceiling=ceiling)


def _judge_values(
    metric: Metric, reference: Sample, present: Sample, *, against: str, judge: Callable[..., Verdict]
) -> Verdict:
    """The verdict on a metric that each launch has one value of."""
    values = _values_of_both(metric, reference, present, against=against)
    if metric.name == START and against == "revision" and len(values[0]) == len(values[1]):
        return judge(*values, paired=True)  # both sides start side by side
    mine, other = (side_of(known, side.values) for known, side in zip(values, (present, reference), strict=True))
    return judge_by_kind(metric, judge, present=mine, reference=other)


def _values_of_both(
    metric: Metric, reference: Sample, present: Sample, *, against: str
) -> tuple[Sequence[LaunchValue], Sequence[LaunchValue]]:
    """The values of the present and of the reference."""
    if not reference.values(metric):
        recorded = against == "baseline" and metric.name not in GROWTHS  # short windows do not always know a growth
        raise UnknownMetricError("is not recorded yet") if recorded else AbsentMetricError("is not known of both sides")
    if not present.values(metric):
        raise AbsentMetricError("is not known")
    return present.values(metric), reference.values(metric)


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


def with_starts_named(verdict: Verdict, starts: int) -> Verdict:
    """The verdict on the start, with the number of further starts that it rests on."""
    is_named = verdict.metric == START and starts
    return verdict.saying(f"with {count(starts, 'further start')} without load") if is_named else verdict
