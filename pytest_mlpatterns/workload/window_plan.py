"""How many requests the window of a slow service has, planned after its first answers.

Pure. A window of fixed length holds few requests of a slow service, and other inputs in each launch. So it ends with a
number of requests instead: whole rounds of the inputs if they fit, from the same first input on. This module must not
know when requests are sent.
"""

import math

from msgspec import Struct

from pytest_mlpatterns.units import MAX_DURATION_NS

SLOW_INTERVAL_NS = 35_000_000
"""Time between two answers from which a service is slow: fewer than twenty fit into the default window of 0.7 s."""
_ENOUGH = 20
"""Requests of a window. The mean of twenty that scatter by a tenth is known to 2.2 %, about what launches differ by."""
_LAUNCHES = 4
"""Launches that should fit into the budget. From three the scatter between them is known to a factor of two only."""
_LEAST_SHARE = 0.25  # Smallest share of a launch that its window gets; with less, fewer launches know more
_CLOSING_NS = 300_000_000  # Measured time from the last answer of a launch to the start of the next one
_LEAST_CYCLES = 2  # Requests of each caller that a launch should have time for, else fewer launches are planned
_FEWEST = 8
"""Requests that a window has time for, so that another start is not worth more, and to which one that the user chose is
shortened at most: fewer than seven show no median at 99 %."""
_LONGEST_FACTOR = 3
"""How many times as long as planned a window may take; a service that is as slow as that shows it in fewer requests."""


class RequestWindow(Struct, frozen=True):
    """A window that ends when its number of requests were due in it, after a least and at most a longest time.

    One that the user gave begins when the warm-up is answered, and ends with its last answer. Its
    number then counts conversations, if these are sent, each to its end.
    """

    requests: int
    least_ns: int = 0
    longest_ns: int = MAX_DURATION_NS
    is_given: bool = False

    @property
    def is_of_slow_service(self) -> bool:
        """Whether it was planned since a service is slow, not for the requests that a verdict needs."""
        return self.longest_ns >= _LONGEST_FACTOR * self.requests * SLOW_INTERVAL_NS


class WindowPlan(Struct, frozen=True):
    """What is known of a launch before its load begins."""

    budget_ns: int
    launches: int
    start_ns: int
    round: int
    callers: int  # requests in flight; 1 of an open loop
    window_ns: int  # length of the window of a service that is not slow
    # whether the user chose that length. Such a window gets shorter if the launches do not fit into the budget.
    # If it is shorter than a request, it is planned as if it was not given
    is_given: bool = False
    # requests that the verdicts need in all; a window may be longer for them, as long as that takes less than the start
    # of another launch. 0 if none is known
    enough: int = 0
    decides_alone: bool = False  # whether one launch may decide, as of a limit; a comparison needs several

    @property
    def longest_ns(self) -> int:
        """The longest that a window of it can last."""
        return _LONGEST_FACTOR * self.budget_ns

    def window(self, interval_ns: float, warmup_ns: int) -> RequestWindow | None:
        """The window by requests; None if its length in time is right.

        A window lasts as long as start and warm-up if it may, since that time is spent for each launch in any case.
        """
        spent_ns = self.start_ns + warmup_ns
        if interval_ns < SLOW_INTERVAL_NS:
            needed_ns = self.enough * interval_ns
            if self.is_given or not self.window_ns < needed_ns < self.window_ns + spent_ns:
                return None
            return RequestWindow(self.enough, self.window_ns, round(_LONGEST_FACTOR * needed_ns))
        most = self._room_ns(interval_ns, spent_ns) / interval_ns
        given = self.window_ns / interval_ns
        is_kept = self.is_given and given >= self.callers
        if is_kept and given <= most:
            return None
        usual = max(_ENOUGH, given, spent_ns / interval_ns)
        wanted = given if is_kept else max(usual, self.enough if self.enough < usual + spent_ns / interval_ns else 0)
        requests = whole_rounds(wanted, most, self.round, callers=self.callers)
        if is_kept:
            requests = max(requests, min(math.floor(given), _FEWEST))
        longest_ns = min(round(_LONGEST_FACTOR * requests * interval_ns), self.longest_ns)
        return RequestWindow(requests, 0 if is_kept else self.window_ns, longest_ns)

    def _room_ns(self, interval_ns: float, spent_ns: int) -> float:
        """Time for the window: of a quarter of the budget, or of more if that leaves too little.

        Of a launch that may decide alone, that is too few answers for a median. If two launches have no time for these
        either, one has them, and as much time as was spent before it.
        """
        cycle_ns = self.callers * interval_ns
        spent_ns += _CLOSING_NS + round(cycle_ns - interval_ns)  # what the other callers have in flight at the end
        few_ns = _FEWEST * interval_ns if self.decides_alone else 0.0
        for launches in range(min(_LAUNCHES, self.launches), 1, -1):
            launch_ns = self.budget_ns / launches
            room_ns = launch_ns - spent_ns
            if room_ns >= max(_LEAST_SHARE * launch_ns, _LEAST_CYCLES * cycle_ns, few_ns):
                return room_ns
        least_ns = max(cycle_ns, 2 * interval_ns)
        if not self.decides_alone:
            return max(self.budget_ns / min(2, self.launches) - spent_ns, least_ns)
        room_ns = max(self.budget_ns - spent_ns, min(max((self.enough + self.callers) * interval_ns, few_ns), spent_ns))
        if self.launches > 1:
            room_ns = min(room_ns, max(few_ns, spent_ns))
        return max(room_ns, least_ns)


def whole_rounds(wanted: float, most: float, of: int, *, callers: int) -> int:
    """A number of requests near the wanted one: whole rounds of the inputs, or of the callers if no round fits.

    If that costs little, it is both, so that each caller sends as many.

    ``callers``: requests in flight; each sends one at least, even if there is no time.
    """
    both = math.lcm(of, callers)
    units = [both] if both <= wanted else []
    unit = next((one for one in (*units, of) if one <= most), callers)
    fitting = math.floor(most / unit) * unit
    return max(min(math.ceil(wanted / unit) * unit, fitting), callers)
