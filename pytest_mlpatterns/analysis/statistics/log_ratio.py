"""The ratio of two variants from paired launches, and the sequential test of it against a limit.

Pure. The unit is the paired launch: both variants freshly started and loaded in short alternating blocks. A slower
machine slows both, so that their ratio is more precise than either figure. All arithmetic is on logarithms of
second/first. This module must not know what is measured, or how.

Interim looks are corrected for (:mod:`pytest_mlpatterns.analysis.statistics.alpha_spending`);
``benchmarks/paired_simulation.py`` counts the errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE, LogMean, drawn_variance, median_and_error
from pytest_mlpatterns.records.launch import Capacity, Estimate
from pytest_mlpatterns.records.telemetry import Histogram
from pytest_mlpatterns.records.verdict import Outcome, WhyOpen

RATIO_SD = 0.015
"""Standard deviation between paired launches of two equal variants, beyond that within a launch; the prior."""
RATIO_PRIOR_DEGREES = 3.0  # Degrees of freedom of the prior; fewer if the launches contradict it
_NOISY_FACTOR = 3.0
"""Multiple of the lower quartile of all errors from which a launch counts as noisy and gets less weight."""
_ROUNDS, _CONTRADICTS = 12, 2  # In which s0 grows while launches contradict it, as one set in twenty does by chance
_ROUNDING = 1e-12  # Difference of log ratios that is rounding of floats
_DEFAULT_PLAN = SequentialPlan()
_FEWEST_QUIET, _ENOUGH_QUIET = 3, 4


class RatioPrior(Struct, frozen=True):
    """What an interval of paired launches starts from."""

    sd: float = RATIO_SD  # standard deviation between launches beyond that within a launch, above zero
    degrees: float = RATIO_PRIOR_DEGREES  # degrees of freedom that it is worth, above zero


USUAL_PRIOR = RatioPrior()  # That of many services


class LogRatio(Struct, frozen=True):
    """log(second/first) of one paired launch, and its standard error within the launch."""

    value: float
    error: float


_PAIRED = {
    "rtm": "rtm_ns",
    "throughput": "throughput_rps",
    "cpu_per_request": "cpu_ns_per_request",
    "latency_mean": "latency_mean_ns",
}
"""Metrics of all answers that paired launches measure, each with its figure of one variant."""


class VariantFigures(Struct, frozen=True):
    """One variant of a paired launch: medians over its blocks, the number of requests, and how long each took.

    ``latencies`` counts them as :func:`pytest_mlpatterns.analysis.metrics.blocked_values.counted` does. ``streams`` has
    the figures that only streams have, by metric. ``latency_mean_ns`` is None if it is not known.
    """

    rtm_ns: float
    throughput_rps: float
    cpu_ns_per_request: float | None
    requests: int
    failed: int
    latencies: Histogram = {}
    streams: Mapping[str, float] = {}
    latency_mean_ns: float | None = None

    @classmethod
    def of(
        cls, blocks: Mapping[str, Sequence[float]], *, requests: int, failed: int, latencies: Histogram
    ) -> VariantFigures:
        """The figures from one value of each block, by metric; 0 if it is not known."""
        medians = {name: median(values) for name, values in blocks.items()}
        return cls(
            rtm_ns=medians.pop("rtm"),
            latency_mean_ns=medians.pop("latency_mean"),
            throughput_rps=medians.pop("throughput"),
            cpu_ns_per_request=medians.pop("cpu_per_request") or None,
            requests=requests,
            failed=failed,
            latencies=latencies,
            streams=medians,
        )

    def figure(self, metric: str) -> float | None:
        """The figure of a metric; None if it is not known, or not measured by paired launches."""
        found: float | None = getattr(self, _PAIRED[metric]) if metric in _PAIRED else self.streams.get(metric)
        return found


class PairedLaunch(Struct, frozen=True):
    """One start of both variants, measured in pairs of neighbouring blocks."""

    rtm: LogRatio  # ratio of the medians
    throughput: LogRatio  # ratio of the rates
    cpu_per_request: LogRatio | None  # ratio of CPU times; None if the processes of a variant are unknown
    first: VariantFigures  # figures of the first variant
    second: VariantFigures  # figures of the second variant
    pairs: int  # number of pairs of blocks
    second_began: bool  # whether the second variant was started and loaded first
    repeated: int  # blocks that were measured again because the load generator was the limit
    disturbed: int = 0  # pairs in which other processes used the machine
    streams: Mapping[str, LogRatio] = {}  # ratios of what only streams have, by metric
    latency_mean: LogRatio | None = None  # ratio of the locations; None if it is not known
    late: WhyOpen | None = None  # why requests were late, which makes both sides alike; None if none were

    def ratio(self, metric: str) -> LogRatio | None:
        """The ratio of a metric; None if it is not measured by paired launches, or a variant does not have it."""
        found: LogRatio | None = getattr(self, metric) if metric in _PAIRED else self.streams.get(metric)
        return found


class PairedCapacity(Struct, frozen=True):
    """One start of both variants, each searched for its capacity, one after the other."""

    nmrt: LogRatio
    first: Capacity
    second: Capacity


class RatioVerdict(Struct, frozen=True):
    """The verdict on a ratio at the interim look that decided, or at the last one."""

    outcome: Outcome  # of the comparison with the limit
    ratio: Estimate  # second/first with its 95 % interval
    judged: Estimate  # the same with the interval of the deciding look
    launches: int  # paired launches that the verdict rests on


def paired_log_ratio(
    first: Sequence[float], second: Sequence[float], disturbed: Sequence[bool] | None = None
) -> LogRatio:
    """The median over pairs of neighbouring blocks of log(second/first), with its standard error.

    A single noisy block affects neither. Pairs known to be disturbed are left out if at least three others remain; the
    disturbance is independent of the variants, so this favours neither.

    ``first``: one value above zero per pair, at least one. ``disturbed``: for each pair, whether other processes used
    the machine; None if unknown.
    """
    values = [math.log(b / a) for a, b in zip(first, second, strict=True)]
    if disturbed is not None:
        quiet = [value for value, spoiled in zip(values, disturbed, strict=True) if not spoiled]
        values = quiet if len(quiet) >= _FEWEST_QUIET else values
    return LogRatio(*median_and_error(values))


def wants_more_pairs(disturbed: Sequence[bool]) -> bool:
    """Whether more pairs improve a launch: some pairs were disturbed and too few quiet ones are left, but not none.

    If all pairs were disturbed, the noise is permanent and more pairs will not help.
    """
    return 0 < disturbed.count(False) < min(_ENOUGH_QUIET, len(disturbed))


def ratio_estimate(
    launches: Sequence[LogRatio], prior: RatioPrior = USUAL_PRIOR, *, confidence: float = CONFIDENCE
) -> Estimate:
    """second/first over all paired launches, with its interval.

    With x the values of n launches and e their errors, s0 the prior deviation between launches and k0 the degrees of
    freedom that it is worth (``prior``), w = 1 / (s0² + e²) and m = Σ w x / Σ w, the interval is

        exp(m ± t sqrt(q / Σ w)),  q = (k + S) / (k + n - 1),  S = Σ w (x - m)²,
        k = k0 min(1, (k0 + n - 1) / (k0 + S))

    with t at k + n - 1 degrees of freedom. Where all errors are alike that is a t interval around the mean whose
    variance (k (s0² + e²) + Σ (x - m)²) / (k + n - 1) is drawn towards the prior, and the less so the more the launches
    contradict it. Weights by error keep a launch that was disturbed from spoiling the others (the estimator of Hartung
    & Knapp, Statistics in Medicine 20, 2001, with a prior). An error is itself known from a few pairs only: up to three
    times the lower quartile of all errors it is taken to be like the others, their root mean square.

    ``launches``: at least one.
    """
    return weighed_ratio(launches, prior).interval(confidence)


def judge_ratio(
    launches: Sequence[LogRatio],
    limit: float,
    better: Literal["lower", "higher"],
    *,
    plan: SequentialPlan = _DEFAULT_PLAN,
    prior: RatioPrior = USUAL_PRIOR,
    equivalence: bool = True,
) -> RatioVerdict:
    """Compare second/first with a limit: at most ``limit`` if lower is better, at least ``limit`` if higher is.

    PASS when the whole interval is on the good side, the limit itself included; FAIL when it is wholly on the bad side.
    The first look that decides is final; later launches do not change it.

    A guard (``equivalence=False``) fails by the same rule, at any look. If no look fails it, its estimate over all
    launches decides: PASS on the good side of the limit, INCONCLUSIVE (a suspicion) on the bad side.

    ``launches``: all paired launches so far, at least one, in the order in which they were measured. ``limit``: above
    zero; 1.05 for at most 5 % more, 3.0 for at least three times as much. ``equivalence``: whether a PASS needs the
    whole interval on the good side; False for a guard.
    """
    wanted = math.log(limit)
    for number in range(max(plan.first, plan.since), min(len(launches), plan.last) + 1):
        weighed = weighed_ratio(launches[:number], prior)
        over = _over(weighed, wanted, better)
        if equivalence and over + weighed.half(plan.confidence_of_pass(number)) <= _ROUNDING:
            return _verdict(Outcome.PASS, weighed, better=better, plan=plan)
        if over - weighed.half(plan.confidence(number)) > _ROUNDING:
            return _verdict(Outcome.FAIL, weighed, better=better, plan=plan)
    weighed = weighed_ratio(launches[: plan.last], prior)
    if not equivalence and _over(weighed, wanted, better) <= _ROUNDING:
        return _verdict(Outcome.PASS, weighed, better=better, plan=plan)
    return _verdict(Outcome.INCONCLUSIVE, weighed, better=better, plan=plan)


def weighed_ratio(launches: Sequence[LogRatio], prior: RatioPrior = USUAL_PRIOR) -> LogMean:
    """The weighted mean of log ratios, whose interval :func:`ratio_estimate` gives; the arguments are the same."""
    values = np.array([launch.value for launch in launches])
    errors = np.array([launch.error for launch in launches])
    usual = errors <= _NOISY_FACTOR * np.quantile(errors, 0.25)
    shared = np.where(usual, errors**2, 0.0).sum() / usual.sum()
    within, between = np.where(usual, shared, errors**2), prior.sd**2
    weight = known = 1 / (between + within)
    for _ in range(_ROUNDS):
        mean, scatter = _scatter(values, weight)
        if scatter < _CONTRADICTS * len(launches):
            break
        between *= scatter / (len(launches) - 1)
        weight = 1 / (between + within)
    weight *= known.sum() / weight.sum()
    mean, scatter = _scatter(values, weight)
    variance, degrees = drawn_variance(prior.degrees, 1.0, scatter=scatter, degrees=len(launches) - 1)
    return LogMean(mean, math.sqrt(variance / float(weight.sum())), degrees, len(launches))


def _scatter(values: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[float, float]:
    """The weighted mean, and the sum of squares around it."""
    mean = float((weight * values).sum() / weight.sum())
    return mean, float((weight * (values - mean) ** 2).sum())


def _over(weighed: LogMean, wanted: float, better: str) -> float:
    """How far the mean is on the bad side of the limit, on the logarithm."""
    return weighed.mean - wanted if better == "lower" else wanted - weighed.mean


def _verdict(outcome: Outcome, weighed: LogMean, *, better: str, plan: SequentialPlan) -> RatioVerdict:
    number = weighed.launches
    good, bad = weighed.half(plan.confidence(number)), weighed.half(plan.confidence_of_pass(number))
    below, above = (good, bad) if better == "lower" else (bad, good)
    judged = Estimate(math.exp(weighed.mean), math.exp(weighed.mean - below), math.exp(weighed.mean + above))
    return RatioVerdict(outcome, weighed.interval(CONFIDENCE), judged, number)
