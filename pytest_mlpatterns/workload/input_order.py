"""In which order requests are drawn from the inputs: in turn, uniformly at random, or by a Zipf law.

Values, and pure functions of them; the draws are made once, before the load, so that drawing costs nothing in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import plain_number, set_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DRAWS", "Uniform", "Zipf", "zipf_probabilities"]

DRAWS = 1 << 18
"""So many draws are made; a longer load begins them again."""


@dataclass(frozen=True, slots=True, eq=False)
class Uniform:
    """Inputs drawn independently, each as likely as any other.

    Args:
        inputs: what ``perf_payload`` may be otherwise.
        seed: of the draws; the same seed gives the same order.
    """

    inputs: Any
    seed: int = 0

    def __post_init__(self) -> None:
        set_whole(self, "seed", least=0)

    def __str__(self) -> str:
        return f"uniform(seed={self.seed})"

    def order(self, count: int) -> bytes:
        """Indices below ``count`` in the order of the draws, unsigned 32-bit, native."""
        return np.random.default_rng(self.seed).integers(0, count, DRAWS, dtype=np.uint32).tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class Zipf:
    """Inputs drawn by a Zipf law: the k-th of them with a probability in proportion to ``k ** -exponent``.

    Real traffic repeats itself like that, which is what a cache lives on.

    Args:
        inputs: what ``perf_payload`` may be otherwise, the most popular first.
        exponent: how steep; 0 is uniform, web traffic is near 1.
        seed: of the draws; the same seed gives the same order.

    Raises:
        SettingError: an exponent that is negative or no number.
    """

    inputs: Any
    exponent: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        set_whole(self, "seed", least=0)
        exponent = plain_number(self.exponent)
        if exponent is None or not 0 <= float(exponent) < math.inf:
            raise SettingError(f"Zipf(exponent={self.exponent!r}), expected a number that is not negative; write 1.1")
        object.__setattr__(self, "exponent", float(exponent))

    def __str__(self) -> str:
        return f"zipf(exponent={self.exponent:g}, seed={self.seed})"

    def order(self, count: int) -> bytes:
        """Indices below ``count`` in the order of the draws, unsigned 32-bit, native."""
        cumulated = np.cumsum(zipf_probabilities(count, self.exponent))
        points = np.random.default_rng(self.seed).random(DRAWS)
        return np.minimum(np.searchsorted(cumulated, points), count - 1).astype(np.uint32).tobytes()


def zipf_probabilities(count: int, exponent: float) -> NDArray[np.float64]:
    """Probabilities of the first to the last of ``count`` inputs, which sum to 1."""
    weights = np.power(np.arange(1, count + 1, dtype=np.float64), -exponent)
    total: np.float64 = weights.sum()
    return np.divide(weights, total)
