"""Verdicts on interleaved runs: a service beside another one, and the present beside another revision.

:class:`SideComparison` measures and judges the former; the ``judge_`` functions measure until their question is
decided. This module must not know how variants are started, nor pytest.
"""

from __future__ import annotations

import math
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.health.machine import why_busy
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import USUAL_TOLERANCE, Location, Metric, Role
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import (
    CONFIRMING_PAIRS,
    FEWEST_PAIRS,
    REVISION_ALPHA,
    SequentialPlan,
    looks_of_pairs,
    looks_that_fit,
)
from pytest_mlpatterns.analysis.statistics.intervals import launch_deviation
from pytest_mlpatterns.analysis.statistics.log_ratio import (
    USUAL_PRIOR,
    PairedLaunch,
    RatioPrior,
    judge_ratio,
    ratio_estimate,
)
from pytest_mlpatterns.analysis.verdicts.launch_kinds import PairedKinds, judge_by_kind, paired_kinds, side_of
from pytest_mlpatterns.analysis.verdicts.open_reasons import failed_together
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances, judge_time, median_text
from pytest_mlpatterns.analysis.verdicts.verdicts import SampleSize, judge_change
from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.errors import InvalidResultError, SettingError, TooFewSamplesError
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric, noted, present_values
from pytest_mlpatterns.judging.guards import (
    MOST_STARTS,
    AbsentMetricError,
    MeasuredSample,
    UnknownMetricError,
    is_left_to_starts,
    judge_guarded,
    launches_for_tail,
    with_starts_named,
    without_start,
)
from pytest_mlpatterns.measurement.answer_check import AnswerComparison, Side
from pytest_mlpatterns.measurement.variant import StartedDeployments
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import format_percent, parse_number, parse_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, PairedCapacity, RatioVerdict
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.other_side import OtherSide
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun
    from pytest_mlpatterns.measurement.launch import LaunchRunner

_LEAST = 1e-9  # Smallest limit on a ratio of rates, since 0 has no logarithm


class Factor(Struct, frozen=True):
    """How many times as fast one side has to be as the other."""

    on: str  # one of the metrics with the role ``FACTOR``; a lower RTM is faster
    least: float  # smallest acceptable factor
    margin: float | None = None  # how many times as slow it may be, if that was asked; None if it has to be faster

    @classmethod
    def faster(cls, on: object, by: object, *, method: str) -> Factor:
        """One side is ``by`` times as fast as the other; ``method`` names the assertion in messages."""
        times = parse_number(by, name=f"{method}(by=...)", example="2.0")
        if not times:
            given = wording.shown(by)
            raise SettingError(f"{method}(by={given}), expected more than 0, which any service is; write 2.0")
        return cls(_read_on(on, method), times)

    @classmethod
    def not_slower(cls, on: object, by: object, tolerances: Tolerances, *, method: str) -> Factor:
        """One side is slower than the other by at most the margin ``by``; None is the tolerance of the metric."""
        name = _read_on(on, method)
        margin = tolerances.of(name) + 1 if by is None else _read_margin(by, f"{method}(by=...)")
        return cls(name, 1 / margin, margin)

    def looks(self, budget_ns: int) -> SequentialPlan:
        """When the launches are judged. Two services within a margin take as many as a comparison with a revision."""
        if self.on == "nmrt":
            return SequentialPlan(first=2, last=8)
        if self.margin is None:
            return SequentialPlan(first=3, last=8)
        return looks_of_pairs(self.margin - 1, REVISION_ALPHA, budget_ns)

    @property
    def words(self) -> str:
        """What is at least reached, in a sentence."""
        if self.margin is None:
            return f"{self.least:g}"
        share = self.margin - 1
        allowed = f"{self.margin:g} times as slow" if share >= 1 else f"{format_percent(share)} slower"
        return f"{self.least:.3g} (at most {allowed})"


