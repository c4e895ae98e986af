"""How long a batch waits for more requests, found from the arrivals seen so far."""

from __future__ import annotations

__all__ = ["AdaptiveWait"]

_TIMER_RESOLUTION_NS = 1_000_000


class AdaptiveWait:
    """How long a batch should wait for more: additive increase, multiplicative decrease on what the last wait brought.

    With the wait w, the step s = 0.25 ms and the limit L, after every batch that went because its wait was over:

    - w ← 0.9 w, where w > L;
    - w ← min(w + s, L), where the next request came at most s after the batch went: a longer wait pays;
    - w stays, where the last input came in the last max(s, 0.1 w) of the wait: a shorter one would have lost it;
    - w ← 0.9 w otherwise, down to 0: a single caller does not wait.

    L is the shortest call of late (after a call of c: L ← min(c, 1.001 L)), at most 100 ms, so that wait and call
    together stay within twice a call's own time; a mean would grow with the batches that the wait itself makes. The
    scheme and its back-off of 10 % are Clipper's for the batch size (Crankshaw et al., "Clipper: A Low-Latency Online
    Prediction Serving System", NSDI 2017, section 4.3), which keeps a latency objective that a pattern does not have.

    Attributes:
        wait_ns: the wait from now on.
    """

    STEP_NS = 250_000
    MOST_NS = 100_000_000

    def __init__(self) -> None:
        self.wait_ns = 0
        self._shortest_ns = 0.0

    def called(self, call_ns: int, last_ns: int | None, next_ns: int | None) -> None:
        """A batch that was not full was answered.

        Args:
            call_ns: how long the call took.
            last_ns: how long before the batch went its last request came; None: none came during the wait.
            next_ns: how long after the batch went the next request came; None: none came until the call ended.
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
