"""How much more measuring would decide an open comparison. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mlpatterns.records.launch import Estimate

__all__ = ["seconds_to_decide"]

_CLOSEST = 0.02
"""Smallest distance from the tolerance for which a time is given; closer changes are decided by chance."""
_SPARE = 1.2


def seconds_to_decide(
    change: Estimate, tolerance: float, spent_s: float, *, launches: int, recorded: int = 0
) -> float | None:
    """About how many seconds of measuring would move the interval of a change off its tolerance.

    The interval's half-width falls with the root of the launches. Those of a baseline are fixed: with n launches beside
    m recorded ones it is proportional to sqrt(1/n + 1/m).

    Args:
        change: relative; worse is positive.
        tolerance: that the interval includes.
        spent_s: measuring time of the launches so far.
        launches: of the present, so far.
        recorded: launches of the baseline; 0 if both sides are measured together.

    Returns:
        The time in all, at least ``spent_s``; None if no number of launches suffices, or the change is too close to the
        tolerance.
    """
    half = (_log(change.high) - _log(change.low)) / 2
    apart = abs(_log(change.value) - _log(tolerance))
    if apart < _CLOSEST or half <= 0 or launches < 1:
        return None
    fixed = 1 / recorded if recorded else 0.0
    wanted = (1 / launches + fixed) * (apart / half) ** 2 - fixed
    if wanted <= 0:
        return None
    return max(spent_s, _SPARE * spent_s / (launches * wanted))


def _log(change: float) -> float:
    return math.log(max(1 + change, 1e-3))
