"""Which commit changed a metric: the decisions of a bisection whose measurements are noisy. Pure.

Commits are numbered along first parents: 0 is the good one, the last is the bad one. Each measurement of a commit gives
log ratios to the good one, of launches that were interleaved with it. First the two ends are compared, which sizes the
change. Then a commit in the middle of what is left is compared, until it surely differs from one end. If it differs
from the bad end, a part of the change comes after it; if it differs from the good end, a part comes with it or before
it. Both are true of any number of steps, so the search ends at one of them. A commit that differs from both ends lies
between them: it takes the level of the end that it replaces.

The probability of error is divided among the steps, and within a step among its looks: the look after r measurements
has 1 / (r (r + 1)) of it, and the sum of these is 1. So the number of looks need not be known beforehand, and all
decisions together err with at most the stated probability (Bonferroni's inequality). A commit that differs from one end
only is taken to have the level of the other. Of a step that is true; a commit that is a little off that level is caught
at the end, where the commit that was found is compared with its parent. Bayes' rule over all commits (Waeber, Frazier &
Henderson, SIAM Journal on Control and Optimization 51, 2013) has to know the distribution of the noise; measuring a
commit until it is decided costs no more than another commit.

This module must not know git, nor how anything is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from statistics import stdev

from msgspec import Struct

from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE
from pytest_mlpatterns.analysis.statistics.log_ratio import (
    RATIO_SD,
    LogRatio,
    RatioPrior,
    ratio_estimate,
    weighed_ratio,
)
from pytest_mlpatterns.records.launch import Estimate

_SIZED = 2.0
"""Multiple of its half interval that a change has before commits are compared with its end: one that is known less
surely makes each of these comparisons longer."""
_KNOWN_FROM = 4
"""Launches of both ends from which their scatter counts for all further commits: on a machine that is busier than
usual, the first launches of a commit would otherwise seem surer than they are."""
_PART = 0.99  # Confidence of the intervals by which a step differs from the whole change


class Likeness(StrEnum):
    """What a commit is like, by its measurements."""

    GOOD = "good"  # It has the level of the good end of what was left
    BAD = "bad"  # It has the level of the bad end of what was left
    NEAR_GOOD = "near good"  # It lies between both levels, nearer to the good end's: there are several steps
    NEAR_BAD = "near bad"  # It lies between both levels, nearer to the bad end's
    UNDECIDED = "undecided"  # Its measurements do not decide it


class SearchRules(Struct, frozen=True):
    """What a search is to find, and how surely."""

    error: float = 0.05  # probability that the search ends at a wrong place
    smallest: float = 0.01  # smallest change that is searched for, as a share
    most_runs: int = 12  # measurements of one commit, after which it stays undecided


class Measure(Struct, frozen=True):
    """The commit to measure next."""

    position: int  # its number
    run: int  # which measurement of it that is, from 1
    good: int  # number of the nearest commit before the change, as far as it is known
    bad: int  # number of the nearest commit after it


class NoChange(Struct, frozen=True):
    """The search ends at once, because both ends do not differ."""

    change: Estimate  # bad over good, with its 95 % interval
    is_open: bool  # whether a change that is searched for is not excluded either


class Bracket(Struct, frozen=True):
    """What is left at the end."""

    good: int  # number of the last commit before the change
    bad: int  # number of the first one after it, that could be decided
    whole: Estimate  # the bad end over the good one, with its 95 % interval
    launches: tuple[LogRatio, ...]  # of the bad end, over the good one
    jump: float  # the estimated ratio between both commits
    # whether commits between them are left that could be measured, because what is left of the change is too
    # small to be searched for
    is_gradual: bool = False

    @property
    def is_one_commit(self) -> bool:
        """Whether one commit is left."""
        return self.bad == self.good + 1


class Decided(Struct, frozen=True):
    """What the measurements of a commit show."""

    position: int  # its number
    likeness: Likeness | None  # what it is like; None while that is not decided
    change: Estimate  # the commit over the good one, with its 95 % interval
    launches: int  # paired launches that this rests on


def most_steps(last: int) -> int:
    """Most commits that are measured between two ends with this distance, if each of them can be decided."""
    return max(last - 1, 0).bit_length()


class _Level(Struct, frozen=True):
    """A log ratio, and half its interval."""

    value: float
    half: float

    def is_apart_from(self, other: _Level) -> bool:
        return abs(self.value - other.value) > math.hypot(self.half, other.half)


def _level(launches: Sequence[LogRatio], confidence: float, scatter: float = RATIO_SD) -> _Level:
    """The level of a commit; the good end's, which has no launches, is 0."""
    if not launches:
        return _Level(0.0, 0.0)
    found = weighed_ratio(launches, RatioPrior(scatter))
    return _Level(found.mean, found.half(confidence))


