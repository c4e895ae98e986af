"""The order in which inputs are sent: shuffled, as listed, uniformly at random, or by a Zipf law.

Pure. The order is drawn once before the load, so that drawing costs nothing while the load runs.
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.random import default_rng  # at once: an interrupt that arrives while it loads can be lost in its C code
from numpy.typing import NDArray

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import MAX_SEED, plain_number, set_whole
from pytest_mlpatterns.wording import shown

_SHUFFLE_SEED = 0  # Seed of the order of lists; another one would make every baseline not comparable

DRAWS = 1 << 18  # Number of draws; a longer load repeats them


@dataclass(frozen=True, slots=True, eq=False)
class InOrder:
    """Inputs in the order in which they are listed, again and again from the first one, instead of shuffled.

    Requests that build on each other need it. Every launch begins with the first input and measures as many as it has
    time for: of a list that is sorted by cost, a slower service is measured with earlier, cheaper inputs.
    """

    inputs: Any  #: inputs as in ``perf_payload``


class Shuffled(Struct, frozen=True):
    """Each input once in a fixed random order, again and again: the order of a list.

    A window then measures a sample of the whole list, however few of its inputs it reaches.
    """

    def __str__(self) -> str:
        return "shuffled"

    def order(self, count: int) -> bytes:
        """The indices below ``count`` in order, as native unsigned 32-bit integers."""
        return default_rng(_SHUFFLE_SEED).permutation(count).astype(np.uint32).tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class Uniform:
    """Inputs drawn independently, each with the same probability."""

    inputs: Any  #: inputs as in ``perf_payload``
    seed: int = 0  #: seed of the draws; the same seed gives the same order

    def __post_init__(self) -> None:
        set_whole(self, "seed", least=0, most=MAX_SEED)

    def __str__(self) -> str:
        return f"uniform(seed={self.seed})"

    def order(self, count: int) -> bytes:
        """The drawn indices below ``count`` in order, as native unsigned 32-bit integers."""
        return default_rng(self.seed).integers(0, count, DRAWS, dtype=np.uint32).tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class Zipf:
    """Inputs drawn by a Zipf law: the probability of the k-th input is proportional to ``k ** -exponent``.

    Real traffic repeats itself in this way, and a cache depends on it.

    Raises:
        SettingError: an exponent that is negative or not a number.
    """

    inputs: Any  #: inputs as in ``perf_payload``, the most popular first
    exponent: float = 1.0  #: steepness; 0 is uniform, web traffic is near 1
    seed: int = 0  #: seed of the draws; the same seed gives the same order

    def __post_init__(self) -> None:
        set_whole(self, "seed", least=0, most=MAX_SEED)
        exponent = plain_number(self.exponent)
        if exponent is None or not 0 <= exponent <= sys.float_info.max:
            raise SettingError(
                f"Zipf(exponent={shown(self.exponent)}), expected a number that is not negative; write 1.1"
            )
        object.__setattr__(self, "exponent", float(exponent))

    def __str__(self) -> str:
        return f"zipf(exponent={self.exponent:g}, seed={self.seed})"

    def order(self, count: int) -> bytes:
        """The drawn indices below ``count`` in order, as native unsigned 32-bit integers."""
        cumulated = np.cumsum(zipf_probabilities(count, self.exponent))
        points = default_rng(self.seed).random(DRAWS)
        return np.minimum(np.searchsorted(cumulated, points), count - 1).astype(np.uint32).tobytes()


def zipf_probabilities(count: int, exponent: float) -> NDArray[np.float64]:
    """The probability of each of ``count`` inputs, shape ``(count,)``; the sum is 1."""
    weights = np.power(np.arange(1, count + 1, dtype=np.float64), -exponent)
    total: np.float64 = weights.sum()
    return np.divide(weights, total)
