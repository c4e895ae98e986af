"""Arrivals of requests during a load: by callers of a closed loop, the clock of an open loop, or conversations.

Arrivals announce their next due time and call ``send``. They read no clock and open no
connections.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol

from pytest_mlpatterns.workload.schedule import ClosedLoop, ClosedSchedule, OpenSchedule, Schedule, Stages

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.messages import Share
    from pytest_mlpatterns.loadgen.recorder import SampleRecorder


__all__ = ["NEVER_NS", "Arrivals", "ConversationArrivals", "arrivals_of"]


NEVER_NS = 2**62  # A due time that no clock of a run reaches: 146 years


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
    """The arrivals of one generator's share of a schedule. ``send``: takes the due time, None for now."""
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
        self._thinks = schedule.think_time_ns > 0
        self._pauses = schedule.pauses(share.number)
        self._stagger_ns = 0 if self._thinks else stagger_ns
        self._fixed = schedule.length_ns is None
        self._callers = 0
        self._surplus = 0
        self._resting = 0
        self._thinking: list[int] = []
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
        elif self._thinks:
            heappush(self._thinking, now_ns + next(self._pauses))
            self.next_due_ns = self._thinking[0]
        else:
            return True
        return False

    def send_due(self, now_ns: int) -> None:
        while self._thinking and self._thinking[0] <= now_ns:
            self._send(heappop(self._thinking))
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

    def begin_again(self) -> None:
        """Let every caller send a request, after all have been answered and none went on."""
        self._resting = 0
        for _ in range(self._callers):
            self._send(None)

    def _adjust(self, now_ns: int) -> None:
        """Add callers, or let them leave after their next response, until their number is the schedule's."""
        wanted = self._share.part_of(self._schedule.concurrency_at(now_ns - self._origin_ns))
        self._surplus = max(0, self._callers - wanted)
        for number in range(wanted - self._callers):
            self._callers += 1
            if later_ns := number * self._stagger_ns:
                heappush(self._thinking, now_ns + later_ns)
            else:
                self._send(None)
        self.next_due_ns = self._thinking[0] if self._thinking else NEVER_NS


class OpenLoopArrivals:
    """Requests of an open loop: due by the clock, independent of responses."""

    def __init__(self, schedule: OpenSchedule, send: Callable[[int | None], None], share: Share) -> None:
        self._arrivals = schedule.arrivals(share.number, share.of)
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


class ConversationArrivals:
    """The :class:`pytest_mlpatterns.loadgen.arrivals.Arrivals` of a load with conversations.

    A conversation ends with its last turn, or with one that gets no 2xx answer. Only then does the caller of a closed
    loop think, rest, leave or begin another one.

    ``send``: sends the request of this index, due at a time, or None for now.
    """

    def __init__(self, think_ns: bytes, send: Callable[[int, int | None], None], recording: SampleRecorder) -> None:
        self._think_ns = array("q", think_ns)
        self._send = send
        self._recording = recording
        self._thinking: list[tuple[int, int, int]] = []
        self._added = 0
        self._beginnings: Arrivals

    def begun_by(self, arrivals: Arrivals) -> ConversationArrivals:
        """Let these arrivals begin conversations from now on; those under way go on. Returns itself."""
        self._beginnings = arrivals
        return self

    @property
    def goes_on(self) -> bool:
        """Whether a caller thinks before the next turn of a conversation."""
        return bool(self._thinking)

    @property
    def next_due_ns(self) -> int:
        """Time of the next call of :meth:`send_due`; ``NEVER_NS`` if only responses and ticks make requests due."""
        next_ns = self._thinking[0][0] if self._thinking else NEVER_NS
        return min(next_ns, self._beginnings.next_due_ns)

    def start(self, now_ns: int) -> None:
        """Start the schedule's clock."""
        self._beginnings.start(now_ns)

    def answered(self, now_ns: int, *, failed: bool) -> bool:
        """Note that the request of the last row has ended. Returns whether a conversation is to begin because of it."""
        request, outcome = self._recording.request[-1], self._recording.outcome[-1]
        think_ns = self._think_ns[request]
        if think_ns < 0 or not 200 <= outcome < 300:
            return self._beginnings.answered(now_ns, failed=failed)
        self._added += 1
        heappush(self._thinking, (now_ns + think_ns, self._added, request + 1))
        return False

    def send_due(self, now_ns: int) -> None:
        """Send every request that is due by now."""
        thinking = self._thinking
        while thinking and thinking[0][0] <= now_ns:
            due_ns, _, request = heappop(thinking)
            self._send(request, due_ns if self._think_ns[request - 1] else None)
        self._beginnings.send_due(now_ns)

    def tick(self, now_ns: int) -> None:
        """Called every 50 ms."""
        self._beginnings.tick(now_ns)

    def finish(self) -> None:
        """Send no further request."""
        self._thinking.clear()
        self._beginnings.finish()
