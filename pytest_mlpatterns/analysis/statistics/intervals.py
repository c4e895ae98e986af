"""Intervals of a value from a few launches of several blocks each.

Pure functions over plain numbers and arrays. This module must not know what the numbers measure.

The sampling unit is the launch, then the block (a quarter of a second), not the request: two identical deployments
differ by a launch-level standard deviation of one to four percent however many requests are sent, so resampling
requests would promise an accuracy that is not there. All arithmetic is on logarithms, since slowdowns multiply.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, median

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.wording import shown

CONFIDENCE = 0.95  # Confidence of the intervals that are shown and compared with limits
TO_95_PERCENT = 1.96  # Standard errors from an estimate to an end of such an interval
CHANGE_CONFIDENCE = 0.99
"""Confidence of the intervals of a change against a baseline: a false alarm costs more than a second look."""
LAUNCH_SD = 0.017
"""Relative standard deviation between launches of one deployment, as measured on a shared machine; the prior."""
PRIOR_DEGREES = 2
"""Degrees of freedom of the prior, added to the measured launches'; fewer if they contradict it."""
FEW_SD = 0.25
"""Largest relative deviation of launches, or of the answers of a service, that the range of a few of them may hide: one
answer in 360 then takes twice as long as the median."""
MAD_TO_SD = 1.4826  # Standard deviation of normal scatter, in its median absolute deviations
_WIDEST = 20.0  # Half of the widest interval of a log ratio: a factor of 5e8 stands for no knowledge
_RESAMPLES = 200  # Resamples of a bootstrap, which find a standard error to 5 %
_RUN = 3  # Blocks of a run that are drawn together, as neighbours resemble each other (circular block bootstrap)


class LogMean(Struct, frozen=True):
    """A mean of logarithms, its standard error, and the degrees of freedom that the error rests on."""

    mean: float  # natural logarithm of a value or of a ratio
    error: float  # standard error of the mean
    degrees: float  # of freedom
    launches: int  # that it is the mean of

    def half(self, confidence: float) -> float:
        """Half the width of the interval, on the logarithm; bounded, so that its ends are finite."""
        return min(t_quantile(confidence, self.degrees) * self.error, _WIDEST)

    def interval(self, confidence: float) -> Estimate:
        """The value or ratio with its interval."""
        half = self.half(confidence)
        return Estimate(math.exp(self.mean), math.exp(self.mean - half), math.exp(self.mean + half))


def min_samples(percentile: float, confidence: float = 0.99) -> int:
    """Fewest samples with which the largest bounds this percentile from above at this confidence.

    The chance that all n samples lie below the q-quantile is q**n, so n = ceil(ln(1 - confidence) / ln(q)): 459 for
    p99, 90 for p95, 44 for p90 at 99 %.
    """
    if not 1 <= percentile < 100:
        raise ValueError(f"percentile is {shown(percentile)}, expected at least 1 and less than 100; write 99 for p99")
    return math.ceil(math.log(1 - confidence) / math.log(percentile / 100) - 1e-9)


def order_bounds(
    samples: int, percentile: float, confidence: float = CONFIDENCE, *, dispersion: float = 1.0
) -> tuple[int, int]:
    """Which of n sorted samples bound a percentile of any distribution: their indices, from 0.

    How many samples lie below the q-quantile is binomial, B(n, q). The l-th smallest is above it with the chance
    P(B < l), the u-th smallest below it with P(B >= u); l is the largest and u the smallest for which that is at most
    (1 - confidence) / 2 (David & Nagaraja, Order Statistics, section 7.1). If no sample is that far out, the first
    or the last one is used; :func:`min_samples` gives the size from which that is valid.

    Samples that are not independent weigh as much as fewer that are: as many as they are divided by ``dispersion``, the
    variance of a share of them over that of independent ones. The ranks are those of the smaller number, as shares.
    """
    if dispersion > 1:
        fewer = max(round(samples / dispersion), 1)
        lower, upper = order_bounds(fewer, percentile, confidence)
        return lower * samples // fewer, math.ceil((upper + 1) * samples / fewer) - 1
    q = percentile / 100
    deviation = math.sqrt(samples * q * (1 - q))
    first = max(0, math.floor(samples * q - 8 * deviation) - 2)
    last = min(samples, math.ceil(samples * q + 8 * deviation) + 2)
    counts = np.arange(first, last)
    steps = np.log(samples - counts) - np.log(counts + 1) + math.log(q / (1 - q))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    chance = np.exp(logs - logs.max())
    below = np.cumsum(chance) / chance.sum()  # P(B <= first + i)
    tail = (1 - confidence) / 2
    lower = first + int(np.searchsorted(below, tail, side="right"))  # P(B <= lower - 1) is the last at most that
    upper = first + int(np.searchsorted(below, 1 - tail, side="left")) + 1
    return max(lower, 1) - 1, min(upper, samples) - 1


