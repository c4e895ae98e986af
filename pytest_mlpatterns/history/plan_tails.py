"""Which changes of a percentile are seen beside a revision: launches whose slow requests are counted, judged again.

A tail is no value with a scatter: it is judged by counts of slow requests. So runs are drawn from measured launches,
one side takes longer by a factor, and the verdict itself is asked. This module must not know how launches are measured.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.changes.visibility import SEEN
from pytest_mlpatterns.analysis.verdicts.count_comparison import TAIL_ALPHA, judge_tail
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["is_judged", "seen_tail"]

_RUNS = 40
"""Drawn runs; each verdict takes a few milliseconds."""
_STEPS = 7
"""Halvings of the range in which the change of a run is looked for: it is found to three percent."""
_WIDEST = 3.0
"""Logarithm of the largest factor that is looked for: 20."""
_SEED = 33
"""Seed of the draws, so that the same launches give the same answer."""


def is_judged(counts: Sequence[RequestCounts], percentile: float, *, launches: int, tolerance: float) -> bool:
    """Whether a run of this many launches has enough requests for the percentile.

    Args:
        counts: of launches that were measured; empty if they are not known.
        percentile: 99 for p99.
        launches: of each side.
        tolerance: largest acceptable worsening, as a share.
    """
    if not counts:
        return False
    side = [counts[number % len(counts)] for number in range(launches)]
    try:
        judge_tail(side, side, percentile=percentile, tolerance=tolerance)
    except InvalidResultError:  # also too few requests
        return False
    return True


def seen_tail(counts: Sequence[RequestCounts], percentile: float, *, launches: int, tolerance: float) -> float | None:
    """The smallest factor on all times, less 1, with which the percentile fails in 95 % of runs; None if none does.

    Args:
        counts: see :func:`is_judged`.
        percentile: see :func:`is_judged`.
        launches: of each side.
        tolerance: largest acceptable worsening, as a share.
    """
    draw = np.random.default_rng(_SEED)
    found = []
    for _ in range(_RUNS):
        first, second = ([counts[one] for one in draw.integers(0, len(counts), launches).tolist()] for _ in range(2))
        found.append(_fails_from(first, second, percentile, tolerance=tolerance))
    factor = float(np.quantile(found, SEEN, method="higher"))
    return math.expm1(factor) if factor < _WIDEST else None


def _fails_from(
    first: Sequence[RequestCounts], second: Sequence[RequestCounts], percentile: float, *, tolerance: float
) -> float:
    """The logarithm of the factor on the times of the second side from which it fails; infinite if none does."""

    def fails(factor: float) -> bool:
        slower = [_slower(one, math.exp(factor)) for one in second]
        found = judge_tail(first, slower, percentile=percentile, tolerance=tolerance, alpha=TAIL_ALPHA)
        return found.outcome is Outcome.FAIL

    low, high = 0.0, _WIDEST
    try:
        if not fails(high):
            return math.inf
    except InvalidResultError:  # the percentile of the drawn reference falls among its failed requests
        return math.inf
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return high


def _slower(launch: RequestCounts, factor: float) -> RequestCounts:
    """The same launch with longer times."""
    latencies: Counter[int] = Counter()
    for latency, number in launch.latencies.items():
        latencies[round(latency * factor)] += number
    return RequestCounts(launch.requests, launch.failed, dict(latencies))
