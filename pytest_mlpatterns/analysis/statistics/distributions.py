"""Tail probabilities without scipy, the two modes of a distribution, and its location.

A median of few values, or of two modes, shows on which side of a gap it fell; all values together show where the
distribution is. ``benchmarks/location_simulation.py`` compares the candidates. Pure functions over plain arrays. This
module must not know what is measured or judged.
"""

import math
from statistics import NormalDist

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

_TINY = 1e-300
"""Least number of a continued fraction and of a probability: no division by zero follows (modified Lentz method)."""
_MOST_STEPS = 10_000  # Most steps of a continued fraction; 100 suffice in practice


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b).

    The continued fraction converges fast below x = (a + 1) / (a + b + 2), and I_x(a, b) = 1 - I_(1-x)(b, a) elsewhere
    (Abramowitz & Stegun, Handbook of Mathematical Functions, 26.5.2 and 26.5.8; evaluated by Lentz's method).
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _MOST_STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            fraction *= c * d
        if abs(c * d - 1) < 1e-12:
            break
    return min(math.exp(log_front) * fraction / a, 1.0)


def binomial_tail(events: float, others: float, share: float) -> float:
    """The probability that at least ``events`` of ``events + others`` trials succeed, each with the chance ``share``.

    Both counts may be fractions: I_share(events, others + 1) is the tail for whole numbers and continuous between them.
    """
    return 1.0 if events <= 0 else incomplete_beta(events, others + 1, share)


def excess_chance(events: int, of: int, *, before: int, of_before: int) -> float:
    """The chance that at least as many of the events of both sides are on this one, if they are as frequent on both.

    It is a tail of the hypergeometric distribution (Fisher's exact test, Journal of the Royal Statistical Society 98,
    1935).
    """
    both = events + before
    ways = sum(math.comb(of, here) * math.comb(of_before, both - here) for here in range(events, min(of, both) + 1))
    return ways / math.comb(of + of_before, both)


def student_tail(t: float, degrees: float) -> float:
    """The probability that a value of Student's t with these degrees of freedom is above ``t``."""
    half = incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t)) / 2
    return half if t >= 0 else 1 - half


def with_uncertain_scale(chance: float, degrees: float) -> float:
    """A one-sided tail probability corrected for a scale that was estimated with these degrees of freedom.

    The normal quantile of the probability is referred to Student's t instead.
    """
    return student_tail(-NormalDist().inv_cdf(min(max(chance, _TINY), 1 - 1e-16)), degrees)


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


_MOST = 2048  # Values that are looked at; of more, evenly spaced ones: they show any valley
_STRAY = 0.025
"""Share at each end that is pulled in before the values are split, so that stragglers make no group of their own."""
_LEAST_SHARE, _LEAST = 0.1, 5
"""Smallest share and number of values of a group: a rarer one is a tail, which is judged by its percentiles."""
_APART = math.log(1.2)
"""Smallest distance of two modes, on the logarithm: launches of one deployment differ by up to 8 %."""
_VALLEY = 0.25  # Largest number of values between the modes, as a share of those at the lower one of them
_CHANCE = 0.002
"""Probability with which a single mode may look like two: 0.0 to 0.5 % of simulated samples of one mode do, those of
queues and of heavy tails too (``benchmarks/limit_simulation.py``)."""


class Modes(Struct, frozen=True):
    """Two modes."""

    low: float  # median of the lower group
    high: float  # median of the upper group
    valley: float  # the value halfway between them, on the logarithm
    low_share: float  # share of the values in the lower group


def find_modes(ascending: NDArray[np.int64] | NDArray[np.float64]) -> Modes | None:
    """The two modes of values above zero; None if there is one, or if the values are too few to show two.

    The values are split on the logarithm where the variance within both groups is least (Otsu, IEEE Transactions on
    Systems, Man, and Cybernetics 9, 1979). A density with one mode is between two points never below the lower one of
    them. So the values in three windows of one width are counted, around both medians and halfway between them: the
    middle one has too few for one mode by the binomial test.

    ``ascending``: the values, shape ``(values,)``.
    """
    if ascending.size > _MOST:
        ascending = ascending[((np.arange(_MOST) + 0.5) * (ascending.size / _MOST)).astype(np.int64)]
    count = ascending.size
    least = max(math.ceil(_LEAST_SHARE * count), _LEAST)
    if count < 2 * least:
        return None
    logs = np.log(np.maximum(ascending, 1))
    split = _split(logs, least)
    low, high = float(np.median(logs[:split])), float(np.median(logs[split:]))
    lower, half = int(np.searchsorted(logs, (low + high) / 2)), (high - low) / 6

    def beside(middle: float) -> int:
        first, last = np.searchsorted(logs, [middle - half, middle + half], side="left")
        return int(last - first)

    at_modes, between = min(beside(low), beside(high)), beside((low + high) / 2)
    is_valley = between <= _VALLEY * at_modes and binomial_tail(at_modes, between, 0.5) <= _CHANCE
    if high - low < _APART or not least <= lower <= count - least or not is_valley:
        return None
    return Modes(math.exp(low), math.exp(high), math.exp((low + high) / 2), lower / count)


def _split(logs: NDArray[np.float64], least: int) -> int:
    """Size of the lower one of two groups of at least ``least`` values, for the least variance within them."""
    count = logs.size
    stray = int(_STRAY * count)
    pulled = np.clip(logs, logs[stray], logs[count - 1 - stray])
    sizes = np.arange(1, count)
    sums = np.cumsum(pulled)
    between = (sums[-1] * sizes / count - sums[:-1]) ** 2 / (sizes * (count - sizes))
    return least + int(np.argmax(between[least - 1 : count - least]))


def median_slope(x: NDArray[np.int64] | NDArray[np.float64], y: NDArray[np.int64] | NDArray[np.float64]) -> float:
    """Theil and Sen's slope: the median of the slopes between all pairs of points, which no few peaks change.

    ``x``: never falling, shape ``(points,)``; points at one place make no pair. ``y``: in the same shape.
    """
    first, second = np.triu_indices(x.size, k=1)
    apart = x[second] - x[first]
    return float(np.median((y[second] - y[first])[apart > 0] / apart[apart > 0]))


TRIM = 0.10
"""Share of the values that is left out, the slowest: a straggler among ten has no weight. Nothing makes a request as
much faster, and the fastest values show as much of modes as the others."""
_LEAST_NS = 1.0  # Shortest time, so that each has a logarithm; imported times of whole milliseconds may be zero


def location(values: NDArray[np.int64] | NDArray[np.float64]) -> float:
    """The geometric mean of all values but the slowest tenth.

    With x(1) <= ... <= x(n) it is exp(Σ w(i) log x(i) / Σ w(i)), w(i) being the part of the ranks from (i - 1) / n to
    i / n that lies below 1 - :data:`TRIM` (a trimmed mean: Tukey & McLaughlin, Sankhya A 25, 1963). A value at the
    edge counts in part, so that 14 values are trimmed like 24. If all times double, so does the location.

    ``values``: at least one, in nanoseconds, in any order, shape ``(values,)``.
    """
    logs = np.log(np.maximum(np.sort(values), _LEAST_NS))
    weights = trimmed_shares(np.arange(1, logs.size + 1) / logs.size)
    return math.exp(float(weights @ logs) / float(weights.sum()))


def trimmed_shares(cumulated: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight of each of some ascending values in a location.

    ``cumulated``: share of all values that are at most each of these; the last one is 1. Shape ``(..., values)``.
    Returns weights of the same shape.
    """
    return np.diff(np.minimum(cumulated, 1 - TRIM), axis=-1, prepend=0.0)