def block_weights(blocks: int) -> NDArray[np.float64]:
    """How often each block counts in each of 200 resamples: shape ``(200, blocks)``, rows sum to ``blocks``.

    Runs of three neighbouring blocks are drawn together (circular block bootstrap, Politis & Romano 1992), so that
    slow drifts within a launch widen the interval as they should. The draw is seeded: the same data give the same
    answer.
    """
    draws = math.ceil(blocks / _RUN)
    starts = np.random.default_rng(0).integers(0, blocks, size=(_RESAMPLES, draws))
    chosen = (starts[:, :, None] + np.arange(_RUN)) % blocks
    flat = chosen.reshape(_RESAMPLES, -1)[:, :blocks]
    offsets = np.arange(_RESAMPLES)[:, None] * blocks
    counts = np.bincount((flat + offsets).ravel(), minlength=_RESAMPLES * blocks)
    return counts.reshape(_RESAMPLES, blocks).astype(np.float64)


def within_seen(
    found: Estimate, seen: tuple[float, float], confidence: float, *, of: int = 1, deviation: float = FEW_SD
) -> Estimate:
    """An interval that reaches no further beyond what was seen than values may differ by.

    Of n values that scatter around m by a deviation s on the logarithm, all are above m exp(s z) with the chance
    P(Z > z)^n. So m is within [lowest exp(-s z), highest exp(s z)], for the z at which that is (1 - confidence) / 2.
    With more values than give a z above zero, these are the bounds of order statistics, of any distribution.

    ``seen``: the lowest and the highest value. ``of``: n; 1 also holds for more. ``deviation``: s.
    """
    z = max(-NormalDist().inv_cdf(((1 - confidence) / 2) ** (1 / of)), 0.0)
    reach = math.exp(deviation * z)
    return Estimate(found.value, max(found.low, seen[0] / reach), min(found.high, seen[1] * reach))


def relative_error(resampled: NDArray[np.float64]) -> float:
    """Relative standard error: the standard deviation of the logarithms of resampled values above zero."""
    positive = resampled[resampled > 0]
    return float(np.std(np.log(positive))) if positive.size > 1 else 0.0


def estimate(
    launches: Sequence[LaunchValue],
    launch_sd: float,
    confidence: float = CONFIDENCE,
    *,
    scatter: Sequence[LaunchValue] = (),
    prior_degrees: float = PRIOR_DEGREES,
) -> Estimate:
    """The geometric mean over launches, with its interval.

    With y the logarithms of J launch values, e their relative errors, s0 the prior deviation between launches and k0
    the degrees of freedom that it is worth, the interval is exp(ȳ ± t sqrt(variance / J)), where

        prior = s0² + mean e²,  first = (k0 prior + Σ(y - ȳ)²) / (k0 + J - 1),  k = k0 min(1, prior / first),
        variance = (k prior + Σ(y - ȳ)²) / (k + J - 1)

    with t at k + J - 1 degrees of freedom. Launches that vary more than expected reduce the weight k of the prior,
    which would make the interval too narrow. Student's t of a few launches that differ a lot has no bound in practice;
    :func:`within_seen` has one.

    ``launches``: at least one. ``launch_sd``: prior relative deviation between launches; 0 for values that do not vary
    by themselves (sizes), whose interval is then the range over the launches. ``scatter``: other launches of the same
    kind, such as a baseline entry's. Their mean may differ; their scatter around it counts like that of the
    launches themselves.
    """
    values = [launch.value for launch in launches]
    if launch_sd == 0 or min(values) <= 0:
        return Estimate(sum(values) / len(values), min(values), max(values))
    positive = [launch for launch in scatter if launch.value > 0]
    variance, degrees = _launch_variance(launches, positive, launch_sd, prior_degrees=prior_degrees)
    error = math.sqrt(variance / len(launches))
    found = LogMean(_log_mean(launches), error, degrees, len(launches)).interval(confidence)
    most_sd = max(_most_sd(launches, launch_sd), launch_deviation(positive) if positive else 0.0)
    return within_seen(found, (min(values), max(values)), confidence, deviation=most_sd)


