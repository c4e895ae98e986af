"""One connection of the load generator, with at most one request in flight; it stamps every request that it carries.

It opens its socket for the first request, sends prepared bytes, and learns from the client protocol when a response is
complete. Its owner decides which request comes next and when it is due.

A :class:`StreamConnection` reads an answer in pieces. It stamps bytes directly after it received them, and parses them
when every socket that is ready has been read. So no stamp waits until another stream is parsed.
"""

from __future__ import annotations

import errno
import selectors
import socket
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from pytest_mlpatterns.loadgen.recorder import KEPT_BYTES, ResponseSample, SampleRecorder
from pytest_mlpatterns.records.outcomes import Failure

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_PIECE = 1 << 16  # Bytes of one read; above malloc's threshold for maps of their own, every read would cost page faults
_AT_ONCE = 512  # Pieces of one call of ``sendmsg``, as many as every system takes
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR)
"""Answers of a ``connect`` that does not block and has not failed."""
_PIECE_OF_STREAM = 1 << 14
"""Bytes of one read of a stream, which has few chunks; a larger buffer costs more to allocate for each."""
_WHOLE = (Failure.ERROR_EVENT, Failure.CUT_OFF, Failure.NO_STREAM, Failure.EMPTY_STREAM, Failure.COMPRESSED)
"""Failures of an answer whose connection is as good as before."""


class Owner(Protocol):
    """What a connection needs of the loop that owns it.

    ``connect_ns`` takes how long each opening took, ``waited_ns`` how long each request that had no open connection
    waited for one, ``sent_again_ns`` when each request was due that was sent twice. ``protocol`` creates the client
    protocol for an address.
    """

    selector: selectors.BaseSelector
    recording: SampleRecorder
    answers: ResponseSample | None
    connect_ns: array[int]
    waited_ns: array[int]
    sent_again_ns: array[int]
    protocol: Callable[[tuple[str, int]], ClientProtocol]

    def completed(self, connection: Connection, now_ns: int, *, failed: bool) -> None:
        """Called when the connection has recorded its request and is idle."""
        ...


