"""Connections whose failed requests are tried again: they record a request when its last attempt has ended.

They stand apart from :mod:`pytest_mlpatterns.loadgen.connection`, so that a load without retries takes no time for
them.
"""

from __future__ import annotations

from time import perf_counter_ns

from pytest_mlpatterns.loadgen.connection import Connection, StreamConnection
from pytest_mlpatterns.loadgen.retrier import Attempt

__all__ = ["RetriedConnection", "RetriedStreamConnection"]


class RetriedConnection(Connection):
    """A :class:`Connection` that leaves it to its owner's ``resending`` whether a request has ended."""

    __slots__ = ()

    def send(self, request: int, due_ns: int | None = None, ready_ns: int | None = None) -> None:
        """Send the prepared request of this index; its ``attempt`` is set if it is not the first one."""
        now = perf_counter_ns()
        due_ns = now if due_ns is None else due_ns
        if self.attempt is None:
            self.attempt = Attempt(request, due_ns, now if ready_ns is None else ready_ns)
        assert self._owner.resending is not None
        self._owner.resending.watch(self, self.attempt, now)
        super().send(request, due_ns, ready_ns)

    @property
    def has_begun(self) -> bool:
        """Whether a part of a streamed answer has come."""
        return False

    def _finish(self, now_ns: int, outcome: int, *, failed: bool) -> None:
        attempt, self.attempt = self.attempt, None
        resending = self._owner.resending
        assert attempt is not None
        assert resending is not None
        head = self._protocol.head() if outcome > 0 and resending.retrier.honours else b""
        if resending.is_tried_again(attempt, outcome, now_ns, head=head, has_begun=self.has_begun):
            self.busy = False
            self._owner.release(self)
            return
        self._sent_ns = attempt.sent_ns
        super()._finish(now_ns, outcome, failed=failed)


class RetriedStreamConnection(RetriedConnection, StreamConnection):
    """The same of answers that are read in pieces. One that broke after its first chunk is not tried again."""

    __slots__ = ()

    @property
    def has_begun(self) -> bool:
        """Whether a part of a streamed answer has come."""
        return len(self._answer.chunk_ns) > 0