def ratio_of(
    present: Sequence[LaunchValue],
    baseline: Sequence[LaunchValue],
    launch_sd: float,
    *,
    confidence: float = CHANGE_CONFIDENCE,
    prior_degrees: float = PRIOR_DEGREES,
) -> Estimate:
    """Present over baseline, with its interval; both samples share one variance between launches.

    As :func:`estimate`, with k + J1 - 1 + J2 - 1 degrees of freedom and variance (1/J1 + 1/J2).
    All values must be above zero.
    """
    variance, degrees = _launch_variance(present, baseline, launch_sd, prior_degrees=prior_degrees)
    error = math.sqrt(variance * (1 / len(present) + 1 / len(baseline)))
    mean = LogMean(_log_mean(present) - _log_mean(baseline), error, degrees, len(present))
    now, then = ([one.value for one in side] for side in (present, baseline))
    most_sd = math.sqrt(2) * _most_sd([*present, *baseline], launch_sd)  # of a launch beside one of the other side
    seen = min(now) / max(then), max(now) / min(then)
    return within_seen(mean.interval(confidence), seen, confidence, deviation=most_sd)


def ratio_of_pairs(
    present: Sequence[LaunchValue],
    baseline: Sequence[LaunchValue],
    launch_sd: float,
    *,
    confidence: float = CHANGE_CONFIDENCE,
    prior_degrees: float = PRIOR_DEGREES,
) -> Estimate:
    """As :func:`ratio_of`, of values that were measured in the same moments, pair by pair.

    A moment in which the machine is busy slows both down, and leaves their ratio as it is. The ratios are judged as
    :func:`estimate` does, with the prior deviation of a difference, sqrt(2) times a launch's.
    """
    ratios = [
        LaunchValue(now.value / before.value, math.hypot(now.relative_error, before.relative_error))
        for now, before in zip(present, baseline, strict=True)
    ]
    return estimate(ratios, math.sqrt(2) * launch_sd, confidence, prior_degrees=prior_degrees)


def launch_deviation(*samples: Sequence[LaunchValue]) -> float:
    """By how much one launch differs from the others: the relative standard deviation of a launch.

    With y the logarithms of the values of J launches in m samples, ȳ the mean of their sample and e their errors within
    the launch, it is sqrt((k0 mean e² + Σ(y - ȳ)²) / (k0 + J - m)), k0 being :data:`PRIOR_DEGREES`. So a statistic
    counts as badly known if it jumps between launches, and also if it would. Of two statistics of the same launches the
    one of the smaller deviation gives the narrower interval.

    ``samples``: launches of each side. Infinite if a side has none, or a value is not above zero, or not finite.
    """
    everything = [launch for sample in samples for launch in sample]
    if not all(samples) or not all(0 < launch.value < math.inf for launch in everything):
        return math.inf
    scatter, degrees = _scatter(samples)
    within = sum(launch.relative_error**2 for launch in everything) / len(everything)
    return math.sqrt((PRIOR_DEGREES * within + scatter) / (PRIOR_DEGREES + degrees))


