"""Whether times have two modes, such as requests that find a slot free and requests that wait for it. Pure.

It must not know what is judged: its answer is for the words of a verdict, and for how far shares may differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.distributions import binomial_tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Modes", "find_modes"]

_MOST = 2048
"""Values that are looked at; of more, evenly spaced ones, since so many show any valley."""
_STRAY = 0.025
"""Share at each end that is pulled in before the values are split, so that stragglers make no group of their own."""
_LEAST_SHARE, _LEAST = 0.1, 5
"""Smallest share and number of values of a group: a rarer one is a tail, which is judged by its percentiles."""
_APART = math.log(1.2)
"""Smallest distance of two modes, on the logarithm: launches of one deployment differ by up to 8 %."""
_VALLEY = 0.25
"""Largest number of values between the modes, as a share of those at the lower one of them."""
_CHANCE = 0.002
"""Probability with which a single mode may look like two: 0.0 to 0.5 % of simulated samples of one mode do, those of
queues and of heavy tails too (``benchmarks/limit_simulation.py``)."""


@dataclass(frozen=True, slots=True)
class Modes:
    """Two modes.

    Attributes:
        low: median of the lower group.
        high: median of the upper group.
        valley: the value halfway between them, on the logarithm.
        low_share: share of the values in the lower group.
    """

    low: float
    high: float
    valley: float
    low_share: float


def find_modes(ascending: NDArray[np.int64] | NDArray[np.float64]) -> Modes | None:
    """The two modes of values above zero; None if there is one, or if so few values do not show two.

    The values are split on the logarithm where the variance within both groups is least (Otsu, IEEE Transactions on
    Systems, Man, and Cybernetics 9, 1979). A density with one mode is between two points never below the lower one of
    them. So the values in three windows of one width are counted, around both medians and halfway between them: the
    middle one has too few for one mode by the binomial test.

    Args:
        ascending: the values, shape ``(values,)``.
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
