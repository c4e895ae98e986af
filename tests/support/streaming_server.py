"""A server of streams that records its own sends: the truth that the load generator is held against.

Run as a script, in a process of its own: ``streaming_server.py [RECORD]``. It prints its port, and ends when its
standard input closes; then ``RECORD`` has one JSON line for each answer: when its request had come, and when each chunk
with content was sent, on the clock of ``time.perf_counter_ns``, which is one for all processes of a Linux machine.

The body of a request decides about its answer, see :class:`Wanted`: ``{"max_tokens": 20, "first_ms": 5, "gap_ms": 1}``.
Paths are those of OpenAI (``/v1/completions``, ``/v1/chat/completions``), of Ollama (``/api/generate``, ``/api/chat``),
``/lines`` for JSON lines as LitServe sends them, without a media type, ``/chunks`` for chunks of plain text, and of our
REST JSON.
"""

import contextlib
import functools
import heapq
import json
import re
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from pytest_mlpatterns.loadgen.event_loop import Alarm

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\n%s%s\r\n"
_MEDIA_TYPES = {
    "/api/generate": "application/x-ndjson",
    "/api/chat": "application/x-ndjson",
    "/lines": "",
    "/chunks": "text/plain",
}
"""Media type of the answers on the paths without events."""
_CHUNKED = b"transfer-encoding: chunked\r\n"
_LONGEST_WAIT_S = 20.0


@dataclass(frozen=True)
class Wanted:
    """What a request asks of its answer.

    A variant is ``whole``, or what is wrong: ``no_done``, ``cut``, ``error``, ``malformed``, ``until_close``,
    ``no_usage``, ``hang`` (no end ever comes), ``status`` (500, and no stream).
    """

    max_tokens: int = 20  # chunks with content
    first_ms: float = 5.0  # delay of the first one after the request
    gap_ms: float = 1.0  # between two
    per_send: int = 1  # chunks in one send
    split: int = 0  # bytes of one send; 0 sends each event at once
    variant: str = "whole"

    @classmethod
    def of(cls, body: dict[str, Any], default: "Wanted") -> "Wanted":
        """What the body of a request says, and the rest from ``default``."""
        return cls(**{field.name: body.get(field.name, getattr(default, field.name)) for field in fields(cls)})


@dataclass(frozen=True)
class SentStream:
    """One answer as the server recorded it; ``chunk_ns`` has the times directly before each chunk was sent."""

    received_ns: int
    chunk_ns: tuple[int, ...]


class Form:
    """The events of an answer on a path."""

    def __init__(self, path: str) -> None:
        self._kind = "chat" if path.endswith("/chat/completions") else "text" if "completions" in path else "rest"
        self._object = "chat.completion.chunk" if self._kind == "chat" else "text_completion"
        if path in _MEDIA_TYPES:
            self._kind = path
        media_type = _MEDIA_TYPES.get(path, "text/event-stream")
        self.head = f"content-type: {media_type}\r\n".encode() if media_type else b""

    def opening(self) -> bytes:
        """What comes before the first chunk: in a chat an event with nothing but the role."""
        return self._choice({"role": "assistant", "content": ""}) if self._kind == "chat" else b""

    @functools.cache  # noqa: B019 - a form for each path
    def chunk(self, number: int) -> bytes:
        """The chunk of this number."""
        text = f"tök{number} "
        if self._kind == "/chunks":
            return text.encode()
        if self._kind == "/lines":
            return _line({"output": text})
        if self._kind in _MEDIA_TYPES:
            return self._line_of_ollama(text, done=False)
        if self._kind == "rest":
            return b"data: %s\n\n" % json.dumps(text).encode()
        return self._choice({"content": text} if self._kind == "chat" else text)

    def error(self) -> bytes:
        """An error in the middle."""
        if self._kind in _MEDIA_TYPES:
            return _line({"error": "the model has failed"})
        if self._kind == "rest":
            return b'event: error\ndata: {"error": "the model has failed"}\n\n'
        return b'data: {"error": {"message": "the model has failed", "code": 500}}\n\n'

    def ending(self, wanted: Wanted) -> bytes:
        """What follows the last chunk."""
        if self._kind in _MEDIA_TYPES:
            if not self._kind.startswith("/api/") or wanted.variant == "no_done":
                return b""
            counts = {"prompt_eval_count": 7, "eval_count": wanted.max_tokens}
            return self._line_of_ollama("", done=True, done_reason="stop", **counts)
        usage = {"prompt_tokens": 7, "completion_tokens": wanted.max_tokens, "total_tokens": 7 + wanted.max_tokens}
        parts = []
        if self._kind != "rest" and wanted.variant != "no_usage":
            told = {"object": self._object, "choices": [], "usage": usage}
            parts.append(b"data: %s\n\n" % json.dumps(told).encode())
        if wanted.variant != "no_done":
            parts.append(b"data: [DONE]\n\n")
        return b"".join(parts)

    def malformed(self) -> bytes:
        """A part that cannot be read."""
        return b'{"response": \n' if self._kind in _MEDIA_TYPES else b"data: {\n\n"

    def _line_of_ollama(self, text: str, **more: Any) -> bytes:
        said = {"message": {"role": "assistant", "content": text}} if self._kind == "/api/chat" else {"response": text}
        return _line({"model": "m", "created_at": "2026-11-28T12:00:00Z", **said, **more})

    def _choice(self, content: object) -> bytes:
        field = "delta" if self._kind == "chat" else "text"
        choice = {"index": 0, field: content, "logprobs": None, "finish_reason": None}
        answer = {
            "id": "cmpl-1",
            "object": self._object,
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": None,
        }
        return b"data: %s\n\n" % json.dumps(answer, ensure_ascii=False).encode()


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