def prior_weight(prior_degrees: float, prior: float, *, scatter: float, degrees: int) -> float:
    """Degrees of freedom that a prior variance is worth: fewer the more the observations contradict it.

    The factor is the prior over the variance that prior and observations give together, at most 1.

    ``prior_degrees``: its degrees of freedom if nothing contradicts it. ``prior``: the variance. ``scatter``: sum of
    squares of the observations, with ``degrees`` of freedom.
    """
    expected = (prior_degrees * prior + scatter) / (prior_degrees + degrees)
    return prior_degrees * min(1.0, prior / expected)


def drawn_variance(prior_degrees: float, prior: float, *, scatter: float, degrees: int) -> tuple[float, float]:
    """A variance drawn towards a prior one, and its degrees of freedom; the arguments are as for the weight."""
    weight = prior_weight(prior_degrees, prior, scatter=scatter, degrees=degrees)
    return (weight * prior + scatter) / (weight + degrees), weight + degrees


def median_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The median of independent values, at least one, and its standard error, ``1.2533 s / sqrt(n)``.

    The factor is sqrt(pi / 2), exact for normal scatter; s is taken from the median absolute deviation
    (1.4826 MAD), so that a stray value does not count.
    """
    middle = median(values)
    deviation = MAD_TO_SD * median(abs(value - middle) for value in values)
    return middle, math.sqrt(math.pi / 2) * deviation / math.sqrt(len(values))


def median_error(values: Sequence[float]) -> float:
    """The relative standard error of a median; 0 if it is not above zero."""
    middle, error = median_and_error(values)
    return error / middle if middle > 0 else 0.0


def wilson_interval(events: int, trials: int, confidence: float = CONFIDENCE) -> Estimate:
    """A share of independent trials with its interval (Wilson 1927), which holds for no events at all too."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = events / trials
    scale = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2) / scale
    low = 0.0 if events == 0 else max(0.0, middle - half)
    high = 1.0 if events == trials else min(1.0, middle + half)
    return Estimate(share, low, high)


def t_quantile(confidence: float, degrees: float) -> float:
    """Two-sided quantile of Student's t: the t with ``P(|T| <= t) = confidence``.

    Hill's asymptotic inverse (Communications of the ACM, algorithm 396, 1970) without its term for fewer than five
    degrees of freedom, a millionth; within 0.1 % from two degrees on, and wider below.
    """
    tail = 1 - confidence
    a = 1 / (degrees - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * degrees
    y = (d * tail) ** (2 / degrees)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(tail / 2)
        y = x * x
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        first = 1 / (((degrees + 6) / (degrees * y) - 0.089 * d - 0.822) * (degrees + 2) * 3)
        y = ((first + 0.5 / (degrees + 4)) * y - 1) * (degrees + 1) / (degrees + 2) + 1 / y
    return math.sqrt(degrees * y)


def _most_sd(launches: Sequence[LaunchValue], launch_sd: float) -> float:
    """By how much the values of launches may differ from their mean: the launches, and what is within them."""
    within = sum(launch.relative_error**2 for launch in launches) / len(launches)
    return math.hypot(max(FEW_SD, launch_sd), math.sqrt(within))


def _log_mean(launches: Sequence[LaunchValue]) -> float:
    return sum(math.log(launch.value) for launch in launches) / len(launches)


def _launch_variance(
    first: Sequence[LaunchValue], second: Sequence[LaunchValue], launch_sd: float, *, prior_degrees: float
) -> tuple[float, float]:
    """The variance between launches of two samples around their own means, and its degrees of freedom."""
    everything = [*first, *second]
    prior = launch_sd**2 + sum(launch.relative_error**2 for launch in everything) / len(everything)
    scatter, degrees = _scatter((first, second))
    return drawn_variance(prior_degrees, prior, scatter=scatter, degrees=degrees)


def _scatter(samples: Sequence[Sequence[LaunchValue]]) -> tuple[float, int]:
    """The sum of squares of launches around the mean of their own sample, and its degrees of freedom."""
    scatter, degrees = 0.0, 0
    for sample in filter(None, samples):
        mean = _log_mean(sample)
        scatter += sum((math.log(launch.value) - mean) ** 2 for launch in sample)
        degrees += len(sample) - 1
    return scatter, degrees
