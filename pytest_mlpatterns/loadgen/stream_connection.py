"""A connection of the load generator that reads answers in pieces, and cancels requests on purpose.

It stamps bytes directly after it received them, and parses them when every socket that is ready has been read. So no
stamp waits until another stream is parsed.
"""

from __future__ import annotations

import selectors
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING

from pytest_mlpatterns.loadgen.connection import Connection, Owner
from pytest_mlpatterns.records.outcomes import Failure

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.cancellations import Cancellations
    from pytest_mlpatterns.loadgen.protocol import ClientProtocol
    from pytest_mlpatterns.loadgen.stream_columns import StreamColumns
    from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer

__all__ = ["StreamConnection", "StreamReading"]

_READ = selectors.EVENT_READ
_PIECE = 1 << 14  # a read of streams brings few chunks; a larger buffer costs more to allocate for each
_WHOLE = (Failure.ERROR_EVENT, Failure.CUT_OFF, Failure.NO_STREAM, Failure.EMPTY_STREAM, Failure.COMPRESSED)
"""Failures of an answer whose connection is as good as before."""


@dataclass(frozen=True, slots=True)
class StreamReading:
    """What the connections of a load share.

    Attributes:
        arrived: connections with something to parse; the loop calls their :meth:`StreamConnection.parse`.
        columns: takes the rows of streams.
        cancellations: chooses the requests to cancel; None if there are none.
        answer: creates what collects the answers of a connection.
        protocol: creates the client protocol for an address, which reads streams into an answer.
    """

    arrived: deque[StreamConnection]
    columns: StreamColumns
    cancellations: Cancellations | None
    answer: Callable[[], StreamedAnswer]
    protocol: Callable[[tuple[str, int], StreamedAnswer], ClientProtocol]


class StreamConnection(Connection):
    """A :class:`Connection` whose answers are read in pieces."""

    __slots__ = ("_answer", "_arrived", "_is_cancelled", "_pieces", "_reading", "_stamps")

    def __init__(self, owner: Owner, address: tuple[str, int], target: int, *, reading: StreamReading) -> None:
        super().__init__(owner, address, target)
        self._reading, self._arrived = reading, reading.arrived
        self._answer = reading.answer()
        self._pieces: list[bytes] = []
        self._stamps: list[int] = []
        self._is_cancelled = False

    def send(self, request: int, due_ns: int | None = None, ready_ns: int | None = None) -> None:
        """Send the prepared request of this index; see :meth:`Connection.send`."""
        self._answer.begin(request)
        self._is_cancelled = False
        cancellations = self._reading.cancellations
        if cancellations is not None and cancellations.choose():
            due_ns = perf_counter_ns() if due_ns is None else due_ns
            cancellations.add(due_ns, lambda: self._cancel(due_ns))
        super().send(request, due_ns, ready_ns)

    def close(self) -> None:
        """Close the socket, and drop what was not parsed; the next request opens a new one."""
        super().close()
        self._pieces, self._stamps = [], []

    def fail(self, failure: Failure) -> None:
        """Fail the request in flight, unless what has arrived completes it, and close."""
        if not self._parse_pieces(more=True):  # else it is closed, or carries the next request already
            super().fail(self._answer.timed_out() if failure is Failure.TIMEOUT else failure)

    def on_ready(self, mask: int) -> None:
        """Called by the loop if the socket can be read or written."""
        if mask != _READ and self._socket is not None:
            self._on_writable()
            if not mask & _READ:
                return
        if not self.busy or self._socket is None:
            super().on_ready(_READ)
            return
        try:
            data = self._recv(_PIECE)
            now = perf_counter_ns()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # a reset
            self.fail(Failure.CLOSED if self._opened else Failure.CONNECT)
            return
        if not data:
            if not self._parse_pieces(more=True):
                self._on_end()
            return
        if not self._pieces:
            self._arrived.append(self)
        self._pieces.append(data)
        self._stamps.append(now)

    def parse(self) -> None:
        """Parse what has arrived, and cancel the request if its time is up."""
        self._parse_pieces(more=False)
        if self._is_cancelled and self.busy:
            self._is_cancelled = False
            self.close()
            self._finish(perf_counter_ns(), Failure.CANCELLED.value, failed=False)

    def _parse_pieces(self, *, more: bool) -> bool:
        """Parse what has arrived. Returns whether the request has ended.

        Args:
            more: whether something arrived after it, such as the end of the connection.
        """
        pieces, stamps = self._pieces, self._stamps
        self._pieces, self._stamps = [], []
        last = len(pieces) - 1
        for number, data in enumerate(pieces):
            if self._take_at(data, stamps[number], more=more or number < last):
                return True
        return False

    def _take_at(self, data: bytes, now_ns: int, *, more: bool) -> bool:
        """Take a piece of the response, which arrived then. Returns whether the request has ended."""
        answer, protocol = self._answer, self._protocol
        self._received += len(data)
        answer.now_ns = now_ns
        if not answer.first_byte_ns:
            answer.first_byte_ns = now_ns
        outcome = protocol.take(data)
        if outcome:
            failed = outcome < 0 and outcome not in _WHOLE
            # Bytes beyond the response, or a response to half a request, would be taken for the next response.
            if failed or more or protocol.used_up or self._unsent:
                self.close()
            elif protocol.outbox:
                self._answer_peer()
            self._finish(now_ns, outcome, failed=failed)
            return True
        if protocol.outbox:
            if not protocol.duplex:  # the protocol asks again
                answer.begin(self.request)
            self._go_on()
        return self._socket is None

    def _cancel(self, due_ns: int) -> None:
        """Cancel the request that was due then, if it is still in flight."""
        if self.busy and self.due_ns == due_ns:
            self._is_cancelled = True
            self._arrived.append(self)  # what has arrived before is parsed first

    def _finish(self, now_ns: int, outcome: int, *, failed: bool) -> None:
        self._reading.columns.answer = self._answer
        super()._finish(now_ns, outcome, failed=failed)

    def _new_protocol(self) -> ClientProtocol:
        return self._reading.protocol(self._address, self._answer)
