"""The time of one test: one value that every phase of it draws from.

A budget is wall time from the first start of a test to its verdict. Windows, pairs, searches and all that no open
verdict asks for are planned for a part of it, so that a test which an idle machine decides takes no longer; an open
verdict goes on to its limit. What must be measured in any case does not ask it: one launch, another one that confirms a
failure, or the fewest pairs of an interleaved comparison. The search for a cause and the passes of a scaling
measurement are beside it. This module must not know what is measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.wording import count


class Budget(Struct, frozen=True):
    """What a test may take, and what it has taken."""

    limit_ns: int  # time from its first start to its verdict
    spent_ns: int = 0
    reserved_ns: int = 0  # kept for a later phase
    planned_ns: int | None = None  # time that it is planned for; None for all of it

    @property
    def planned(self) -> Budget:
        """The same for what no open verdict asks for."""
        return replace(self, limit_ns=self.limit_ns if self.planned_ns is None else self.planned_ns)

    @property
    def most_ns(self) -> int:
        """The time of everything that comes before what is reserved."""
        return max(self.limit_ns - self.reserved_ns, 0)

    @property
    def left_ns(self) -> int:
        """What is left of that time."""
        return max(self.most_ns - self.spent_ns, 0)

    def allows(self, needed_ns: float) -> bool:
        """Whether something that takes this long ends in time."""
        return self.spent_ns + needed_ns <= self.most_ns

    def after(self, spent_ns: int) -> Budget:
        """The budget after something that took this long."""
        return replace(self, spent_ns=self.spent_ns + spent_ns)


LAUNCHES = "launch", "launches"
PAIRS = "pair", "pairs"
_ROUNDED = 1.05  # Factor within which the time of a measurement is printed


class Forecast(Struct, frozen=True):
    """What a test may take, once the first measurement has shown what one takes."""

    number: int  # of measurements in all
    each_ns: float  # what one takes
    left_ns: int  # most time until the verdict
    what: tuple[str, str] = LAUNCHES  # the name of one measurement, and of several
    beyond_ns: int = 0  # the budget, if what is measured in any case takes longer; else 0
    # what the test then takes in all: also what it has taken already, and what is kept for a later phase
    needed_ns: int = 0

    @property
    def text(self) -> str:
        """The measurements, such as ``4 launches of 7 s``."""
        found = f"{count(self.number, *self.what)} of {_seconds(self.each_ns)}"
        if not self.beyond_ns:
            return found
        in_all = ""
        if self.number * self.each_ns <= _ROUNDED * self.beyond_ns:  # else the product shows it
            in_all = f" {math.ceil(self.needed_ns / SECOND_NS)} s in all,"
        return f"{found} in any case,{in_all} beyond its budget of {_seconds(self.beyond_ns)}"


def forecast(budget: Budget, done: int, each_ns: float, *, fewest: int, most: int, what: tuple[str, str]) -> Forecast:
    """What a budget allows, after ``done`` measurements: at least the fewest, at most the most of them."""
    fitting = done + int(budget.left_ns / max(each_ns, 1e6))
    number = max(fewest, min(fitting, most))
    needed_ns = round(max(fewest - done, 0) * each_ns)
    found = Forecast(number, each_ns, max(budget.left_ns, needed_ns), what)
    if done > fewest or budget.allows(needed_ns):
        return found
    return replace(found, beyond_ns=budget.limit_ns, needed_ns=budget.spent_ns + needed_ns + budget.reserved_ns)


def _seconds(time_ns: float) -> str:
    seconds = time_ns / 1e9
    return f"{seconds:.0f} s" if seconds >= 10 or seconds == round(seconds) else f"{seconds:.1f} s"


def _now_ns() -> int:
    return time.perf_counter_ns()  # looked up now, since the bench of worlds has a clock of its own in its place


class Spending:
    """The budget of one test while its time passes. ``beside_ns``: time of what was measured beside the budget."""

    def __init__(self, budget: Budget, clock: Callable[[], int] = _now_ns) -> None:
        self.clock = clock
        self.beside_ns: int = 0
        self._known = budget
        self._since: int | None = None

    @property
    def budget(self) -> Budget:
        """The budget as it is now."""
        return self._known if self._since is None else self._known.after(self.clock() - self._since)

    def keep(self, reserved_ns: int) -> None:
        """Keep this time for a later phase."""
        self._known = replace(self._known, reserved_ns=reserved_ns)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time of a block, once if such blocks are nested."""
        if self._since is not None:
            yield
            return
        self._since = self.clock()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Count the time of a block beside the budget."""
        was_counted = self._since is not None
        self._stop()
        began = self.clock()
        try:
            yield
        finally:
            now = self.clock()
            self.beside_ns += now - began
            self._since = now if was_counted else None

    def _stop(self) -> None:
        self._known, self._since = self.budget, None


class Cost(Struct, frozen=True):
    """What the launches of a test have taken so far."""

    launches: int = 0  # those that were dropped included
    launched_ns: int = 0
    further_ns: int = 0  # what followed launches, such as searches and further loads

    @property
    def launch_ns(self) -> float:
        """Mean time of a launch alone."""
        return self.launched_ns / max(self.launches, 1)

    @property
    def each_ns(self) -> float:
        """Mean time of a launch with what followed it."""
        return (self.launched_ns + self.further_ns) / max(self.launches, 1)

    def plus(self, *, launches: int = 0, launched_ns: int = 0, further_ns: int = 0) -> Cost:
        """The cost with more of it."""
        return Cost(self.launches + launches, self.launched_ns + launched_ns, self.further_ns + further_ns)


_SEARCHES = 3  # Searches that share the time that is left, each of a launch of its own
_CLIMB_NS = 3_000_000_000  # Time of the climb to the capacity, which only the first search needs
_SHORTEST_NS = 4_000_000_000  # Three windows of a second: a search with less is not made shorter for a further one
_SPARED = 0.95
"""Part of its share that a search plans with, so that what takes longer does not cost the last one its time."""
LEAST_SEARCH_NS = _CLIMB_NS + _SHORTEST_NS  # Time of the first search, if less is left of the budget


def share_of(left_ns: int, per_launch_ns: float, most: int, *, climbs: bool) -> int:
    """The time of the next search, which leaves time for further launches and searches."""
    climb_ns = _CLIMB_NS if climbs else 0
    for planned in range(min(_SEARCHES if climbs else _SEARCHES - 1, most), 1, -1):
        share_ns = (left_ns - climb_ns - (planned - 1) * per_launch_ns) / planned
        if share_ns >= _SHORTEST_NS:
            return round(climb_ns + _SPARED * share_ns)
    return left_ns
