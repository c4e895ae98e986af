"""One HTTP/1.1 connection that stamps every request it carries.

It opens its socket when the first request needs it, sends prepared bytes, and knows from httptools when an answer is
complete. It must not know when a request is due or which comes next: it tells its owner that it is free.
"""

from __future__ import annotations

import errno
import re
import selectors
import socket
from time import perf_counter_ns
from typing import TYPE_CHECKING, Protocol

import httptools

from pytest_mlpatterns.load.job import Failure

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

    from pytest_mlpatterns.load.recording import Answers, Recording

__all__ = ["Connection", "Owner"]

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_PIECE = 1 << 16  # above malloc's threshold for maps of their own, every read would cost page faults
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR)
_HEAD_BYTES = 1 << 16
_ACCEPTED = 202
_INTERIM = re.compile(rb"HTTP/\d\.\d 1")
_LOCATION = re.compile(rb"\r\nlocation:[ \t]*(/[!-~]*)", re.IGNORECASE)
_DELIMITED = re.compile(rb"\r\n(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE)


class Owner(Protocol):
    """What a connection needs of the loop that owns it."""

    selector: selectors.BaseSelector
    recording: Recording
    answers: Answers | None
    connect_ns: array[int]
    messages: Sequence[bytes]
    follow: bool

    def completed(self, connection: Connection, now_ns: int, *, failed: bool) -> None:
        """The connection has recorded its request and is free."""
        ...


class Connection:
    """One keep-alive connection to one address, with at most one request on it.

    Every request ends in exactly one row of the owner's recording, whatever the peer does: an answer with its status,
    or one of the codes of :class:`Failure`.
    """

    __slots__ = (
        "_address",
        "_chunks",
        "_done_ns",
        "_feed",
        "_head",
        "_keep_alive",
        "_opened",
        "_opening_ns",
        "_owner",
        "_received",
        "_recv",
        "_send",
        "_sent_ns",
        "_socket",
        "_status",
        "_status_code",
        "_unsent",
        "_used_up",
        "busy",
        "due_ns",
        "request",
        "target",
    )

    def __init__(self, owner: Owner, address: tuple[str, int], target: int) -> None:
        self._owner = owner
        self._address = address
        self.target = target
        self.busy = False
        self.request = 0
        self.due_ns = 0
        self._sent_ns = 0
        self._received = 0
        self._socket: socket.socket | None = None
        self._opened = False
        self._unsent = memoryview(b"")
        self._head = b""
        self._status_code = 0
        self._done_ns = 0
        self._used_up = False
        self._chunks: list[bytes] = []

    def send(self, request: int, due_ns: int | None = None) -> None:
        """Send the prepared request of this index; ``due_ns`` None means that it is due now."""
        now = perf_counter_ns()
        self.request = request
        self.due_ns = now if due_ns is None else due_ns
        self._sent_ns = now
        self._received = 0
        self.busy = True
        self._write(self._owner.messages[request])

    def _write(self, message: bytes) -> None:
        if not self._opened:
            self._unsent = memoryview(message)
            if self._socket is None:
                self._open()
            return
        try:
            sent = self._send(message)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.fail(Failure.CLOSED)
            return
        if sent < len(message):
            self._unsent = memoryview(message)[sent:]
            self._watch(_READ | _WRITE)

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
            self._unsent = memoryview(b"")

    def fail(self, failure: Failure) -> None:
        """End the request under way, if any, as failed, and close."""
        self.close()
        if self.busy:
            self._finish(perf_counter_ns(), failure.value, failed=True)

    def on_ready(self, mask: int) -> None:
        """The selector says that the socket can be read or written."""
        if mask & _WRITE and self._socket is not None:  # an earlier event of the same batch may have closed it
            self._on_writable()
        if not mask & _READ or self._socket is None:
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
            return
        if self.busy:
            self._take(data)
        else:  # an answer to nothing: this peer cannot be trusted with another request
            self.close()

    def _take(self, data: bytes) -> None:
        """A piece of the answer has come, maybe its last, maybe more than it."""
        if not self._received:
            self._head = data
        elif self._received < _HEAD_BYTES:
            self._head += data
        self._received += len(data)
        try:
            self._feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._status_code:
                self.fail(Failure.MALFORMED)
                return
            self._used_up = True
        if self._status_code == _ACCEPTED and self._owner.follow:
            self._ask_for_result()
        elif self._status_code:
            # After more than the answer, or an answer to half a request, the next could not be told from the rest.
            if self._used_up or self._unsent:
                self.close()
            self._finish(self._done_ns, self._status_code, failed=False)

    def _ask_for_result(self) -> None:
        """The request was accepted; ask for its result, which the service holds back for a while until it is there."""
        location = _LOCATION.search(self._head)
        if location is None or self._used_up or self._unsent:
            self.fail(Failure.MALFORMED if location is None else Failure.CLOSED)
            return
        self._status_code = 0
        self._received = 0
        self._chunks.clear()
        self._write(b"GET %s HTTP/1.1\r\nhost: %s\r\n\r\n" % (location[1], self._address[0].encode("ascii")))

    def on_message_begin(self) -> None:
        """Called by the parser at the first byte of an answer."""
        if self._status_code:  # a second answer to one request
            self._used_up = True

    def on_body(self, chunk: bytes) -> None:
        """Called by the parser with a piece of an answer's body, where answers are kept."""
        if not self._status_code:
            self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        """Called by the parser at the last byte of an answer."""
        status = self._status()
        if status >= 200 and not self._status_code:  # below: 100 Continue, 103 Early Hints; the answer proper follows
            self._done_ns = perf_counter_ns()
            self._status_code = status
            self._used_up = not self._keep_alive()  # known only here

    def _finish(self, now_ns: int, outcome: int, *, failed: bool) -> None:
        owner = self._owner
        self.busy = False
        self._status_code = 0
        self._used_up = False
        owner.recording.add(self.due_ns, self._sent_ns, now_ns, outcome, self.request, self.target, self._received)
        if owner.answers is not None:
            if 200 <= outcome < 300:
                owner.answers.offer(self.request, b"".join(self._chunks), self._final_head())
            self._chunks.clear()
        owner.completed(self, now_ns, failed=failed)

    def _open(self) -> None:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        except OSError:  # no descriptor is left
            self.fail(Failure.CONNECT)
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._opening_ns = perf_counter_ns()
        if sock.connect_ex(self._address) not in _UNDER_WAY:
            sock.close()
            self.fail(Failure.CONNECT)
            return
        self._socket = sock
        self._recv, self._send = sock.recv, sock.send
        tap = self if self._owner.answers is not None else _Completion(self)
        parser = httptools.HttpResponseParser(tap)
        self._feed, self._status, self._keep_alive = (
            parser.feed_data,
            parser.get_status_code,
            parser.should_keep_alive,
        )
        self._owner.selector.register(sock, _READ | _WRITE, self.on_ready)

    def _on_writable(self) -> None:
        assert self._socket is not None
        if not self._opened:
            if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.fail(Failure.CONNECT)
                return
            self._opened = True
            self._owner.connect_ns.append(perf_counter_ns() - self._opening_ns)
        try:
            self._unsent = self._unsent[self._send(self._unsent) :] if self._unsent else self._unsent
        except BlockingIOError:
            return
        except OSError:
            self.fail(Failure.CLOSED)
            return
        if not self._unsent:
            self._watch(_READ)

    def _on_end(self) -> None:
        """The peer closed. That ends an answer without a length; otherwise the answer is lost."""
        if not self._opened:
            self.fail(Failure.CONNECT)
        elif self.busy and self._received and self._ends_with_connection():
            status = self._status()
            self.close()
            self._finish(perf_counter_ns(), status, failed=False)
        else:
            self.fail(Failure.CLOSED)

    def _ends_with_connection(self) -> bool:
        """Whether the answer has neither length nor chunks, so that the end of the connection is its end."""
        head = self._final_head()
        return not self._keep_alive() and bool(head) and _DELIMITED.search(head) is None

    def _final_head(self) -> bytes:
        """The head of the answer itself, after any interim ones; empty where it is not complete, or very long."""
        head, complete, rest = self._head.partition(b"\r\n\r\n")
        while complete and _INTERIM.match(head):
            head, complete, rest = rest.partition(b"\r\n\r\n")
        return head if complete else b""

    def _watch(self, events: int) -> None:
        assert self._socket is not None
        self._owner.selector.modify(self._socket, events, self.on_ready)


class _Completion:
    """Hides ``on_body`` from the parser, which then spares itself the copy of every body."""

    __slots__ = ("on_message_begin", "on_message_complete")

    def __init__(self, connection: Connection) -> None:
        self.on_message_begin = connection.on_message_begin
        self.on_message_complete = connection.on_message_complete