def _deviation(launches: Sequence[LogRatio]) -> float:
    """Standard deviation from launch to launch of one commit; 0 if there are too few launches to know it."""
    return stdev(one.value for one in launches) if len(launches) >= _KNOWN_FROM else 0.0


class Bisection:
    """One search up to the bad end, number ``last`` ≥ 1; what is recorded in the same order leads to the same steps."""

    def __init__(self, last: int, rules: SearchRules | None = None) -> None:
        if last < 1:
            raise ValueError(f"the last commit is number {last}, expected at least 1")
        self._rules = rules or SearchRules()
        self._last = last
        self._shares = most_steps(last) + 2
        self._left_error = self._rules.error
        self._share = self._next_share()
        self._good, self._bad = 0, last
        self._levels: dict[int, tuple[LogRatio, ...]] = {0: (), last: ()}
        self._good_level = self._bad_level = 0
        self._out: set[int] = set()
        self._launches: list[LogRatio] = []
        self._runs = 0
        self._is_sized = False
        self._scatter = RATIO_SD
        self._none: NoChange | None = None

    @property
    def step(self) -> Measure | NoChange | Bracket:
        """What to measure next, or the end of the search."""
        if self._none is not None:
            return self._none
        if not self._is_sized:
            return Measure(self._last, self._runs + 1, self._good, self._bad)
        good, bad = (_level(self._levels[one], CONFIDENCE) for one in (self._good_level, self._bad_level))
        jump = bad.value - good.value
        position = self._next_position()
        is_gradual = position is not None and abs(jump) < math.log1p(self._rules.smallest) and not self._launches
        if position is None or is_gradual:
            launches = self._levels[self._last]
            return Bracket(self._good, self._bad, ratio_estimate(launches), launches, math.exp(jump), is_gradual)
        return Measure(position, self._runs + 1, self._good, self._bad)

    def add_run(self, launches: Sequence[LogRatio]) -> Decided:
        """Record launches, at least one, of the next commit over the good one, and return what is known of it now."""
        position = self._asked()
        if not launches:
            raise ValueError("a measurement has no launches, expected at least one")
        self._launches += launches
        self._runs += 1
        likeness = self._size() if not self._is_sized else self._place(position)
        found = Decided(position, likeness, ratio_estimate(self._launches), len(self._launches))
        if likeness is not None:
            self._launches, self._runs = [], 0
            self._share = self._next_share()
        return found

    def skip(self) -> None:
        """Record that the commit to measure next cannot be measured; another one is chosen."""
        position = self._asked()
        if position == self._last:
            raise ValueError("the bad end cannot be measured, expected a commit that can")
        self._out.add(position)
        self._launches, self._runs = [], 0

    # --- steps --------------------------------------------------------------------------------------------------------

    def _asked(self) -> int:
        step = self.step
        if not isinstance(step, Measure):
            raise ValueError("the search has ended, expected no further measurement")
        return step.position

    def _size(self) -> Likeness | None:
        """Compare both ends; the bad one is like itself as soon as it differs from the good one."""
        level = _level(self._launches, self._confidence(sides=2))
        smallest = math.log1p(self._rules.smallest)
        is_known = abs(level.value) > _SIZED * level.half
        if is_known or (abs(level.value) > level.half and self._runs >= self._rules.most_runs):
            self._is_sized = True
            self._levels[self._last] = tuple(self._launches)
            self._bad_level = self._last
            self._scatter = max(RATIO_SD, _deviation(self._launches))
            return Likeness.BAD
        is_excluded = abs(level.value) + level.half < smallest
        if is_excluded or self._runs >= self._rules.most_runs:
            self._none = NoChange(ratio_estimate(self._launches), is_open=not is_excluded)
            return Likeness.GOOD if is_excluded else Likeness.UNDECIDED
        return None

    def _place(self, position: int) -> Likeness | None:
        """Find whether a commit differs from the end from which it is farther, and halve what is left."""
        confidence = self._confidence()
        launches = self._launches, self._levels[self._good_level], self._levels[self._bad_level]
        own, good, bad = (_level(one, confidence, self._scatter) for one in launches)
        is_good = abs(own.value - good.value) < abs(own.value - bad.value)
        near, far = (good, bad) if is_good else (bad, good)
        if not own.is_apart_from(far):
            if self._runs < self._rules.most_runs:
                return None
            self._out.add(position)
            return Likeness.UNDECIDED
        return self._halved(position, is_good=is_good, is_between=own.is_apart_from(near))

    def _halved(self, position: int, *, is_good: bool, is_between: bool) -> Likeness:
        """Leave the half with the change; the level of the good commit, with which all are compared, is exact."""
        level = self._good_level if is_good else self._bad_level
        if is_between:
            level = position
            self._levels[position] = tuple(self._launches)
        elif level:
            self._levels[level] += tuple(self._launches)
        if is_good:
            self._good, self._good_level = position, level
            return Likeness.NEAR_GOOD if is_between else Likeness.GOOD
        self._bad, self._bad_level = position, level
        return Likeness.NEAR_BAD if is_between else Likeness.BAD

    def _next_position(self) -> int | None:
        """The commit that is measured now, else the one farthest from all known or out; None if none is left.

        Neighbours of commits that do not run often do not run either.
        """
        known = [self._good, self._bad, *(one for one in self._out if self._good < one < self._bad)]
        left = [one for one in range(self._good + 1, self._bad) if one not in self._out]
        middle = (self._good + self._bad) / 2
        return max(left, key=lambda one: (min(abs(one - other) for other in known), -abs(one - middle)), default=None)

    # --- probability --------------------------------------------------------------------------------------------------

    def _next_share(self) -> float:
        """The probability of error of the next step; if there are more steps than planned, half of the last share."""
        self._shares -= 1
        share = self._left_error / (self._shares + 1) if self._shares > 0 else self._left_error / 2
        self._left_error -= share
        return share

    def _confidence(self, sides: int = 1) -> float:
        """Confidence of the interval at this look; a step between two levels errs to one side only."""
        return 1 - 2 / sides * self._share / (self._runs * (self._runs + 1))


