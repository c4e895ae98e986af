"""The link between a replica and the monitor of its node: one local TCP connection, answered by a thread of its own.

Over it the monitor learns what the replica has counted, why its model could not be loaded, and when its process ended.
The thread answers also while the model keeps the event loop of the replica busy. Neither end knows Ray.
"""

from __future__ import annotations

import contextlib
import hmac
import itertools
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.engines.ray.messages import ReplicaState, ReplicaStats
from pytest_mlpatterns.serving.processes import LoadFailed, Ready, StatsQuestion, Unusable, WorkerStats
from pytest_mlpatterns.system.pipe_messages import MessageWriter, read_message

_HOST = "127.0.0.1"
_KEY_BYTES = 32  # Length of the random key of a run: 256 bits, as of a key of AES
_KEY_TIMEOUT_S = 30.0  # Time limit for the key of a connection; one that sends none is no replica
ANSWER_TIMEOUT_S = 5.0
"""Time limit for a replica's answer; a thread of its own gives it, so only a model that holds the GIL is later."""
SILENT = "does not respond; does the model hold the GIL?"  # Text of a replica that is ready and does not answer


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """Where a monitor listens, and the key that replicas send first: any user of the machine can connect."""

    port: int
    key: bytes = field(repr=False)


class Hello(Struct, frozen=True):
    """A replica introduces itself."""

    app: str
    known: ReplicaStats
    output: tuple[Path, ...] = ()  # files to which the process prints


