"""A server on 127.0.0.1 that does with every request exactly what its script says, byte by byte.

A script is a function from a :class:`Request` to steps: :class:`Send`, :class:`Hold`, :class:`Close`, :class:`Reset`,
:class:`Silence`. After the last step the connection waits for its next request. One thread serves each connection.
"""

import contextlib
import functools
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived: which it is of all (0, 1, …), on which connection, and which it is there."""

    number: int
    connection: int
    number_on_connection: int
    head: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes, in pieces of ``piece_bytes`` where that is given."""

    data: bytes
    piece_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Go on when the event is set; that the server holds is told by ``reached``."""

    event: threading.Event
    reached: threading.Event | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection; ``closed`` is set when that is done."""

    closed: threading.Event | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """End the connection with a reset."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Never answer."""


Step = Send | Hold | Close | Reset | Silence


def answer(body: bytes = b"ok", status: int = 200, *headers: bytes) -> bytes:
    """A complete answer with a content-length, and these header lines besides."""
    lines = [b"HTTP/1.1 %d Status" % status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def refused_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, now or while this process lives."""
    return int(_held_port().getsockname()[1])


@functools.cache
def _held_port() -> socket.socket:
    """Bound, so that nobody else gets the port, and not listening."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    return holder


class ScriptedServer:
    """Listens while it is entered; what it saw stays readable afterwards.

    The script is called in the thread of its connection. With ``read_bytes`` the receive buffer is as small as the
    system allows, too. ``listening=False`` refuses connections until :meth:`listen`.
    """

    def __init__(
        self,
        script: Callable[[Request], Iterable[Step]] = lambda _: [Send(answer())],
        *,
        read_bytes: int | None = None,
        listening: bool = True,
        port: int = 0,
    ) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.peak_in_flight = 0
        self._script = script
        self._read_bytes = read_bytes or 1 << 16
        self._in_flight = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._held: set[threading.Event] = {self._closing}
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if read_bytes:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_bytes)
        self._listener.bind(("127.0.0.1", port))
        self._listening = listening
        host, port = self._listener.getsockname()
        self.address: tuple[str, int] = (host, port)

    def listen(self) -> None:
        """Take connections from now on."""
        self._listener.listen(1024)
        self._start(self._accept)

    def __enter__(self) -> "ScriptedServer":
        if self._listening:
            self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with self._lock:
            for event in self._held:
                event.set()
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closing.is_set():
                    connection.close()
                    return
                number = self.connections
                self.connections += 1
                self._open.add(connection)
            self._start(self._serve, connection, number)

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray()
        count = 0
        with contextlib.suppress(OSError):
            while (request := self._read(connection, buffer, number, count)) is not None:
                count += 1
                waiting = True
                for step in self._script(request):
                    if waiting and isinstance(step, Send):
                        self._answered()  # before the bytes: the peer may answer them with its next request
                        waiting = False
                    self._take(connection, step)
                if waiting:
                    self._answered()
                if connection.fileno() < 0:
                    break
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _take(self, connection: socket.socket, step: Step) -> None:
        match step:
            case Send(data, piece_bytes):
                for start in range(0, len(data), piece_bytes or max(1, len(data))):
                    connection.sendall(data[start : start + (piece_bytes or len(data))])
            case Hold(event, reached):
                if reached is not None:
                    reached.set()
                self._await(event)
            case Silence():
                self._await(self._closing)
            case Close(closed):
                with self._lock:
                    self._open.discard(connection)
                connection.close()
                if closed is not None:
                    closed.set()
            case Reset():
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with self._lock:
                    self._open.discard(connection)
                connection.close()

    def _await(self, event: threading.Event) -> None:
        with self._lock:
            self._held.add(event)
            if self._closing.is_set():
                event.set()
        event.wait()

    def _read(self, connection: socket.socket, buffer: bytearray, number: int, count: int) -> Request | None:
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if not self._receive(connection, buffer):
                return None
        head = bytes(buffer[: end + 4])
        length = int(found[1]) if (found := _LENGTH.search(head)) else 0
        while len(buffer) < len(head) + length:
            if not self._receive(connection, buffer):
                return None
        body = bytes(buffer[len(head) : len(head) + length])
        del buffer[: len(head) + length]
        with self._lock:
            request = Request(len(self.requests), number, count, head, body)
            self.requests.append(request)
            self._in_flight += 1  # together with its number: a script may hold all until the last has come
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        return request

    def _receive(self, connection: socket.socket, buffer: bytearray) -> bool:
        data = connection.recv(self._read_bytes)
        buffer += data
        return bool(data)

    def _answered(self) -> None:
        with self._lock:
            self._in_flight -= 1
