"""When growing evidence is judged, and how sure each verdict has to be, so that all together are seldom wrong.

Every look is another chance to be wrong, and so is every metric. Each look has a level of its own, so that all of them
together are wrong at most as often as one look may be (alpha spending: Lan & DeMets, "Discrete sequential boundaries
for clinical trials", Biometrika 70, 1983, with their function near Pocock's boundary; levels applied to Student's t as
in Pocock, Biometrika 64, 1977). Several metrics share the chance of a false alarm. They need not share that of a pass
which should not be, as a test passes only where each of them does (the intersection-union test: Berger, Technometrics
24, 1982).

Pure. It must not know what is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

__all__ = ["SequentialPlan"]

_NODES = 96
_REACH = 7.0
_FEWEST_LOOKS, _MOST_LOOKS = 8, 24
_PLANNED_SD = 0.043
_PLANNED_QUANTILES = 4.5


@dataclass(frozen=True, slots=True)
class SequentialPlan:
    """It is judged after the ``first`` launch of so many and each that follows, the ``last`` included.

    Args:
        first: launches before the first look.
        last: most launches.
        alpha: the chance that any of the looks fails what is just good enough. Where several metrics are judged, their
            share of it.
        passing: likewise, that any passes what is just not good enough; None for the same.
        beside: launches of another side that are there already and stay as they are, such as a baseline's; None where
            what is judged comes from these launches alone. What is known then grows as 1 / (1/n + 1/beside), not as n.

    Raises:
        ValueError: no look, or a chance that is none.
    """

    first: int = 3
    last: int = 18
    alpha: float = 0.01
    passing: float | None = None
    beside: int | None = None

    def __post_init__(self) -> None:
        chances = (self.alpha, self.alpha if self.passing is None else self.passing)
        if not 1 <= self.first <= self.last or not all(0 < chance < 0.5 for chance in chances):
            raise ValueError(f"{self!r}, expected 1 <= first <= last and alpha between 0 and 0.5")

    @classmethod
    def for_tolerance(
        cls, tolerance: float, alpha: float = 0.01, passing: float | None = None, most: int = _MOST_LOOKS
    ) -> SequentialPlan:
        """As many looks as it can take to tell twice the tolerance from the tolerance, and as there will be.

        With a standard deviation s of 4.3 % from launch to launch (blocks that vary by 6 %) that takes about
        (4.5 s / log((1 + 2 tolerance) / (1 + tolerance)))² launches, 4.5 being the quantiles of both errors together.

        Args:
            tolerance: 0.05 for 5 %.
            alpha: as above.
            passing: as above.
            most: launches for which there is time; chances that are kept for looks which never come are lost. Eight
                are planned for in any case.
        """
        apart = math.log((1 + 2 * tolerance) / (1 + tolerance))
        needed = _MOST_LOOKS if apart <= 0 else math.ceil((_PLANNED_QUANTILES * _PLANNED_SD / apart) ** 2)
        return cls(last=max(min(needed, most, _MOST_LOOKS), _FEWEST_LOOKS), alpha=alpha, passing=passing)

    def confidence(self, launches: int) -> float:
        """Confidence of the two-sided interval whose good end a FAIL after so many launches is judged by.

        Fewer launches than the first look has are judged as at the first look, more than the last as at the last.
        """
        return self._confidence(launches, self.alpha)

    def confidence_of_pass(self, launches: int) -> float:
        """Likewise, of the interval whose bad end a PASS is judged by."""
        return self._confidence(launches, self.alpha if self.passing is None else self.passing)

    def _confidence(self, launches: int, alpha: float) -> float:
        numbers = range(self.first, self.last + 1)
        information = tuple(self._information(number) for number in numbers)
        return 1 - 2 * _levels(information, alpha)[min(max(launches, self.first), self.last) - self.first]

    def _information(self, launches: int) -> float:
        return float(launches) if self.beside is None else 1 / (1 / launches + 1 / self.beside)


@cache
def _levels(information: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """The one-sided level of each look: the chance of being over its boundary at that look alone.

    With I the information at a look, in proportion to one over the variance, and J that at the last, alpha log(1 +
    (e - 1) I / J) is spent until then. The sum S = I × estimate has independent increments of variance I, so the
    boundary of each look is the one over which S is for the first time with the chance that is spent at that look; the
    density of the sums that were never over is carried from look to look by integration over Gauss-Legendre nodes
    (Armitage, McPherson & Rowe, Journal of the Royal Statistical Society A 132, 1969).
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    levels: list[float] = []
    sums, mass = np.zeros(1), np.ones(1)
    spent, before = 0.0, 0.0
    for known in information:
        spread = math.sqrt(known - before)
        target = alpha * math.log(1 + (math.e - 1) * known / information[-1]) - spent
        low, high = -_REACH * math.sqrt(known), _REACH * math.sqrt(known)
        for _ in range(50):
            boundary = (low + high) / 2
            over = sum(
                m * math.erfc((boundary - s) / (spread * math.sqrt(2))) / 2 for s, m in zip(sums, mass, strict=True)
            )
            low, high = (boundary, high) if over > target else (low, boundary)
        levels.append(math.erfc(boundary / math.sqrt(2 * known)) / 2)
        start = -_REACH * math.sqrt(known)
        found = start + (boundary - start) * (nodes + 1) / 2
        density = (
            np.exp(-(((found[:, None] - sums[None, :]) / spread) ** 2) / 2) @ mass / (spread * math.sqrt(2 * math.pi))
        )
        sums, mass = found, density * weights * (boundary - start) / 2
        spent, before = spent + target, known
    return tuple(levels)
