"""How long the thread of a server was ready and did not run while it worked on a request outside of the model.

On a busy machine that is most of what a server seems to take. The system counts it for a thread, not for a stretch of
code, so it is taken out of the times that can contain it, in proportion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.patterns.request_clock import BATCH_WAIT, HOP, QUEUE_WAIT, RUN_QUEUE, SHARED_WAIT, WIRE, WOKEN

if TYPE_CHECKING:
    from pytest_mlpatterns.patterns.request_clock import RequestClock
    from pytest_mlpatterns.system.run_queue import RunQueueClock

__all__ = ["LoopWatch"]

_REQUESTS_WATCHED = 16
_LONG_NS = 150_000
_LATE_NS = 50_000
_ON_LOOP = frozenset({WIRE, HOP})
_WAITS = frozenset({QUEUE_WAIT, BATCH_WAIT, SHARED_WAIT})
"""Parts in which the thread works on other requests, and may wait for a processor for them."""


class LoopWatch:
    """Watches the requests of a server after one that took it long outside of models; others cost 0.3 µs.

    Args:
        run_queue: knows how long a thread has waited, and what models have charged of it.
    """

    def __init__(self, run_queue: RunQueueClock) -> None:
        self._run_queue = run_queue
        self._watched = 0
        self._requests = 0
        self._ended: int | None = None

    def begin(self) -> int | None:
        """A request begins; what :meth:`end` takes, None if it is not watched."""
        if self._watched:
            self._watched -= 1
        elif self._ended is None:
            return None
        return self._run_queue.unclaimed_ns()

    def end_for_gateway(self, clock: RequestClock, total_ns: int, begun: int | None) -> None:
        """As :meth:`end`, in a process behind another, which learns how late this one ran."""
        self.end(clock, total_ns, begun)
        if begun is not None and self._ended is not None and begun > self._ended:
            clock.add(WOKEN, begun - self._ended)
            if begun - self._ended > _LATE_NS:
                self._watched = _REQUESTS_WATCHED
        self._requests += 1
        looks = self._watched or not self._requests % _REQUESTS_WATCHED
        self._ended = self._run_queue.unclaimed_ns() if looks else None

    def end(self, clock: RequestClock, total_ns: int, begun: int | None) -> None:
        """A request is answered: charge what its thread waited for a processor.

        Args:
            clock: of the request.
            total_ns: its time in the server, in nanoseconds.
            begun: what :meth:`begin` returned.
        """
        parts = clock.parts
        rest_ns = total_ns - sum(parts.values())
        if rest_ns > _LONG_NS:
            self._watched = _REQUESTS_WATCHED
        if begun is None or rest_ns <= 0 or (now := self._run_queue.unclaimed_ns()) is None or now <= begun:
            return
        names = {key: key.rpartition("/")[2] for key in parts}
        on_loop = {key: parts[key] for key, name in names.items() if name in _ON_LOOP}
        whole_ns = rest_ns + sum(on_loop.values())
        waits_ns = sum(parts[key] for key, name in names.items() if name in _WAITS)
        share = min((now - begun) / (whole_ns + waits_ns), 1.0)
        for key, value in on_loop.items():
            parts[key] -= int(share * value)
        clock.add(RUN_QUEUE, int(share * whole_ns))
