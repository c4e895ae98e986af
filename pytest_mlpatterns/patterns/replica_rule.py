"""How many replicas a service should have: a number that follows the requests in flight.

The demand is the number of requests in flight, averaged over a window, as in Knative's autoscaler. The rule is that of
the Horizontal Pod Autoscaler of Kubernetes:

    replicas ← ⌈demand / target⌉, unless demand / (replicas × target) is within the tolerance of 1

More replicas are wanted at once. Fewer are wanted only as far as no decision of the stable period before, which
Kubernetes calls the stabilization window, asked for more. Ray Serve has the same target (``target_ongoing_requests``)
and a delay for each direction. Without any replica, the first request asks for one without an average.

With a target of more requests than a replica works on at the same time, the rule oscillates: a replica that is missing
makes a queue, the queue makes the demand large enough for one more, and as soon as that has emptied the queue, the
demand is too small for it.

Pure: no clock and no process. ``tests/patterns/test_replica_rule.py`` simulates ramps, steps and bad targets.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice

__all__ = ["TOLERANCE", "ReplicaRule"]

TOLERANCE = 0.1
"""Deviation of the demand from the target, as a share, that changes nothing; the default of Kubernetes."""
_ROUNDING = 1e-9
"""Error of a quotient of two floats, which must not ask for one replica more."""


class ReplicaRule:
    """Decides how many replicas are wanted. All times are of one clock, in nanoseconds, and never fall.

    Args:
        least: smallest number of replicas.
        most: largest number of replicas.
        target: requests in flight that each replica should have, above 0.
        window_ns: time over which the demand is averaged, above 0; before the first call there was none.
        stable_ns: time for which fewer replicas must have been enough before some end.
    """

    def __init__(self, *, least: int, most: int, target: float, window_ns: int, stable_ns: int) -> None:
        self._least = least
        self._most = most
        self._target = target
        self._window_ns = window_ns
        self._stable_ns = stable_ns
        self._in_flight: float = 0
        self._since_ns: int | None = None
        self._request_ns: float = 0
        self._points: deque[tuple[int, float]] = deque()
        self._wishes: deque[tuple[int, int]] = deque()

    def observe(self, now_ns: int, in_flight: float) -> None:
        """From now on this number of requests is in flight."""
        if self._since_ns is None:
            self._points.append((now_ns, 0))
        else:
            self._request_ns += self._in_flight * (now_ns - self._since_ns)
        self._since_ns = now_ns
        self._in_flight = in_flight

    def wanted(self, now_ns: int, replicas: int) -> int:
        """The number of replicas wanted now; call it several times a window.

        Args:
            replicas: number that was wanted before.
        """
        self.observe(now_ns, self._in_flight)
        wish = self._wish(self._average(now_ns), replicas)
        while self._wishes and self._wishes[-1][1] <= wish:  # only falling wishes remain, the largest first
            self._wishes.pop()
        self._wishes.append((now_ns, wish))
        while self._wishes[0][0] < now_ns - self._stable_ns:
            self._wishes.popleft()
        return wish if wish >= replicas else min(replicas, self._wishes[0][1])

    def _average(self, now_ns: int) -> float:
        """Requests in flight on average over the window."""
        self._points.append((now_ns, self._request_ns))
        began_ns = now_ns - self._window_ns
        while len(self._points) > 1 and self._points[1][0] <= began_ns:
            self._points.popleft()
        (first_ns, before), *later = islice(self._points, 2)
        if later and first_ns < began_ns:  # the window begins between two decisions
            second_ns, after = later[0]
            before += (after - before) * (began_ns - first_ns) / (second_ns - first_ns)
        return (self._request_ns - before) / self._window_ns

    def _wish(self, demand: float, replicas: int) -> int:
        """What the demand asks for, without regard to the time before."""
        if replicas and abs(demand / (replicas * self._target) - 1) <= TOLERANCE:
            wish = replicas
        else:
            wish = math.ceil(demand / self._target - _ROUNDING)
        return min(max(wish, self._least, int(self._in_flight > 0)), self._most)