@functools.cache
def form_of(path: str) -> Form:
    """The form of the answers on a path."""
    return Form(path)


class Stream:
    """One connection: takes requests, and sends what is due."""

    def __init__(self, server: "Server", sock: socket.socket) -> None:
        self._server, self._socket = server, sock
        self._received = b""
        self._wanted = Wanted()
        self._form = form_of("")
        self._chunks: list[int] = []
        self._received_ns = 0

    def on_ready(self, _mask: int) -> None:
        """The client sent something, or closed. Requests are answered when every socket that is ready has been read."""
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        self._received_ns = perf_counter_ns()
        self._received += data
        self._server.call_at(0, self._answer_next)

    def _answer_next(self) -> None:
        head, complete, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if complete and len(body) >= size:
            self._received = body[size:]
            method, path = head.split(b" ", 2)[:2]
            if method == b"GET":  # clients ask for its health and its models
                self._write(
                    b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"data":[]}'
                )
            else:
                self._answer(path.decode(), json.loads(body[:size] or b"{}"))

    def go_on(self) -> None:
        """Send the chunks that are due, or the end."""
        wanted, sent = self._wanted, len(self._chunks)
        if self._socket.fileno() < 0:
            return
        if wanted.variant in ("cut", "error", "malformed") and sent >= wanted.max_tokens // 2:
            self._break_off()
            return
        until = min(sent + wanted.per_send, wanted.max_tokens)
        data = b"".join(self._form.chunk(number) for number in range(sent, until))
        self._chunks += [perf_counter_ns()] * (until - sent)
        self._send(data)
        if until < wanted.max_tokens:
            self._server.call_at(self._chunks[-1] + round(wanted.gap_ms * 1e6), self.go_on)
        elif wanted.variant != "hang":
            self._send(self._form.ending(wanted))
            self._end()

    def _answer(self, path: str, body: dict[str, Any]) -> None:
        self._wanted = wanted = Wanted.of(body, self._server.default)
        self._form, self._chunks = form_of(path), []
        if wanted.variant == "status":
            self._write(b"HTTP/1.1 500 Oh\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
            self._record()
            return
        self._write(_HEAD % (self._form.head, b"" if wanted.variant == "until_close" else _CHUNKED))
        self._send(self._form.opening())
        self._server.call_at(self._received_ns + round(wanted.first_ms * 1e6), self.go_on)

    def _break_off(self) -> None:
        if self._wanted.variant == "cut":
            self._record()
            self._close()
            return
        self._send(self._form.error() if self._wanted.variant == "error" else self._form.malformed())
        self._end()

    def _end(self) -> None:
        self._record()
        if self._wanted.variant == "until_close":
            self._close()
        else:
            self._write(b"0\r\n\r\n")

    def _record(self) -> None:
        self._server.sent.append((self._received_ns, self._chunks))

    def _send(self, data: bytes) -> None:
        """Send a piece of the body, as one piece or in many; nothing if it is empty, which would end the body."""
        if not data:
            return
        step = self._wanted.split or max(len(data), 1)
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            self._write(piece if self._wanted.variant == "until_close" else b"%x\r\n%s\r\n" % (len(piece), piece))

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the client has gone away; its end is noticed when it is read
            self._socket.sendall(data)

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            self._server.selector.unregister(self._socket)
            self._socket.close()


class Server:
    """One thread, one selector, and a heap of what is due."""

    def __init__(self, default: Wanted) -> None:
        self.default = default
        self.selector = selectors.DefaultSelector()
        self.sent: list[tuple[int, list[int]]] = []
        self._due: list[tuple[int, int, Any]] = []
        self._numbered = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._open = True

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def call_at(self, at_ns: int, function: Any) -> None:
        """Call the function at this time."""
        self._numbered += 1
        heapq.heappush(self._due, (at_ns, self._numbered, function))

    def run(self) -> None:
        """Serve until the standard input closes."""
        self.selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self._stop)
        alarm = Alarm(self.selector)
        while self._open:
            now = perf_counter_ns()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            wait_s = None
            if self._due:
                alarm.set(self._due[0][0])
                wait_s = max(self._due[0][0] - perf_counter_ns(), 0) / 1e9
            for key, mask in self.selector.select(wait_s):
                key.data(mask)
        alarm.close()

    def _accept(self, _mask: int) -> None:
        sock, _ = self._listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(sock, selectors.EVENT_READ, Stream(self, sock).on_ready)

    def _stop(self, _mask: int) -> None:
        self._open = False


@dataclass(frozen=True)
class StreamingServer:
    """A running server, as tests and benchmarks see it."""

    port: int
    process: subprocess.Popen[str]
    record: Path

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def stop(self) -> list[SentStream]:
        """End it. Returns what it sent."""
        self.process.stdin.close()
        self.process.wait(_LONGEST_WAIT_S)
        lines = self.record.read_text(encoding="utf-8").splitlines()
        return [SentStream(received_ns, tuple(chunks)) for received_ns, chunks in map(json.loads, lines)]


@contextmanager
def streaming_server(record: Path, default: Wanted | None = None) -> Iterator[StreamingServer]:
    """A server in a process of its own; requests that say nothing else get the ``default``."""
    command = [sys.executable, __file__, str(record), json.dumps((default or Wanted()).__dict__)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield StreamingServer(int(process.stdout.readline()), process, record)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(_LONGEST_WAIT_S)


def main(record: str = "", default: str = "{}") -> None:
    """Serve until the standard input closes, then write the record."""
    server = Server(Wanted(**json.loads(default)))
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    server.run()
    if record:
        Path(record).write_text("".join(f"{json.dumps(sent)}\n" for sent in server.sent), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
