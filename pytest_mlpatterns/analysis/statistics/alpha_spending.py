"""Group-sequential plan with alpha spending: when a growing sample is judged, and at which confidence.

Every interim look at the data is another chance of a wrong verdict, and so is every metric. Each look has its own
level, chosen so that all looks together keep the error probability of a single one (alpha spending: Lan & DeMets,
"Discrete sequential boundaries for clinical trials", Biometrika 70, 1983, with their function near Pocock's boundary;
levels applied to Student's t as in Pocock, Biometrika 64, 1977). Several metrics share the probability of a false
alarm. They do not share that of a false pass, because a test passes only if every metric does (the intersection-union
test: Berger, Technometrics 24, 1982).

The looks of a comparison beside a stored baseline, and paired with a revision, are made here too; the changes that an
entry sees use the same ones. Pure. This module must not know what is measured, nor how.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

BASELINE_ALPHA = 0.01
"""Probability that a comparison with a stored baseline fails a change exactly at the tolerance, over all looks and
metrics; the same of passing one."""
REVISION_ALPHA = 0.025
"""The same of an interleaved run: the probability of failing a change exactly at the tolerance, and of passing one just
beyond it."""
CONFIRMING_LAUNCHES = 2  # Launches that a failing verdict rests on, if the test allows that many
FEWEST_PAIRS = 3
"""Paired launches before the first look.