class SideComparison:
    """Measures one test's service beside another one.

    ``difference``: the first answers of both sides that differed in the last comparison; empty if they did not.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement, runner: LaunchRunner) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._runner = runner
        self.difference: str = ""

    def decide(self, other: OtherSide, factor: Factor) -> Verdict | None:
        """Measure both sides until the factor is decided; None in a smoke run, which asks both once.

        Raises Exception: any that the check raises, for answers of either side.
        """
        plan = self._experiment.plan
        answers = AnswerComparison(Side(other.own, plan), Side(other.variant.name, other.variant.plan))
        look = answers.look if other.answers_alike else None
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            with StartedDeployments([other.variant]) as (theirs,):
                if look is not None:
                    look(self._runner.deployment, theirs)
            self.difference = answers.difference
            return None
        self._runner.close()  # both sides need the machine to themselves
        run = self._experiment.interleave(self._experiment.variant(other.own), other.variant, look)
        self._measurement.watch(run)
        neighbours = self._experiment.settings.noise is not NoisePolicy.TRUST
        verdict = judge_factor(run, factor, budget_ns=self._measurement.time_of(run), neighbours=neighbours)
        self.difference = answers.difference
        verdict = replace(verdict, against=other.kind)
        return replace(verdict, reason=f"{verdict.reason}; {self.difference}") if self.difference else verdict


def _read_on(on: object, method: str) -> str:
    """The name of the metric that is compared."""
    known = with_role(Role.FACTOR)
    if not isinstance(on, str) or on not in known:
        expected = ", ".join(map(repr, known))
        raise SettingError(f"{method}(on={wording.shown(on)}), expected one of {expected}")
    return on


def _read_margin(by: object, name: str) -> float:
    """The margin as a factor of time."""
    if isinstance(by, str) and by.strip().endswith("%"):
        return 1 + parse_ratio(by, name=name)
    factor = parse_number(by, name=name, example='"10%"')
    if factor < 1:
        raise SettingError(
            f"{name} is {wording.shown(by)}, expected a share as text or a factor of at least 1; "
            'write "10%", or 2.0 for twice the time'
        )
    return factor


def judge_factor(run: InterleavedRun, asked: Factor, *, budget_ns: int, neighbours: bool) -> Verdict:
    """Measure until it is decided whether the first variant is faster than the second by the asked factor.

    ``run``: an interleaved run of the test's side and the other, in that order. ``asked``: the factor. ``neighbours``:
    whether busy neighbours leave a missed factor open. Raises does.
    """
    on, by = asked.on, asked.least
    lower = METRICS[on].better == "lower"
    looks = asked.looks(budget_ns)
    question = _Question(on, by if lower else 1 / by, "higher" if lower else "lower", looks)
    busy = None
    if on == "nmrt":
        run.decide_nmrt(lambda found: question.verdict(found).outcome, budget_ns, max_launches=looks.last)
        verdict = question.verdict(run.capacities)
    else:
        factor = _FactorJudge(run, question, doubted=neighbours and by > 1)
        run.decide(lambda _found: factor.outcome(), budget_ns, max_launches=looks.last)
        verdict, busy = factor.verdict()
    faster = (
        verdict.judged if lower else Estimate(1 / verdict.judged.value, 1 / verdict.judged.high, 1 / verdict.judged.low)
    )
    figures = _figures(run, on, _printed(run, on, verdict))
    reason = (
        f"{METRICS[on].label} {figures}: {faster.value:.3g} times as fast ({faster.low:.3g} to {faster.high:.3g}), "
        f"which {verdict.outcome.verb} at least {asked.words}; {_measured(run, verdict)}"
    )
    found = Verdict(on, "pattern", verdict.outcome, reason)
    if not busy:
        return found
    return found.left_open(WhyOpen(OpenBy.MACHINE, busy), f"but {busy} meanwhile, which makes both sides alike")


class _Question(Struct, frozen=True):
    """One metric of a run, and the limit of the ratio second/first."""

    metric: str  # its name
    limit: float  # of the ratio
    better: Literal["lower", "higher"]  # whether a lower or a higher ratio is better
    plan: SequentialPlan  # the interim looks
    equivalence: bool = True  # whether a PASS has to be shown; False for a guard
    prior: RatioPrior = USUAL_PRIOR  # what the interval starts from

    def ratios(self, found: Sequence[PairedLaunch] | Sequence[PairedCapacity]) -> list[LogRatio]:
        """The ratios of the launches in which both variants have the metric."""
        return _ratios(self.metric, found)

    def verdict(self, found: Sequence[PairedLaunch] | Sequence[PairedCapacity]) -> RatioVerdict:
        return self.of_ratios(self.ratios(found))

    def of_ratios(self, ratios: Sequence[LogRatio], since: int = 1) -> RatioVerdict:
        """The verdict on these ratios, of the looks from ``since`` launches on."""
        plan = replace(self.plan, since=since)
        return judge_ratio(ratios, self.limit, self.better, plan=plan, prior=self.prior, equivalence=self.equivalence)


class _FactorJudge(Struct, frozen=True):
    """How many times as fast one variant is as the other.

    Neighbours do not make the slower variant the faster one, but waiting for a core takes both equally long, and so the
    factor shrinks. A missed factor therefore rests on quiet launches alone.
    """

    run: InterleavedRun  # measures both variants
    question: _Question  # what is asked of its launches
    doubted: bool  # whether busy neighbours leave a missed factor open

    def outcome(self) -> Outcome:
        """The outcome of all launches so far."""
        verdict, busy = self.verdict()
        return Outcome.INCONCLUSIVE if busy else verdict.outcome

    def verdict(self) -> tuple[RatioVerdict, str | None]:
        """The verdict on all launches so far; and what disturbed them, if that leaves a missed factor open."""
        run = self.run
        verdict = self.question.verdict(run.launches)
        if verdict.outcome is not Outcome.FAIL or not self.doubted:
            return verdict, None
        sides = run.first_launches, run.second_launches
        quiet = [found for found, *pair in zip(run.launches, *sides, strict=True) if not why_busy(pair)]
        if len(quiet) >= self.question.plan.first:
            return self.question.verdict(quiet), None
        return verdict, why_busy([*sides[0], *sides[1]])


def judge_no_slower(
    run: InterleavedRun, compared: Sequence[ComparedMetric], *, budget_ns: int
) -> tuple[tuple[Verdict, ...], dict[str, Exception]]:
    """Measure until it is decided whether the second variant is worse than the first beyond the tolerance.

    A change counts only if it also exceeds the metric's absolute floor. Latency, throughput and CPU time are
    ratios of neighbouring blocks; the others compare the launches of both variants. NMRT is judged from searches of its
    own; see :func:`judge_nmrt_no_lower`.

    ``run``: an interleaved run of the reference and the present, in that order. ``compared``: any metrics except NMRT,
    at least one. Returns A verdict for each metric that both variants have; and why the others have none, by the
    metric's name. Raises does.
    """
    tolerance = min((one.tolerance for one in compared if not one.is_guard), default=USUAL_TOLERANCE)
    looks = looks_of_pairs(tolerance, REVISION_ALPHA, budget_ns)
    judge = _RevisionJudge(run, compared, looks, budget_ns=budget_ns)
    run.decide(judge.outcome, budget_ns, max_launches=looks.last)
    while judge.waits_for_starts and run.start_again(budget_ns, most=MOST_STARTS):
        judge.outcome(run.launches)
    verdicts, why_not = judge.verdicts()
    return tuple(failed_together(verdicts) if len(run.launches) >= CONFIRMING_PAIRS else verdicts), why_not


def judge_growths(
    run: InterleavedRun, compared: Sequence[ComparedMetric], *, budget_ns: int
) -> tuple[tuple[Verdict, ...], dict[str, Exception]]:
    """Judge the growth of memory, descriptors and threads over the launches of a run; measures if there are none yet.

    A failing verdict is a suspicion only; see :mod:`pytest_mlpatterns.judging.leaks`.
    """
    if not run.launches:
        run.measure_first(budget_ns)
    judge = _RevisionJudge(run, compared, SequentialPlan(first=1, last=1))
    judge.outcome(run.launches)
    return judge.verdicts()


def judge_nmrt_no_lower(run: InterleavedRun, compared: ComparedMetric, *, budget_ns: int) -> Verdict:
    """Measure until it is decided whether the NMRT of the second variant is lower than the first's.

    ``run``: an interleaved run of the reference and the present, in that order.
    """
    plan = SequentialPlan(first=2, last=8, alpha=compared.alpha, pass_alpha=REVISION_ALPHA)
    question = _Question("nmrt", max(1 - compared.tolerance, _LEAST), "higher", plan)
    run.decide_nmrt(lambda found: question.verdict(found).outcome, budget_ns, max_launches=plan.last)
    verdict = question.verdict(run.capacities)
    return _change_verdict(question, verdict, tolerance=compared.tolerance, run=run)


class _RevisionJudge:
    """Judges all metrics of a comparison with a revision after every paired launch.

    ``budget_ns``: time that leaves out those looks for which it is too short; None if it leaves out none.
    """

    def __init__(
        self,
        run: InterleavedRun,
        compared: Sequence[ComparedMetric],
        looks: SequentialPlan,
        *,
        budget_ns: int | None = None,
    ) -> None:
        self._looks = looks
        self._budget_ns = budget_ns
        self.waits_for_starts: bool = False
        self._run = run
        self._compared = compared
        self._found: dict[str, Verdict] = {}
        self._why_not: dict[str, Exception] = {}

    def outcome(self, found: Sequence[PairedLaunch]) -> Outcome:
        """The outcome of all metrics together after these launches."""
        if self._budget_ns is not None and len(found) == self._looks.first:
            self._looks = looks_that_fit(self._looks, self._budget_ns, self._run.spent_s / len(found))
        self._found, self._why_not = {}, {}
        waits = False
        both = metrics_of(self._run)
        for one in self._compared:
            try:
                self._found[one.metric.name] = self._judge(one, found, both=both)
            except TooFewSamplesError as error:
                self._why_not[one.metric.name] = error
                waits = waits or one.requested or launches_for_tail(error.needed, error.found, len(found)) > len(found)
            except (UnknownMetricError, InvalidResultError) as error:
                self._why_not[one.metric.name] = error
        self.waits_for_starts = not waits and is_left_to_starts(self._found.values())
        outcomes = {verdict.outcome for verdict in without_start([*self._found.values()])}
        failed = {name for name, verdict in self._found.items() if verdict.outcome is Outcome.FAIL}
        if failed:
            least = min(_confirming(one) for one in self._compared if one.metric.name in failed)
            return Outcome.FAIL if len(found) >= least else Outcome.INCONCLUSIVE
        return Outcome.INCONCLUSIVE if waits or Outcome.INCONCLUSIVE in outcomes else Outcome.PASS

    def verdicts(self) -> tuple[tuple[Verdict, ...], dict[str, Exception]]:
        """The verdicts of the last look, and why some metrics have none, by name."""
        return tuple(self._found.values()), self._why_not

    def _judge(
        self, compared: ComparedMetric, found: Sequence[PairedLaunch], *, both: tuple[Metrics, Metrics]
    ) -> Verdict:
        first, second = both
        metric, tolerance = compared.metric, compared.tolerance
        if Role.PAIRED in metric.roles:
            return noted(self._judge_pairs(compared, found, both=both), metric, second)
        if compared.is_guard:
            samples = MeasuredSample(first), MeasuredSample(second)
            judged = judge_guarded(compared, *samples, against="revision", in_flight=self._run.in_flight)
            return with_starts_named(judged, len(second.starts_ns))
        before = first.comparable_values(metric)
        now = present_values(second, metric, before)
        if not before or not now:
            raise AbsentMetricError("is not known of both sides")
        size = SampleSize(len(found), second.blocks)
        judge = partial(judge_change, metric, tolerance=tolerance, plan=self._plan_of(compared), size=size)
        present, reference = side_of(now, second.launch_values), side_of(before, first.launch_values)
        judged = judge_by_kind(metric, judge, present=present, reference=reference)
        return noted(replace(judged, against="revision"), metric, second)

    def _judge_pairs(
        self, compared: ComparedMetric, found: Sequence[PairedLaunch], *, both: tuple[Metrics, Metrics]
    ) -> Verdict:
        def ratios(of: Metric) -> list[LogRatio]:
            return _ratios(of.name, found)

        def judge(by: Metric) -> Verdict:
            question = self._question(compared, by)
            verdict, kinds = _without_kinds(question, found, both, confirming=_confirming(compared))
            judged = _change_verdict(question, verdict, tolerance=compared.tolerance, run=self._run)
            return judged if kinds is None else _with_kinds(judged, kinds.describe(by))

        if not ratios(compared.metric):
            raise AbsentMetricError("is not known of both sides")
        return judge_time(
            compared.metric,
            lambda of: launch_deviation(both[0].launch_values(of)) if ratios(of) else math.inf,
            judge=judge,
            ratio=lambda of, confidence: ratio_estimate(ratios(of), confidence=confidence),
        )

    def _plan_of(self, compared: ComparedMetric) -> SequentialPlan:
        return replace(self._looks, alpha=compared.alpha, pass_alpha=REVISION_ALPHA)

    def _question(self, compared: ComparedMetric, metric: Metric) -> _Question:
        """What is asked of the launches: a comparison, judged by this metric."""
        plan, equivalence = self._plan_of(compared), not compared.is_guard
        before, _ = _means(metric.name, self._run.launches)
        allowed = metric.allowed(compared.tolerance, before, self._run.in_flight)
        limit = 1 + allowed if metric.better == "lower" else max(1 - allowed, _LEAST)
        return _Question(metric.name, limit, metric.better, plan, equivalence, compared.ratio_prior)


def metrics_of(run: InterleavedRun) -> tuple[Metrics, Metrics]:
    """The metrics of both variants, further starts included."""
    first = Metrics(tuple(run.first_launches), starts_ns=tuple(run.first_starts_ns))
    return first, Metrics(tuple(run.second_launches), starts_ns=tuple(run.second_starts_ns))


def _confirming(compared: ComparedMetric) -> int:
    """Pairs that a failure rests on: fewer if the file saw it too, and of what is no ratio those of the first look."""
    needs_more = Role.PAIRED in compared.metric.roles and not compared.seen_worse
    return CONFIRMING_PAIRS if needs_more else FEWEST_PAIRS


def _without_kinds(
    question: _Question, found: Sequence[PairedLaunch], both: tuple[Metrics, Metrics], *, confirming: int
) -> tuple[RatioVerdict, PairedKinds | None]:
    """The verdict on paired launches, and their kinds if these are two."""
    known = [launch for launch in found if launch.ratio(question.metric) is not None]
    figures = [
        [getattr(launch, side).figure(question.metric) or 0.0 for launch in known] for side in ("first", "second")
    ]
    first, second = (
        side_of([LaunchValue(value, 0.0) for value in values], metrics.launch_values)
        for values, metrics in zip(figures, both, strict=True)
    )
    kinds = paired_kinds(question.ratios(found), first, second)
    if kinds is None:
        verdict = question.verdict(found)
        is_early = verdict.outcome is Outcome.FAIL and verdict.launches < confirming <= len(known)
        return (question.of_ratios(question.ratios(found), since=confirming) if is_early else verdict), None
    judge = partial(question.of_ratios, since=min(len(known), question.plan.last))
    better = metric_named(question.metric).better
    return kinds.verdict(judge, better=better, tolerance=abs(question.limit - 1)), kinds


def _with_kinds(verdict: Verdict, words: str) -> Verdict:
    """The verdict with the kinds of its launches, which leave it open if its interval does not."""
    change, tolerance = verdict.change, verdict.tolerance or 0.0
    contains = change is not None and change.low <= tolerance < change.high
    if verdict.outcome is Outcome.INCONCLUSIVE and not contains:
        return verdict.left_open(WhyOpen(OpenBy.KINDS, words))
    return replace(verdict, reason=f"{verdict.reason}; {words}")


def _change_verdict(question: _Question, verdict: RatioVerdict, *, tolerance: float, run: InterleavedRun) -> Verdict:
    metric = metric_named(question.metric)
    printed = _printed(run, question.metric, verdict)
    ratio = verdict.judged
    change = Estimate(ratio.value - 1, ratio.low - 1, ratio.high - 1)
    if metric.better == "higher":
        change = Estimate(-change.value, -change.high, -change.low)
    word, low, high = ("worse", change.low, change.high) if change.value >= 0 else ("better", -change.high, -change.low)
    by_floor = abs(question.limit - 1) > tolerance + _LEAST and change.high > tolerance
    floor = f"; changes up to {metric.floor_text} do not count" if by_floor else ""
    reason = (
        f"{metric.label} {_figures(run, question.metric, printed)}: {format_percent(abs(change.value))} {word} "
        f"({format_percent(low, signed=True)} to {format_percent(high, signed=True)}); "
        f"tolerance {format_percent(tolerance)}{floor}; {_measured(run, verdict)}"
    )
    if not isinstance(metric.kind, Location):
        return Verdict(metric.name, "revision", verdict.outcome, reason, change, tolerance, *printed)
    name = metric.kind.stands_for
    own = metric_named(name)
    medians = " against ".join(map(own.show, _means(name, run.launches)))
    reason += f"; {median_text(own, medians)}"
    found = Verdict(name, "revision", verdict.outcome, reason, change, tolerance, *printed)
    return replace(found, judged_by=metric.name)


def _ratios(metric: str, found: Sequence[PairedLaunch] | Sequence[PairedCapacity]) -> list[LogRatio]:
    """The ratios of the launches in which both variants have a metric."""
    ratios = [one.ratio(metric) if isinstance(one, PairedLaunch) else one.nmrt for one in found]
    return [ratio for ratio in ratios if ratio is not None]


def _means(metric: str, found: Sequence[PairedLaunch]) -> tuple[float, float]:
    """The mean of the metric for both variants, over the launches that have it."""
    known = [launch for launch in found if launch.ratio(metric) is not None]
    first = fmean(launch.first.figure(metric) or 0.0 for launch in known)
    return first, fmean(launch.second.figure(metric) or 0.0 for launch in known)


def _nmrt_means(run: InterleavedRun) -> tuple[float, float]:
    """The mean NMRT of both variants."""
    first = fmean(one.first.nmrt.value for one in run.capacities)
    return first, fmean(one.second.nmrt.value for one in run.capacities)


def _printed(run: InterleavedRun, name: str, verdict: RatioVerdict) -> tuple[float, float]:
    """The figures of both variants: the first's mean, and the second's that the estimated ratio gives.

    The ratio of what is printed is then the printed change. The ratio comes from neighbouring blocks; that of the means
    of all launches would be another one on a machine whose speed varies.
    """
    first, _ = _nmrt_means(run) if name == "nmrt" else _means(name, run.launches)
    return first, first * verdict.judged.value


def _figures(run: InterleavedRun, name: str, values: tuple[float, float]) -> str:
    """The figures of both variants with their names: ``2.0 ms (cached) against 4.1 ms (single)``."""
    metric = metric_named(name)
    first, second = (f"{metric.show(value)} ({variant})" for value, variant in zip(values, run.names, strict=True))
    return f"{first} against {second}"


def _measured(run: InterleavedRun, verdict: RatioVerdict) -> str:
    count = verdict.launches
    return f"{wording.count(count, 'paired launch', 'paired launches')} in {run.spent_s:.1f} s"
