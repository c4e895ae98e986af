"""How much longer something takes per request, from pairs of neighbouring blocks, and how sure that is.

Pure. A slower machine slows both blocks of a pair. What differs beyond that has three sources: samples are counted,
blocks scatter, and two starts of the same code are never equally fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.intervals import CONFIDENCE, prior_weight, t_quantile
from pytest_mlpatterns.analysis.log_ratio import RATIO_SD
from pytest_mlpatterns.records.launch import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TimeChange", "time_change"]

_PRIOR_DEGREES = 12.0
"""Degrees of freedom that the expected variance is worth; fewer if the blocks contradict it."""
_BLOCK_SD = 0.02
"""Standard deviation of the ratio of neighbouring blocks, beyond the counting of samples; the prior."""
_LEAST_VARIANCE = 1.0


@dataclass(frozen=True, slots=True)
class TimeChange:
    """Times per request in nanoseconds, means over blocks, and their difference.

    Attributes:
        before_ns: at the reference.
        now_ns: at present.
        error_ns: standard error of the difference.
        degrees: degrees of freedom of that error.
    """

    before_ns: float
    now_ns: float
    error_ns: float
    degrees: float

    @property
    def value_ns(self) -> float:
        """The difference, above zero if it got slower."""
        return self.now_ns - self.before_ns

    @property
    def level_ns(self) -> float:
        """The longer of the two times."""
        return max(self.before_ns, self.now_ns)

    def estimate(self, confidence: float = CONFIDENCE) -> Estimate:
        """The difference with its interval."""
        half = t_quantile(confidence, self.degrees) * self.error_ns
        return Estimate(self.value_ns, self.value_ns - half, self.value_ns + half)

    def is_sure(self, confidence: float) -> bool:
        """Whether the interval of this confidence is without zero."""
        return abs(self.value_ns) > t_quantile(confidence, self.degrees) * self.error_ns


def time_change(
    before_ns: NDArray[np.float64],
    now_ns: NDArray[np.float64],
    variance: NDArray[np.float64],
    *,
    lost_ratio: float = 0.0,
) -> TimeChange:
    """The mean over pairs of blocks of now - before.

    With x the n differences, m their mean, v0 the expected variance of one and k0 = 12 the degrees of freedom that it
    is worth, the squared error is

        (k v0 + Σ(x - m)²) / (k + n - 1) / n + (s level)²,  k = k0 min(1, v0 / first),
        first = (k0 v0 + Σ(x - m)²) / (k0 + n - 1)

    with t at k + n - 1 degrees of freedom, as :mod:`pytest_mlpatterns.analysis.log_ratio` does. v0 is the variance from
    counting and that of blocks, 2 % of the time. The last term is what blocks cannot show: two starts of equal code
    differ by 1.5 %, and samples that only one side lost make its other functions seem slower by their share l;
    s² = 0.015² + l².

    Args:
        before_ns: time per request in each block of the reference, shape ``(pairs,)``.
        now_ns: the same of the present.
        variance: of the difference of each pair, from the counting of samples alone, shape ``(pairs,)``.
        lost_ratio: by how much the shares of lost samples of the two sides differ.
    """
    difference = now_ns - before_ns
    pairs = len(difference)
    before, now = float(before_ns.mean()), float(now_ns.mean())
    level = max(before, now)
    expected = max(float(variance.mean()) + (_BLOCK_SD * level) ** 2, _LEAST_VARIANCE)
    scatter = float(((difference - difference.mean()) ** 2).sum())
    prior = prior_weight(_PRIOR_DEGREES, expected, scatter=scatter, degrees=pairs - 1)
    degrees = prior + pairs - 1
    within = (prior * expected + scatter) / degrees / pairs
    return TimeChange(before, now, math.sqrt(within + (RATIO_SD**2 + lost_ratio**2) * level**2), degrees)
