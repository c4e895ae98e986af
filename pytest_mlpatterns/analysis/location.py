"""The location of a whole distribution of times, on the log scale: what a comparison judges where a median jumps.

Pure functions over plain arrays. This module must not know what is measured, blocks or launches.

A median of few values, or of two modes, says on which side of a gap it fell; all values together say where the
distribution is. ``benchmarks/location_simulation.py`` compares the candidates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TRIM", "location", "trimmed_shares"]

TRIM = 0.10
"""Share of the values that is left out, the slowest: a straggler among ten has no weight. Nothing makes a request as
much faster, and the fastest values say as much about modes as the others."""
_LEAST_NS = 1.0
"""Shortest time, so that each has a logarithm; imported times of whole milliseconds may be zero."""


def location(values: NDArray[np.int64] | NDArray[np.float64]) -> float:
    """The geometric mean of all values but the slowest tenth.

    With x(1) <= ... <= x(n) it is exp(Σ w(i) log x(i) / Σ w(i)), w(i) being the part of the ranks from (i - 1) / n to
    i / n that lies below 1 - :data:`TRIM` (a trimmed mean: Tukey & McLaughlin, Sankhya A 25, 1963). A value at the
    edge counts in part, so that 14 values are trimmed like 24. If all times double, so does the location.

    Args:
        values: at least one, in nanoseconds, in any order, shape ``(values,)``.
    """
    logs = np.log(np.maximum(np.sort(values), _LEAST_NS))
    weights = trimmed_shares(np.arange(1, logs.size + 1) / logs.size)
    return math.exp(float(weights @ logs) / float(weights.sum()))


def trimmed_shares(cumulated: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight of each of some ascending values in a location.

    Args:
        cumulated: share of all values that are at most each of these; the last one is 1. Shape ``(..., values)``.

    Returns:
        Weights of the same shape.
    """
    return np.diff(np.minimum(cumulated, 1 - TRIM), axis=-1, prepend=0.0)