class Connection:
    """One keep-alive connection to one address, with at most one request in flight.

    A request is sent once more, over a new connection, if the peer closed a used one before it sent any byte of the
    answer: it closed an idle connection, and the request met it.

    Every request ends in exactly one row of the owner's recording: with the status of its response, or with a code of
    :class:`Failure`.
    """

    __slots__ = (
        "_address",
        "_answers",
        "_completed",
        "_opened",
        "_opening_ns",
        "_owner",
        "_protocol",
        "_received",
        "_record",
        "_recv",
        "_send",
        "_sent_ns",
        "_socket",
        "_unsent",
        "busy",
        "due_ns",
        "request",
        "target",
    )

    def __init__(self, owner: Owner, address: tuple[str, int], target: int) -> None:
        self._owner = owner
        self._answers = owner.answers
        self._record, self._completed = owner.recording.add, owner.completed
        self._address = address
        self.target: int = target
        self.busy: bool = False
        self.request: int = 0
        self.due_ns: int = 0
        self._sent_ns = 0
        self._received = 0
        self._socket: socket.socket | None = None
        self._opened = False
        self._unsent: list[Bytes] = []

    def send(self, request: int, due_ns: int | None = None, ready_ns: int | None = None) -> None:
        """Send the prepared request of this index.

        ``due_ns``: when it was due; None for now. ``ready_ns``: when the generator was ready to send it, if it had to
        wait for a connection since; None for now.
        """
        now = perf_counter_ns()
        self.request = request
        self.due_ns = now if due_ns is None else due_ns
        self._sent_ns = now if ready_ns is None else ready_ns
        self._received = 0
        self.busy = True
        if self._socket is None and not self._open():
            return
        if ready_ns is not None and self._opened:
            self._owner.waited_ns.append(now - ready_ns)
        message = self._protocol.ask(request)
        if not self._opened or self._unsent or type(message) is not bytes:
            self._write(message)
        else:
            self._send_at_once(message)

    def open(self) -> None:
        """Start to connect ahead of the first request."""
        if self._socket is None:
            self._open()

    def close(self) -> None:
        """Close the socket; the next request opens a new one."""
        if self._socket is not None:
            self._owner.selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
            self._opened = False
            self._unsent.clear()

    def fail(self, failure: Failure) -> None:
        """Fail the request in flight, if any, and close; one that met the end of an idle connection is sent again."""
        met_the_end = failure is Failure.CLOSED and self.busy and self._protocol.is_unheard
        self.close()
        if met_the_end:
            self._owner.sent_again_ns.append(self.due_ns)
            if self._open():
                self._write(self._protocol.ask(self.request))
        elif self.busy:
            self._finish(perf_counter_ns(), failure.value, failed=True)

    def on_ready(self, mask: int) -> None:
        """Called by the loop if the socket can be read or written."""
        if mask != _READ and not self._may_read(mask):
            return
        if self._socket is None:
            return
        try:
            data = self._recv(_PIECE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # a reset
            self.fail(Failure.CLOSED if self._opened else Failure.CONNECT)
            return
        if not data:
            self._on_end()
        elif self.busy:
            self._take(data)
        elif not self._protocol.take_idle(data):
            self._end(perf_counter_ns(), len(data))
        elif self._protocol.outbox:
            self._answer_peer()

    def _take(self, data: bytes) -> None:
        """Take a piece of the response: maybe the last one, maybe with bytes beyond it."""
        self._received += len(data)
        protocol = self._protocol
        outcome = protocol.take(data)
        if outcome:
            now = perf_counter_ns()
            # Bytes beyond the response, or a response to half a request, would be taken for the next response.
            if outcome < 0 or protocol.used_up or self._unsent:
                if outcome == Failure.CLOSED:
                    self.fail(Failure.CLOSED)
                    return
                self._end(now)
            elif protocol.outbox:
                self.busy = False  # a peer that is gone by now loses no answer
                self._answer_peer()
            self._finish(now, outcome, failed=outcome < 0)
        elif protocol.outbox:
            self._go_on()

    def _end(self, now_ns: int, received: int = 0) -> None:
        """Close; an answer without a request is a failure of the request before it."""
        if self._protocol.unasked:
            add = self._owner.recording.add
            add(self.due_ns, self._sent_ns, now_ns, Failure.UNASKED, self.request, self.target, received)
        self.close()

    def _go_on(self) -> None:
        """Send what the protocol has queued before the response is complete."""
        if self._protocol.duplex:
            self._answer_peer()
        elif self._unsent:
            self.fail(Failure.CLOSED)
        else:  # not the final response; the protocol asks again
            self._received = 0
            self._answer_peer()

    def _answer_peer(self) -> None:
        """Send what the protocol has queued."""
        queued = list(self._protocol.outbox)
        self._protocol.outbox.clear()
        self._write(queued)

    def _finish(self, now_ns: int, outcome: int, *, failed: bool) -> None:
        self.busy = False
        self._record(self.due_ns, self._sent_ns, now_ns, outcome, self.request, self.target, self._received)
        answers = self._answers
        if answers is not None and 200 <= outcome < 300:
            if self._received > KEPT_BYTES:  # the protocol has dropped it
                answers.skip()
            else:
                answers.offer(self.request, self._protocol.body(), self._protocol.head())
        self._completed(self, now_ns, failed=failed)

    def _open(self) -> bool:
        """Start to connect. Returns False if that failed; the request has then failed too."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        except OSError:  # no descriptor is left
            self.fail(Failure.CONNECT)
            return False
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._opening_ns = perf_counter_ns()
        if sock.connect_ex(self._address) not in _UNDER_WAY:
            sock.close()
            self.fail(Failure.CONNECT)
            return False
        self._socket = sock
        self._recv, self._send = sock.recv, sock.send
        self._protocol = self._new_protocol()
        if opening := self._protocol.opening():
            self._unsent.append(opening)
        self._owner.selector.register(sock, _READ | _WRITE, self.on_ready)
        return True

    def _new_protocol(self) -> ClientProtocol:
        return self._owner.protocol(self._address)

    def _write(self, message: bytes | Sequence[Bytes]) -> None:
        if not self._opened or self._unsent or not isinstance(message, bytes):
            self._unsent += [message] if isinstance(message, bytes) else message
            if self._opened:
                self._flush()
            return
        self._send_at_once(message)

    def _send_at_once(self, message: bytes) -> None:
        """Send a message to an open connection that has nothing else to send."""
        try:
            sent = self._send(message)
        except BlockingIOError:
            sent = 0
        except OSError:  # the peer closed before it saw any of this request, so it has answered none of it
            self.fail(Failure.CLOSED)
            return
        if sent < len(message):
            self._unsent = [memoryview(message)[sent:]]
            self._watch(_READ | _WRITE)

    def _flush(self) -> None:
        """Send as many of the unsent bytes as the system takes."""
        assert self._socket is not None
        unsent = self._unsent
        try:
            while unsent:
                sent = self._socket.sendmsg(unsent[:_AT_ONCE])
                whole = 0
                while whole < len(unsent) and sent >= len(unsent[whole]):
                    sent -= len(unsent[whole])
                    whole += 1
                del unsent[:whole]
                if sent:
                    unsent[0] = memoryview(unsent[0])[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._on_broken_pipe()
            return
        self._watch(_READ | _WRITE if unsent else _READ)

    def _on_broken_pipe(self) -> None:
        """The peer closed while bytes were sent to it: its answer may be there already, or the request is lost."""
        protocol = self._protocol
        while self.busy and (data := self._left_behind(_PIECE)):
            self._received += len(data)
            if outcome := protocol.take(data):
                self.close()
                self._finish(perf_counter_ns(), outcome, failed=outcome < 0)
                return
        self.fail(Failure.CLOSED)

    def _left_behind(self, size: int) -> bytes:
        """Read up to ``size`` bytes that the peer sent before it closed the connection; empty if there are no more."""
        try:
            return self._recv(size)
        except OSError:
            return b""

    def _may_read(self, mask: int) -> bool:
        """Write what can be written. Returns whether the same socket can also be read."""
        sock = self._socket  # an earlier event of the same batch may have closed it
        if sock is not None:
            self._on_writable()
        return bool(mask & _READ) and self._socket is sock

    def _on_writable(self) -> None:
        assert self._socket is not None
        if not self._opened:
            if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.fail(Failure.CONNECT)
                return
            self._opened = True
            now = perf_counter_ns()
            self._owner.connect_ns.append(now - self._opening_ns)
            if self.busy:
                self._owner.waited_ns.append(now - self._sent_ns)
        self._flush()

    def _on_end(self) -> None:
        """The peer closed the connection: the end of a response without a length, or a lost response."""
        if not self._opened:
            self.fail(Failure.CONNECT)
        elif self.busy and (outcome := self._protocol.end()):
            self.close()
            self._finish(perf_counter_ns(), outcome, failed=False)
        else:
            self.fail(Failure.CLOSED)

    def _watch(self, events: int) -> None:
        assert self._socket is not None
        self._owner.selector.modify(self._socket, events, self.on_ready)


Bytes = bytes | memoryview


class ClientProtocol(Protocol):
    """The client side of one protocol on one connection.

    Attributes:
        duplex: whether the protocol may send control data while a request is still being sent.
        used_up: whether the connection cannot carry another request.
        unasked: whether an answer came that no request asked for.
        is_unheard: whether an earlier request was answered, and nothing has come for the present one.
        outbox: bytes to send besides requests; the connection sends and clears them.
    """

    duplex: bool
    used_up: bool
    unasked: bool
    outbox: list[Bytes]

    @property
    def is_unheard(self) -> bool:
        """Whether it may have met the end of an idle connection."""
        ...

    def opening(self) -> bytes:
        """Bytes to send before the first request."""
        ...

    def ask(self, request: int) -> bytes | Sequence[Bytes]:
        """Bytes of a request, by the index of its message."""
        ...

    def take(self, data: bytes) -> int:
        """Take received bytes while a request is in flight. Returns its outcome, or 0 if the response is incomplete."""
        ...

    def take_idle(self, data: bytes) -> bool:
        """Take received bytes while no request is in flight. Returns whether the connection is still usable."""
        ...

    def end(self) -> int:
        """The peer closed while a request was in flight. Returns its outcome, or 0 if the response is lost."""
        ...

    def body(self) -> bytes:
        """The response's body, after its outcome, if bodies are kept."""
        ...

    def head(self) -> bytes:
        """The response's head: in HTTP/1.1 its status line and headers."""
        ...


class StreamReading(Struct, frozen=True):
    """What the connections of a load share."""

    # connections with something to parse; the loop calls their :meth:`StreamConnection.parse`
    arrived: deque[StreamConnection]
    answer: Callable[[], StreamedAnswer]
    # creates the client protocol for an address, which reads streams into an answer
    protocol: Callable[[tuple[str, int], StreamedAnswer], ClientProtocol]


class StreamConnection(Connection):
    """A :class:`Connection` whose answers are read in pieces."""

    __slots__ = ("_answer", "_arrived", "_pieces", "_reading", "_stamps")

    def __init__(self, owner: Owner, address: tuple[str, int], target: int, *, reading: StreamReading) -> None:
        super().__init__(owner, address, target)
        self._reading, self._arrived = reading, reading.arrived
        self._answer = reading.answer()
        self._record = owner.recording.adder_of(self._answer)
        self._pieces: list[bytes] = []
        self._stamps: list[int] = []

    def send(self, request: int, due_ns: int | None = None, ready_ns: int | None = None) -> None:
        """Send the prepared request of this index; see :meth:`Connection.send`."""
        self._answer.begin(request)
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
        if mask != _READ and not self._may_read(mask):
            return
        if not self.busy or self._socket is None:
            super().on_ready(_READ)
            return
        try:
            data = self._recv(_PIECE_OF_STREAM)
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
        """Parse what has arrived."""
        self._parse_pieces(more=False)

    def _parse_pieces(self, *, more: bool) -> bool:
        """Parse what has arrived. Returns whether the request has ended."""
        while self._pieces:  # in place, since a piece may end in a failure, which parses those after it
            data, stamp_ns = self._pieces.pop(0), self._stamps.pop(0)
            if self._take_at(data, stamp_ns, more=more or len(self._pieces) > 0):
                return True
        return False

    def _on_broken_pipe(self) -> None:
        """The same; what arrived before is parsed first."""
        while self.busy and (data := self._left_behind(_PIECE_OF_STREAM)):
            self._pieces.append(data)
            self._stamps.append(perf_counter_ns())
        self.fail(Failure.CLOSED)

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
                if self._pieces:
                    protocol.take_idle(self._pieces[0])
                self._end(now_ns)
            elif protocol.outbox:
                self.busy = False  # as in _take
                self._answer_peer()
            self._finish(now_ns, outcome, failed=failed)
            return True
        if protocol.outbox:
            if not protocol.duplex:  # the protocol asks again
                answer.begin(self.request)
            self._go_on()
        return self._socket is None or protocol is not self._protocol

    def _new_protocol(self) -> ClientProtocol:
        return self._reading.protocol(self._address, self._answer)
