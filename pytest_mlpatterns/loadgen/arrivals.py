"""Who makes requests due while a job runs: callers of a closed loop, or the clock of an open one.

A source says when it wants to be called next and asks the loop to send. It must not know connections.
"""

from __future__ import annotations

import itertools
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
    """What the loop needs of a source; all times are on the loop's clock."""

    next_due_ns: int
    """When :meth:`send_due` wants to be called, ``NEVER_NS`` where only answers and ticks matter."""

    def start(self, now_ns: int) -> None:
        """The schedule's time begins."""
        ...

    def answered(self, now_ns: int, *, failed: bool) -> bool:
        """A request has ended; whether the next is due for that, now."""
        ...

    def send_due(self, now_ns: int) -> None:
        """Send everything that is due by now."""
        ...

    def tick(self, now_ns: int) -> None:
        """Some tens of milliseconds went by."""
        ...

    def finish(self) -> None:
        """Nothing more is to be sent."""
        ...


def arrivals_of(schedule: Schedule, send: Callable[[int | None], None], share: Share) -> Arrivals:
    """The source of one generator's share of a schedule; ``send`` takes the due time, None for now."""
    if isinstance(schedule, ClosedLoop) or (isinstance(schedule, Stages) and schedule.closed):
        return ClosedLoopArrivals(schedule, send, share)
    return OpenLoopArrivals(schedule, send, share)


class ClosedLoopArrivals:
    """So many callers, each of which sends again when it is answered.

    A caller whose connection failed rests until the next tick, or a dead server would only see refusals counted.
    """

    def __init__(self, schedule: ClosedSchedule, send: Callable[[int | None], None], share: Share) -> None:
        self._schedule = schedule
        self._share = share
        self._send = send
        self._think_ns = schedule.think_time_ns
        self._fixed = schedule.length_ns is None
        self._callers = 0
        self._surplus = 0
        self._resting = 0
        self._thinking: deque[int] = deque()
        self._origin_ns = 0
        self.next_due_ns = NEVER_NS

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
        """Let callers come, or leave after their next answer, until there are as many as the schedule says."""
        wanted = self._share.part_of(self._schedule.concurrency_at(now_ns - self._origin_ns))
        self._surplus = max(0, self._callers - wanted)
        for _ in range(wanted - self._callers):
            self._callers += 1
            self._send(None)


class OpenLoopArrivals:
    """Requests by the clock, whatever the answers do."""

    def __init__(self, schedule: OpenSchedule, send: Callable[[int | None], None], share: Share) -> None:
        self._arrivals = itertools.islice(schedule.arrivals(), share.number, None, share.of)
        self._send = send
        self._origin_ns = 0
        self.next_due_ns = NEVER_NS

    def start(self, now_ns: int) -> None:
        self._origin_ns = now_ns
        self._draw()

    def answered(self, now_ns: int, *, failed: bool) -> bool:
        """An answer makes nothing due."""
        return False

    def send_due(self, now_ns: int) -> None:
        while self.next_due_ns <= now_ns:
            due_ns = self.next_due_ns
            self._draw()
            self._send(due_ns)

    def tick(self, now_ns: int) -> None:
        """Nobody rests."""

    def finish(self) -> None:
        self.next_due_ns = NEVER_NS

    def _draw(self) -> None:
        offset = next(self._arrivals, None)
        self.next_due_ns = NEVER_NS if offset is None else self._origin_ns + offset