class LinkServer:
    """The monitor's end: accepts replicas, asks them, and remembers those that have ended."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_KEY_BYTES)
        self._listener = socket.create_server((_HOST, 0), backlog=512)
        self._linked: dict[str, _Linked] = {}
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        threading.Thread(target=self._accept, name="links", daemon=True).start()

    @property
    def address(self) -> LinkAddress:
        """Where replicas connect."""
        return LinkAddress(self._listener.getsockname()[1], self._key)

    def pids(self, app: str) -> list[int]:
        """The processes of an application's replicas that have not ended."""
        return [one.hello.known.pid for one in self._of(app) if one.state is not ReplicaState.ENDED]

    def output(self, app: str) -> list[tuple[ReplicaStats, Path]]:
        """The replicas of an application, ended ones too, and each file to which they print."""
        return [(one.hello.known, file) for one in self._of(app) for file in one.hello.output]

    def replicas(self, app: str, *, ask: bool, timeout_s: float = ANSWER_TIMEOUT_S) -> tuple[ReplicaStats, ...]:
        """What is known of each replica of an application, also of those that have ended."""
        asked = {}
        if ask:
            for one in self._of(app):
                if one.state is ReplicaState.READY:
                    asked[one] = next(self._numbers)
                    one.ask(asked[one])
            with self._changed:
                self._changed.wait_for(lambda: not any(map(_is_due, asked, asked.values())), timeout_s)
        return tuple(one.known(is_silent=one in asked and _is_due(one, asked[one])) for one in self._of(app))

    def forget(self, app: str) -> None:
        """Forget the replicas of an application that is deleted."""
        with self._changed:
            for replica in [replica for replica, one in self._linked.items() if one.hello.app == app]:
                del self._linked[replica]

    def close(self) -> None:
        """Accept no replicas any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _of(self, app: str) -> list[_Linked]:
        with self._changed:
            return [one for one in self._linked.values() if one.hello.app == app]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._follow, args=(connection,), name="link", daemon=True).start()

    def _follow(self, connection: socket.socket) -> None:
        """Read what one replica sends until its process ends."""
        linked = None
        with connection, contextlib.suppress(EOFError, OSError):
            connection.settimeout(_KEY_TIMEOUT_S)
            if not hmac.compare_digest(_received(connection, _KEY_BYTES), self._key):
                return
            connection.settimeout(None)
            with _stream(connection) as stream:
                linked = _Linked(read_message(stream), MessageWriter(stream))
                with self._changed:
                    self._linked[linked.hello.known.replica] = linked
                while True:
                    message = read_message(stream)
                    with self._changed:
                        linked.take(message)
                        self._changed.notify_all()
        if linked is not None:
            with self._changed:
                linked.state = ReplicaState.ENDED if linked.state is not ReplicaState.FAILED else linked.state
                self._changed.notify_all()


@dataclass(slots=True, eq=False)
class _Linked:
    """A replica as its monitor knows it."""

    hello: Hello
    writer: MessageWriter
    state: ReplicaState = ReplicaState.LOADING
    stats: WorkerStats | None = None
    failure: LoadFailed = field(default_factory=lambda: LoadFailed(""))
    asking: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, number: int) -> None:
        """Ask for statistics; an end of the replica is seen by the thread that reads from it."""
        with self.asking, contextlib.suppress(OSError, ValueError):  # it has just ended
            self.writer.write(StatsQuestion(number))

    def take(self, message: object) -> None:
        """Note what it reported."""
        if isinstance(message, Ready):
            self.state = ReplicaState.READY
        elif isinstance(message, LoadFailed):
            self.state, self.failure = ReplicaState.FAILED, message
        elif isinstance(message, WorkerStats):
            self.stats = message

    def known(self, *, is_silent: bool) -> ReplicaStats:
        """What is known of it."""
        text = SILENT if is_silent and self.state is ReplicaState.READY else self.failure.traceback
        return replace(self.hello.known, state=self.state, stats=self.stats, text=text, reason=self.failure.reason)


def _is_due(linked: _Linked, number: int) -> bool:
    """Whether a replica still has to answer the question of this number."""
    answered = linked.stats.number if linked.stats is not None else 0
    return linked.state is ReplicaState.READY and answered < number


class LinkClient:
    """The replica's end. Raises OSError: nothing listens there."""

    def __init__(self, address: LinkAddress, hello: Hello) -> None:
        self._connection = socket.create_connection((_HOST, address.port), timeout=_KEY_TIMEOUT_S)
        self._connection.settimeout(None)
        self._connection.sendall(address.key)
        self._stream = _stream(self._connection)
        self._writer = MessageWriter(self._stream)
        self._writing = threading.Lock()
        self._send(hello)

    def ready(self, statistics: Callable[[], WorkerStats]) -> None:
        """Report that the model is built, and answer questions for statistics from now on."""
        threading.Thread(target=self._answer, args=(statistics,), name="link", daemon=True).start()
        self._send(Ready())

    def failed(self, traceback: str, reason: Unusable | None) -> None:
        """Report that the model could not be built."""
        self._send(LoadFailed(traceback, reason))

    def close(self) -> None:
        """End the link, as the end of the process does."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        self._connection.close()

    def _send(self, message: object) -> None:
        with self._writing, contextlib.suppress(OSError, ValueError):  # the monitor has ended, or this end is closed
            self._writer.write(message)

    def _answer(self, statistics: Callable[[], WorkerStats]) -> None:
        with contextlib.suppress(EOFError, OSError, ValueError):  # the same
            while True:
                question: Any = read_message(self._stream)
                if isinstance(question, StatsQuestion):
                    self._send(replace(statistics(), number=question.number))


def own_output() -> tuple[Path, ...]:
    """The files to which this process prints, as far as the system names them and they are files."""
    found = []
    for number in (1, 2):
        with contextlib.suppress(OSError):
            file = Path(os.readlink(f"/proc/self/fd/{number}"))
            if file.is_file() and file not in found:
                found.append(file)
    return tuple(found)


def _stream(connection: socket.socket) -> IO[bytes]:
    """A connection as a stream without a buffer, for both directions.

    A message is several short writes, which must not wait for the acknowledgement of the first (Nagle's algorithm).
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return cast("IO[bytes]", connection.makefile("rwb", buffering=0))


def _received(connection: socket.socket, size: int) -> bytes:
    data = b""
    deadline = time.monotonic() + _KEY_TIMEOUT_S
    while len(data) < size and time.monotonic() < deadline:
        if not (part := connection.recv(size - len(data))):
            raise EOFError
        data += part
    return data
