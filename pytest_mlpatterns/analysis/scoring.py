"""The score of a pattern: metrics × weights, normalised, with how sure the order is.

With ``x_ij`` the value of metric j under pattern i and ``b_j`` the best value among the patterns,

    r_ij = b_j / x_ij where lower is better, x_ij / b_j where higher is better     (0 < r_ij <= 1)
    s_i  = product over j of r_ij ** w_j,  with the weights w_j summing to 1       (0 < s_i <= 1)

which is the weighted product model (Bridgman 1922; Miller & Starr 1969), a weighted geometric mean of shares of the
best. The ratio of two scores holds the values of these two patterns only: it changes neither with the units nor with
which other patterns were measured, where min-max normalisation and sums of it flip orders when an alternative is added.
For the same reason geometric means are the ones that summarise normalised benchmarks (Fleming & Wallace, CACM 1986).
The price: a score is a bargain, not a quantity. Twice the RTM at weight 0.5 is forgiven for four times the NMRT at
weight 0.25; what may not be bargained away is a requirement. Values below what a comparison takes seriously (5 µs, a
share of 1 %) count as that: nothing is infinitely better for being nearly zero.

How sure: every metric's interval over launches is drawn from again, 4,000 times, as Student's t of its logarithm. The
metrics of one pattern move together, since a slow launch is slow in all of them; a search for NMRT, which is another
measurement, by itself. The patterns were measured one after the other while the machine drifts, so each draw moves a
pattern as a whole by 2.5 % more (:data:`DRIFT_SD`). One pattern is ahead of another if it is in 97.5 % of the draws.
Of simulated pairs with that drift, two that are the same are told apart in 2 to 5 %, and two that differ by a fifth in
everything in 95 to 99 %, with one to four launches.

Pure. Draws are seeded by the name of the alternative: the same values give the same ranking, and the draws of
one pattern do not depend on the other patterns.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.intervals import CONFIDENCE, PRIOR_DEGREES, t_quantile
from pytest_mlpatterns.units import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.metric_definitions import Metric

__all__ = ["DRIFT_SD", "Alternative", "Cost", "RankedAlternative", "cost_of", "order"]

DRIFT_SD = 0.025
"""Relative standard deviation by which one deployment drifts within minutes: ±5 % was seen on a shared machine."""
_DRAWS = 4000
_AHEAD = 0.5 + CONFIDENCE / 2
_SMALLEST = {
    Unit.DURATION: 1_000.0,
    Unit.SIZE: 1.0,
    Unit.RATIO: 0.001,
    Unit.RATE: 0.001,
    Unit.TOKEN_RATE: 0.001,
    Unit.COST: 1e-9,
    Unit.ENERGY: 1e-6,
    Unit.PER_SECOND: 0.001,
    Unit.COUNT: 0.001,
}
"""Values are at least this or the metric's floor, whichever is larger, by the unit of the metric."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The logarithm of one metric under one pattern, turned so that more is worse, with its 95 % interval.

    ``degrees`` of freedom are those of the interval. ``drifts`` says that the machine moves it, ``apart`` that it was
    measured by itself, ``at_most`` that the cost may be any smaller.
    """

    value: float
    low: float
    high: float
    degrees: int
    drifts: bool
    apart: bool
    at_most: bool


@dataclass(frozen=True, slots=True)
class Alternative:
    """One pattern by a name of its own, and its costs by metric."""

    name: str
    costs: Mapping[str, Cost]

    @property
    def may_be_better(self) -> bool:
        """Whether only a bound is known of a metric, so that its true value may be better."""
        return any(cost.at_most for cost in self.costs.values())

    def total(self, weights: Mapping[str, float]) -> float:
        """The logarithm of one over the score, up to a constant that all patterns share."""
        return sum(weight * self.costs[name].value for name, weight in weights.items())


@dataclass(frozen=True, slots=True)
class RankedAlternative:
    """An alternative with its rank.

    Attributes:
        name: name of the alternative.
        rank: shared by alternatives that are not distinguishable from the first of them.
        rank_low: the best rank within 95 % confidence.
        rank_high: the worst rank within 95 % confidence.
        score: value, low and high; 1 is the best in every metric.
        shares: by metric, of the best; 1 is the best.
    """

    name: str
    rank: int
    rank_low: int
    rank_high: int
    score: tuple[float, float, float]
    shares: Mapping[str, float]


def cost_of(metric: Metric, values: tuple[float, float, float], launches: int, *, at_least: bool = False) -> Cost:
    """A metric as a cost.

    Args:
        metric: its definition.
        values: value, low and high, in the metric's unit.
        launches: number of launches behind the interval.
        at_least: whether the value is only a bound, and the true one may be better.
    """
    smallest = max(metric.floor, _SMALLEST[metric.unit])
    value, low, high = (math.log(max(number, smallest)) for number in values)
    if metric.better == "higher":
        value, low, high = -value, -high, -low
    return Cost(
        value=value,
        low=min(low, value),
        high=max(high, value),
        degrees=PRIOR_DEGREES + max(launches, 1) - 1,
        drifts=metric.launch_sd > 0,
        apart=metric.of is None,
        at_most=at_least,
    )


def order(alternatives: Sequence[Alternative], weights: Mapping[str, float]) -> tuple[RankedAlternative, ...]:
    """The alternatives in order, the best first.

    Args:
        alternatives: each with a cost for every weight.
        weights: by metric, at least one; they sum to 1.
    """
    if not alternatives:
        return ()
    best = {name: min(one.costs[name].value for one in alternatives) for name in weights}
    ideal = sum(weight * best[name] for name, weight in weights.items())
    ranked = sorted(alternatives, key=lambda one: one.total(weights))
    draws = np.stack([_draws(one, weights) for one in ranked])
    ahead = (draws[:, None, :] < draws[None, :, :]).mean(axis=2)  # [a, b]: how often a was ahead of b
    before = (draws[None, :, :] < draws[:, None, :]).sum(axis=1)  # [a, draw]: how many were ahead of a
    level = (draws[None, :, :] <= draws[:, None, :]).sum(axis=1)  # [a, draw]: ahead of a, or level with it
    result: list[RankedAlternative] = []
    leader = 0
    for number, one in enumerate(ranked):
        if ahead[leader, number] >= _AHEAD and not one.may_be_better:
            leader = number
        totals = [float(total) for total in np.quantile(draws[number], (_AHEAD, 1 - _AHEAD))]
        score, low, high = (math.exp(ideal - total) for total in (one.total(weights), *totals))
        lowest = 1 if one.may_be_better else 1 + int(np.quantile(before[number], 1 - _AHEAD, method="lower"))
        overtaken_by = sum(other.may_be_better for other in ranked[number + 1 :])
        highest = min(int(np.quantile(level[number], _AHEAD, method="higher")) + overtaken_by, len(ranked))
        result.append(
            RankedAlternative(
                name=one.name,
                rank=leader + 1,
                rank_low=min(lowest, leader + 1),
                rank_high=max(highest, leader + 1),
                score=(score, min(low, score), max(high, score)),
                shares={name: math.exp(best[name] - one.costs[name].value) for name in weights},
            )
        )
    return tuple(result)


def _draws(alternative: Alternative, weights: Mapping[str, float]) -> NDArray[np.float64]:
    """The alternative's total cost, drawn again: shape ``(4000,)``."""
    seed = zlib.crc32(alternative.name.encode())
    rng = np.random.default_rng(seed)
    together = rng.standard_normal(_DRAWS)
    drifting = sum(weight for name, weight in weights.items() if alternative.costs[name].drifts)
    total = drifting * rng.normal(0.0, DRIFT_SD, _DRAWS)
    for name, weight in weights.items():
        cost = alternative.costs[name]
        own = np.random.default_rng((seed, zlib.crc32(name.encode())))  # independent of the order of the weights
        normal = own.standard_normal(_DRAWS) if cost.apart else together
        t = normal / np.sqrt(own.chisquare(cost.degrees, _DRAWS) / cost.degrees)
        half = np.where(t > 0, cost.high - cost.value, cost.value - cost.low)
        total += weight * (cost.value + half * t / t_quantile(CONFIDENCE, cost.degrees))
    return total