Of services that settle at even chances in one of two ways and take 20 % longer, 0.9 % pass by looks from the third pair
on, and 3.4 % by looks from the second on, even if that has to agree to 3 %. Of unchanged ones beside an entry of four
launches, which the file sees worse, 0.3 % fail by three pairs, 1.5 % by two.
"""
CONFIRMING_PAIRS = 4
"""Pairs that a failing ratio rests on, if the budget has time for them. If a service settles at even chances in one of
two ways, 1.6 % of unchanged runs have the slower one on the present side of three pairs, and 0.4 % of four."""
_SPARE_LOOKS = 1
"""Looks beyond those that fit: three or four launches know their scatter less surely than Student's t has it. Over the
families of ``benchmarks/location_simulation.py`` 2.3 % of changes of exactly the tolerance fail with none, 2.1 % with
one, and 1.6 % with five; of the unchanged runs of ``slot_simulation.py`` these leave 8, 8 and 18 % open in 30 s."""
_PAIR_NS = 1_500_000_000
"""Shortest paired launch; the launches that fit into the budget bound the number of interim looks."""


def looks_beside_entry(recorded: int, *, launches: int, alpha: float) -> SequentialPlan:
    """The interim looks beside a stored baseline: after each launch.

    ``alpha``: probability of failing a change exactly at the tolerance, of this metric.
    """
    return SequentialPlan(
        first=1, last=launches, alpha=alpha, pass_alpha=BASELINE_ALPHA, fixed_launches=max(recorded, 1)
    )


def looks_of_pairs(tolerance: float, alpha: float, budget_ns: int) -> SequentialPlan:
    """The interim looks at paired launches, planned before the first one.

    ``alpha``: probability of failing a change exactly at the limit.
    """
    return SequentialPlan.for_tolerance(tolerance, alpha, most=budget_ns // _PAIR_NS)


def looks_that_fit(looks: SequentialPlan, budget_ns: int, launch_s: float, *, beyond_ns: int = 0) -> SequentialPlan:
    """The looks for which the budget has time, as the launches before the first look show.

    A look that never happens wastes its share of the error probability: if fourteen were planned, the interval of three
    launches is 1.3 times as wide. How long launches take has no part in their ratio. ``beyond_ns``: time at the end of
    the budget that is not planned for.
    """
    planned, last = (
        min(looks.last, max(int(time_ns / (1e9 * max(launch_s, 1e-9))), looks.first) + _SPARE_LOOKS)
        for time_ns in (budget_ns - beyond_ns, budget_ns)
    )
    return replace(looks, planned=planned, last=last)


_NODES = 96  # Gauss-Legendre nodes of the numerical integration
_FURTHER = 0.1
"""Part of a level that the looks beyond the planned ones share. If half of a budget is planned for, the intervals at
planned looks are 3 % wider; they would be up to 13 % wider if all looks shared alike."""
_REACH = 7.0  # Standard deviations on each side that the numerical integration covers
_NEWTON_STEPS, _CLOSE = 50, 1e-9
_FEWEST_LOOKS, _USUAL_LOOKS = 8, 14
MOST_LOOKS = 24  # Most looks of any plan, and so the most pairs of a comparison
_PLANNED_SD = 0.043  # Relative standard deviation between launches that a plan is made for
_PLANNED_QUANTILES = 4.5  # Sum of the quantiles of error and power in the size of a plan (2.5 % and 0.6 %)


class SequentialPlan(Struct, frozen=True):
    """Looks after launch ``first`` and after each further one up to ``last``."""

    first: int = 3  # launches before the first look, at least 1
    last: int = 18  # most launches
    planned: int | None = None  # launches that are planned for; None for ``last``
    # probability, over all interim looks, of failing a change exactly at the limit; divided by the number of
    # metrics judged together
    alpha: float = 0.01
    pass_alpha: float | None = None  # the same for passing a change exactly at the limit; None for ``alpha``
    # size of a fixed second sample, such as a stored baseline; None for a one-sample test. The information then
    # grows as 1 / (1/n + 1/fixed_launches), not as n
    fixed_launches: int | None = None
    # launches of the first look that counts, if earlier ones looked at other values; the levels are the same
    since: int = 1

    def __post_init__(self) -> None:
        levels = (self.alpha, self.alpha if self.pass_alpha is None else self.pass_alpha)
        if not 1 <= self.first <= self.last or not all(0 < level < 0.5 for level in levels):
            raise ValueError(f"{self!r}, expected 1 <= first <= last and alpha between 0 and 0.5")

    @classmethod
    def for_tolerance(
        cls, tolerance: float, alpha: float = 0.01, pass_alpha: float | None = None, *, most: int = MOST_LOOKS
    ) -> SequentialPlan:
        """A plan long enough to distinguish a change of twice the tolerance from one at the tolerance.

        With a standard deviation s of 4.3 % from launch to launch (blocks that vary by 6 %) that takes about
        (4.5 s / log((1 + 2 tolerance) / (1 + tolerance)))² launches, 4.5 being the quantiles of both errors together.

        ``tolerance``: 0.05 for 5 %. ``most``: launches that fit the budget; a look that never happens wastes its share
        of alpha. The plan has at least eight looks, and fourteen where the budget allows them: of unchanged services
        whose launches differ by 4 %, eight leave one of eight undecided, and twelve one of forty.
        """
        apart = math.log((1 + 2 * tolerance) / (1 + tolerance))
        needed = MOST_LOOKS if apart <= 0 else math.ceil((_PLANNED_QUANTILES * _PLANNED_SD / apart) ** 2)
        return cls(
            last=max(min(max(needed, _USUAL_LOOKS), most, MOST_LOOKS), _FEWEST_LOOKS),
            alpha=alpha,
            pass_alpha=pass_alpha,
        )

    def confidence(self, launches: int) -> float:
        """Confidence of the two-sided interval whose better end decides a FAIL.

        ``launches``: size of the sample; fewer than ``first`` count as ``first``, more than ``last`` as ``last``.
        """
        return self._confidence(launches, self.alpha)

    def confidence_of_pass(self, launches: int) -> float:
        """Confidence of the two-sided interval whose worse end decides a PASS; see :meth:`confidence`."""
        return self._confidence(launches, self.alpha if self.pass_alpha is None else self.pass_alpha)

    def _confidence(self, launches: int, alpha: float) -> float:
        numbers = range(self.first, self.last + 1)
        information = tuple(self._information(number) for number in numbers)
        planned = self._information(min(self.planned or self.last, self.last))
        levels = _levels(information, alpha, planned)
        return 1 - 2 * levels[min(max(launches, self.first), self.last) - self.first]

    def _information(self, launches: int) -> float:
        return float(launches) if self.fixed_launches is None else 1 / (1 / launches + 1 / self.fixed_launches)


@cache
def _levels(information: tuple[float, ...], alpha: float, planned: float) -> tuple[float, ...]:
    """The one-sided level of each look: the probability of crossing its boundary at that look alone.

    With I the information at a look, proportional to one over the variance, and J that at the last planned look,
    alpha log(1 + (e - 1) I / J) is spent until then, less what looks beyond it share evenly. The sum S = I × estimate
    has independent increments of variance I. The boundary of a look is the one that S crosses for the first time with
    the probability spent at that look. The density of the sums that never crossed a boundary is carried from look to
    look by integration over Gauss-Legendre nodes (Armitage, McPherson & Rowe, Journal of the Royal Statistical Society
    A 132, 1969).

    ``information``: at each look, ascending. ``alpha``: probability that all looks spend together. ``planned``:
    information at the last planned look.
    """
    further = _FURTHER * alpha if planned < information[-1] else 0.0
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    levels: list[float] = []
    sums, mass = np.zeros(1), np.ones(1)
    spent, before = 0.0, 0.0
    for known in information:
        deviation = math.sqrt(known - before)
        target = (alpha - further) * math.log(1 + (math.e - 1) * min(known / planned, 1.0)) - spent
        if known > planned:
            target += further * (known - planned) / (information[-1] - planned)
        boundary = _boundary(sums, mass, deviation, target=target)
        levels.append(math.erfc(boundary / math.sqrt(2 * known)) / 2)
        start = -_REACH * math.sqrt(known)
        found = start + (boundary - start) * (nodes + 1) / 2
        density = (
            np.exp(-(((found[:, None] - sums[None, :]) / deviation) ** 2) / 2)
            @ mass
            / (deviation * math.sqrt(2 * math.pi))
        )
        sums, mass = found, density * weights * (boundary - start) / 2
        spent, before = spent + target, known
    return tuple(levels)


def _boundary(sums: NDArray[np.float64], mass: NDArray[np.float64], deviation: float, *, target: float) -> float:
    """What the sum exceeds with probability ``target`` after a normal step.

    Newton's method on the logarithm of the probability, which falls ever faster: from above, it never steps too far.

    ``mass``: probability of each. ``deviation``: standard deviation of the step. ``target``: probability.
    """
    boundary = float(sums.max()) + _REACH * deviation
    for _ in range(_NEWTON_STEPS):
        z = (boundary - sums) / (deviation * math.sqrt(2))
        over = float(mass @ [math.erfc(value) for value in z.tolist()]) / 2
        density = float(mass @ np.exp(-(z**2))) / (deviation * math.sqrt(2 * math.pi))
        step = over / density * math.log(over / target)
        boundary += step
        if abs(step) < _CLOSE * deviation:
            break
    return boundary