class StepCheck(Struct, frozen=True):
    """The commit that was found, measured beside its parent."""

    change: Estimate  # the commit over its parent, with its 95 % interval
    # whether it changes the metric in the direction of the whole change; None while that is open
    is_confirmed: bool | None
    is_part: bool  # whether the whole change is larger, so that other commits have a part in it
    launches: int  # paired launches that this rests on


def check_step(runs: Sequence[Sequence[LogRatio]], bracket: Bracket, rules: SearchRules) -> StepCheck:
    """Whether the commit that a search found changes the metric, measured beside its parent.

    ``runs``: measurements of the commit over its parent, at least one; each of at least one launch.
    """
    launches = [launch for run in runs for launch in run]
    scatter = max(RATIO_SD, _deviation(bracket.launches))
    level = _level(launches, 1 - rules.error * 0.5 ** len(runs), scatter)
    sign = 1 if bracket.whole.value >= 1 else -1
    is_confirmed: bool | None = None
    if sign * level.value > level.half:
        is_confirmed = True
    elif sign * level.value + level.half < math.log1p(rules.smallest) or len(runs) >= rules.most_runs:
        is_confirmed = False
    own, whole = _level(launches, _PART, scatter), _level(bracket.launches, _PART, scatter)
    is_part = own.is_apart_from(whole) and abs(own.value) < abs(whole.value)
    return StepCheck(ratio_estimate(launches), is_confirmed, is_part, len(launches))
