"""Tail probabilities of the binomial distribution and of Student's t, without a dependency on scipy. Pure."""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["binomial_tail", "incomplete_beta", "student_tail", "with_uncertain_scale"]

_TINY = 1e-300
_MOST_STEPS = 10_000


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b).

    The continued fraction converges fast below x = (a + 1) / (a + b + 2), and I_x(a, b) = 1 - I_(1-x)(b, a) elsewhere
    (Abramowitz & Stegun, Handbook of Mathematical Functions, 26.5.2 and 26.5.8; evaluated by Lentz's method).

    Args:
        a: above zero.
        b: above zero.
        x: 0 to 1.
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
