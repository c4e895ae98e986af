"""Ratios of paired launches of two kinds, without the part of each that is due to the kinds of its two sides.

Both sides of a pair settle by themselves, so that one may be of the faster kind and the other of the slower. Pure.
``benchmarks/launch_kinds_simulation.py`` counts the errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_mlpatterns.analysis.kind_verdicts import assignments, is_expected
from pytest_mlpatterns.analysis.launch_kinds import two_kinds
from pytest_mlpatterns.analysis.log_ratio import RATIO_SD, LogRatio
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.analysis.launch_kinds import Side, TwoKinds
    from pytest_mlpatterns.analysis.log_ratio import RatioVerdict

__all__ = ["PairedAnswer", "PairedKinds", "paired_kinds"]


@dataclass(frozen=True, slots=True)
class PairedAnswer:
    """Paired launches, if these are the kinds of their sides.

    Attributes:
        ratios: without the part that is due to the kinds.
        first: for each launch of the first side, whether it is of the higher kind.
        second: likewise of the second side.
    """

    ratios: Sequence[LogRatio]
    first: Sequence[bool]
    second: Sequence[bool]

    def lost(self, *, high: bool) -> bool:
        """Whether no launch of the second side is of a kind that is common on the first."""
        return high not in self.second and is_expected(list(self.first).count(high), len(self.first))


@dataclass(frozen=True, slots=True)
class PairedKinds:
    """The kinds of paired launches.

    Attributes:
        kinds: of the side in which they were seen, the first one if in both.
        answers: two if the launches of one side may be of either kind.
    """

    kinds: TwoKinds
    answers: tuple[PairedAnswer, ...]

    def verdict(
        self, judge: Callable[[Sequence[LogRatio]], RatioVerdict], *, better: Literal["lower", "higher"]
    ) -> RatioVerdict:
        """The verdict on the ratios without the part of the kinds.

        It is open if it depends on which kind launches are of, or if the second side passes but lost the better kind.

        Args:
            judge: judges ratios.
            better: which kind is the better one.
        """
        found = [judge(answer.ratios) for answer in self.answers]
        nearest = min(found, key=lambda one: abs(math.log(one.judged.value)))
        is_open = len({one.outcome for one in found}) > 1 or (
            nearest.outcome is Outcome.PASS and any(answer.lost(high=better == "higher") for answer in self.answers)
        )
        return replace(nearest, outcome=Outcome.INCONCLUSIVE) if is_open else nearest


def paired_kinds(ratios: Sequence[LogRatio], first: Side, second: Side) -> PairedKinds | None:
    """The ratios of paired launches whose sides are of two kinds; None if no side is seen to be.

    With h = 1 for a launch of the higher kind, else 0, each ratio is ``d + g (h2 - h1)`` plus scatter: d is the change,
    and g, how far the kinds are apart, is fitted by least squares and subtracted. Its standard error is added to that
    of each pair of different kinds.

    Args:
        ratios: of each paired launch.
        first: its first side.
        second: its second side.
    """
    ours, theirs = two_kinds(first), two_kinds(second)
    if (known := ours or theirs) is None:
        return None
    if ours is not None and theirs is not None:
        pairs = [(ours.is_high, theirs.is_high)]
    elif ours is not None:
        pairs = [(ours.is_high, other) for other in assignments(ours, second)]
    else:
        pairs = [(other, known.is_high) for other in assignments(known, first)]
    answers = tuple(PairedAnswer(_without_kinds(ratios, *pair), *pair) for pair in pairs)
    return PairedKinds(known, answers) if answers else None


def _without_kinds(ratios: Sequence[LogRatio], first: Sequence[bool], second: Sequence[bool]) -> list[LogRatio]:
    apart = np.array(second, dtype=float) - np.array(first, dtype=float)
    values = np.array([one.value for one in ratios])
    spread = float(((apart - apart.mean()) ** 2).sum())
    if not spread:  # every pair is of one kind
        return list(ratios)
    slope = float(((apart - apart.mean()) * values).sum()) / spread
    left = values - slope * apart
    scatter = float(((left - left.mean()) ** 2).sum()) / max(len(ratios) - 2, 1)
    error = math.sqrt(max(scatter, RATIO_SD**2) / spread)
    return [
        LogRatio(float(value), math.hypot(one.error, error * abs(moved)))
        for value, one, moved in zip(left, ratios, apart.tolist(), strict=True)
    ]
