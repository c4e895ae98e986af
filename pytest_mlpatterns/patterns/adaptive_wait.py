"""How long a batch waits for more requests, derived from the arrivals so far."""

from __future__ import annotations

__all__ = ["TIMER_RESOLUTION_NS", "AdaptiveWait"]

TIMER_RESOLUTION_NS = 1_000_000
"""Resolution of the timers of event loops: a timer may fire this much early."""


class AdaptiveWait:
    """The wait of a batch: additive increase if a longer wait would have gained a request, multiplicative decrease if
    the end of the last wait gained none.

    With the wait w, the step s = 0.25 ms and the limit L, after every batch that was sent when its wait ended:

    - w ← 0.9 w, if w > L;
    - w ← min(w + s, L), if the next request arrived at most s after the batch was sent: a longer wait pays;
    - w stays, if the last input arrived in the last max(s, 0.1 w) of the wait: a shorter one would have missed it;
    - w ← 0.9 w otherwise, down to 0: a single caller does not wait.

    L is the shortest recent call (after a call of c: L ← min(c, 1.001 L)), at most 100 ms, so that wait and call
    together take at most twice the time of a call. A mean would grow with the batches that the wait itself makes. The
    scheme and its back-off of 10 % are Clipper's for the batch size (Crankshaw et al., "Clipper: A Low-Latency Online
    Prediction Serving System", NSDI 2017, section 4.3), which has a latency objective; a pattern has none.

    Attributes:
        wait_ns: the current wait, in nanoseconds.
    """

    STEP_NS = 250_000
    MOST_NS = 100_000_000

    def __init__(self) -> None:
        self.wait_ns: int = 0
        self._shortest_ns = 0.0

    def called(self, call_ns: int, last_ns: int | None, next_ns: int | None) -> None:
        """Adjust the wait after the call of a batch that was not full.

        Args:
            call_ns: duration of the call.
            last_ns: time from the arrival of the batch's last request until it was sent; None: none arrived during the
                wait.
            next_ns: time from then until the next arrival; None: none arrived until the call ended.
        """
        self._shortest_ns = min(call_ns, self._shortest_ns * 1.001) if self._shortest_ns else call_ns
        limit_ns = min(int(self._shortest_ns), self.MOST_NS)
        if self.wait_ns <= limit_ns:
            if next_ns is not None and next_ns <= self.STEP_NS:
                self.wait_ns = min(self.wait_ns + self.STEP_NS, limit_ns)
                return
            if last_ns is not None and last_ns <= max(self.STEP_NS, self.wait_ns // 10):
                return
        self.wait_ns = self.wait_ns * 9 // 10
