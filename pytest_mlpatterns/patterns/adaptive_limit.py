"""How many requests may be in flight: a limit that follows the latency.

A service answers as fast as it can up to some number of requests in flight, its knee. Beyond it requests wait inside,
and latency grows with their number. So the ratio of the latency without a queue to the present one is the share of the
requests that do not wait. The limit is multiplied by this gradient, and a headroom lets it grow again (the gradient
controller of Envoy's adaptive concurrency filter, and of Netflix's concurrency-limits):

    limit ← limit × latency without a queue / latency + headroom

Beyond a knee of k requests the ratio is k / limit, so the limit settles at k and a little more. The latency without a
queue is measured while few requests are in flight, at first and from time to time, since the service may change.

Pure: no clock and no loop. ``tests/patterns/test_adaptive_limit.py`` simulates services with a known knee.
"""

from __future__ import annotations

import math

__all__ = ["AdaptiveLimit"]

_LARGEST = 1_000
"""Largest limit; more requests in flight than this are a queue in any service on one machine."""
_PROBE = 0.25
"""Share of the limit, while the latency without a queue is measured: a service with a queue there has no knee."""
_HEADROOM = 0.05
"""Share by which the limit grows in a period without a queue; with the buffer it settles at 11 % above the knee."""
_LEAST_HEADROOM = 0.25
"""The same of small limits, in requests."""
_GROWS = 1.5
"""Factor of the limit in each period of the start, until a queue shows."""
_QUEUED = 0.85
"""Gradient below which a queue has shown, so that the start is over."""
_FEWEST = 25
"""Least answers of a period of the start and of a probe; of fewer, too many were let in under the limit before."""
_ENOUGH = 50
"""Answers after which a period ends however much they scatter. At 30 % their mean has an error of 4 %."""
_ROUNDS = 6
"""Answers for each request in flight after which it does."""
_ROUNDS_OF_PROBE = 25
"""The same while the latency without a queue is measured, on which every later period relies."""
_FEWEST_ROUNDS = 2
"""Least answers of a period for each request in flight: those that wait for each other are late together."""
_ERROR = 0.04
"""Relative standard error of the mean time with which a period of the start ends, so that slow services need not wait
for more answers. Later ones are longer: short periods follow a change of the limit before its effect is there."""
_ERROR_OF_PROBE = 0.02
"""The same while the latency without a queue is measured."""
_BUFFER = 1.05
"""Factor of the latency without a queue, so that its error does not keep the limit down."""
_SLOWEST = 0.5
"""Least gradient: one slow period halves the limit at most."""
_SMOOTHING = 0.5
"""Share of a new limit in the next one."""
_PERIODS = 60
"""Periods after which the latency without a queue is measured again."""


class AdaptiveLimit:
    """A limit of requests in flight.

    Attributes:
        value: the limit now, at least 1.
    """

    def __init__(self) -> None:
        self.value: int = 1
        self._limit = 1.0
        self._base_ns = 0.0
        self._starting = True
        self._probing = True
        self._periods = 0
        self._answers = 0
        self._total_ns = 0
        self._squares = 0
        self._most = 0

    def answered(self, latency_ns: int, in_flight: int) -> None:
        """Take the time of a request.

        Args:
            latency_ns: from its admission to its answer, in nanoseconds.
            in_flight: number of requests that were in flight then, with this one.
        """
        self._answers += 1
        self._total_ns += latency_ns
        self._squares += latency_ns * latency_ns
        self._most = max(self._most, in_flight)
        if self._is_known():
            mean_ns, most = self._total_ns / self._answers, self._most
            self._answers = self._total_ns = self._squares = self._most = 0
            self._end_period(mean_ns, most)

    def _is_known(self) -> bool:
        """Whether the answers of this period show the latency."""
        rounds, error = (_ROUNDS_OF_PROBE, _ERROR_OF_PROBE) if self._probing else (_ROUNDS, _ERROR)
        if self._answers >= max(_ENOUGH, rounds * self.value):
            return True
        if not (self._starting or self._probing) or self._answers < max(_FEWEST, _FEWEST_ROUNDS * self.value):
            return False
        mean_ns = self._total_ns / self._answers
        variance = max(self._squares / self._answers - mean_ns * mean_ns, 0.0)
        return variance <= (error * mean_ns) ** 2 * self._answers

    def _end_period(self, mean_ns: float, most: int) -> None:
        if self._probing:
            self._probing, self._periods, self._base_ns = False, 0, mean_ns
        else:
            self._periods += 1
            self._follow(mean_ns, most)
        if self._periods >= _PERIODS:
            self._probing = True
        self.value = max(math.floor(self._limit * (_PROBE if self._probing else 1)), 1)

    def _follow(self, mean_ns: float, most: int) -> None:
        """Move the limit by the gradient; one that the load does not reach does not grow."""
        gradient = _BUFFER * self._base_ns / mean_ns
        if self._starting and gradient >= _QUEUED:
            if most >= self.value:
                self._limit = min(max(self._limit * _GROWS, self._limit + 1), _LARGEST)
            return
        self._starting = False
        target = self._limit * max(gradient, _SLOWEST) + max(_HEADROOM * self._limit, _LEAST_HEADROOM)
        if target > self._limit and most < self.value:
            return
        self._limit = min(max(self._limit + _SMOOTHING * (target - self._limit), 1.0), _LARGEST)
