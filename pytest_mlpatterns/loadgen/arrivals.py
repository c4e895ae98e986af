"""Arrivals of requests during a load run: by the callers of a closed loop, or by the clock of an open loop.

Arrivals announce their next due time and call ``send``; they read no clock and open no connections.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from pytest_mlpatterns.workload.schedule import ClosedLoop, Stages

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.messages import Share
    from pytest_mlpatterns.workload.schedule import ClosedSchedule, OpenSchedule, Schedule

__all__ = ["NEVER_NS", "Arrivals", "arrivals_of"]

NEVER_NS = 2**62


class Arrivals(Protocol):
    """What decides when requests are sent; all times are on the loop's clock."""

    @property
    def next_due_ns(self) -> int:
        """Time of the next call of :meth:`send_due`; ``NEVER_NS`` if only responses and ticks make requests due."""
        ...

    def start(self, now_ns: int) -> None:
        """Start the schedule's clock."""
        ...

    def answered(self, now_ns: int, *, failed: bool) -> bool:
        """Note that a request has ended. Returns whether the next request is due now because of that."""
        ...

    def send_due(self, now_ns: int) -> None:
        """Send every request that is due by now."""
        ...

    def tick(self, now_ns: int) -> None:
        """Called every 50 ms."""
        ...

    def finish(self) -> None:
        """Send no further request."""
        ...


def arrivals_of(
    schedule: Schedule, send: Callable[[int | None], None], share: Share, *, stagger_ns: int = 0
) -> Arrivals:
    """The arrivals of one generator's share of a schedule.

    Args:
        schedule: of the load.
        send: takes the due time, None for now.
        share: of this generator.
        stagger_ns: time between the first requests of two callers of a closed loop.
    """
    if isinstance(schedule, ClosedLoop) or (isinstance(schedule, Stages) and schedule.closed):
        return ClosedLoopArrivals(schedule, send, share, stagger_ns=stagger_ns)
    return OpenLoopArrivals(schedule, send, share)


class ClosedLoopArrivals:
    """Callers of a closed loop: each sends its next request when the last one was answered.

    A caller whose connection failed pauses until the next tick; otherwise a dead server would cause a busy loop of
    refused connections. Callers that think begin at once, since their pauses keep them apart.
    """

    def __init__(
        self, schedule: ClosedSchedule, send: Callable[[int | None], None], share: Share, *, stagger_ns: int
    ) -> None:
        self._schedule = schedule
        self._share = share
        self._send = send
        self._think_ns = schedule.think_time_ns
        self._stagger_ns = 0 if self._think_ns else stagger_ns
        self._fixed = schedule.length_ns is None
        self._callers = 0
        self._surplus = 0
        self._resting = 0
        self._thinking: deque[int] = deque()
        self._origin_ns = 0
        self.next_due_ns: int = NEVER_NS

    def start(self, now_ns: int) -> None:
        self._origin_ns = now_ns
        self._adjust(now_ns)

    def answered(self, now_ns: int, *, failed: bool) -> bool:
        if self._surplus:
            self._surplus -= 1
            self._callers -= 1
        elif failed:
            self._resting += 1
        elif self._think_ns:
            self._thinking.append(now_ns + self._think_ns)
            self.next_due_ns = self._thinking[0]
        else:
            return True
        return False

    def send_due(self, now_ns: int) -> None:
        while self._thinking and self._thinking[0] <= now_ns:
            self._send(self._thinking.popleft())
        self.next_due_ns = self._thinking[0] if self._thinking else NEVER_NS

    def tick(self, now_ns: int) -> None:
        if not self._fixed:
            self._adjust(now_ns)
        resting, self._resting = self._resting, 0
        for _ in range(resting):
            self._send(None)

    def finish(self) -> None:
        self._thinking.clear()
        self.next_due_ns = NEVER_NS

    def _adjust(self, now_ns: int) -> None:
        """Add callers, or let them leave after their next response, until their number is the schedule's."""
        wanted = self._share.part_of(self._schedule.concurrency_at(now_ns - self._origin_ns))
        self._surplus = max(0, self._callers - wanted)
        for number in range(wanted - self._callers):
            self._callers += 1
            if later_ns := number * self._stagger_ns:
                self._thinking.append(now_ns + later_ns)
            else:
                self._send(None)
        self.next_due_ns = self._thinking[0] if self._thinking else NEVER_NS


class OpenLoopArrivals:
    """Requests of an open loop: due by the clock, independent of responses."""

    def __init__(self, schedule: OpenSchedule, send: Callable[[int | None], None], share: Share) -> None:
        self._arrivals = schedule.share(share.number, share.of)
        self._send = send
        self._origin_ns = 0
        self.next_due_ns: int = NEVER_NS

    def start(self, now_ns: int) -> None:
        self._origin_ns = now_ns
        self._draw()

    def answered(self, now_ns: int, *, failed: bool) -> bool:
        """A response makes no request due."""
        return False

    def send_due(self, now_ns: int) -> None:
        while self.next_due_ns <= now_ns:
            due_ns = self.next_due_ns
            self._draw()
            self._send(due_ns)

    def tick(self, now_ns: int) -> None:
        """Nothing to do: no caller pauses."""

    def finish(self) -> None:
        self.next_due_ns = NEVER_NS

    def _draw(self) -> None:
        offset = next(self._arrivals, None)
        self.next_due_ns = NEVER_NS if offset is None else self._origin_ns + offset
