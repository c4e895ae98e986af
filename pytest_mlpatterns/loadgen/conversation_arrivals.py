"""Arrivals of conversations: their requests are sent in order, each after the answer to the one before it.

Other arrivals decide when a conversation begins. Like them, it reads no clock and opens no connections.
"""

from __future__ import annotations

from array import array
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.arrivals import Arrivals
    from pytest_mlpatterns.loadgen.recorder import SampleRecorder

__all__ = ["ConversationArrivals"]


class ConversationArrivals:
    """The :class:`pytest_mlpatterns.loadgen.arrivals.Arrivals` of a load with conversations.

    A conversation ends with its last turn, or with one that gets no 2xx answer. Only then does the caller of a closed
    loop think, rest, leave or begin another one.

    Args:
        think_ns: as in :class:`pytest_mlpatterns.loadgen.messages.LoadJob`.
        send: sends the request of this index, due at a time, or None for now.
        recording: has the row of a request when :meth:`answered` is called for it.
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
