"""The event loop that drives load through pyreqwest: for https and HTTP/2 targets.

It shares :class:`pytest_mlpatterns.loadgen.load_run.LoadRun` and the recording with the loop over our own connections.
A request whose connection is lost before its answer begins is sent once more after the first answer of the load: the
library hides whether the service had closed an idle connection. The library (extra ``https``) adds time to every
request; :mod:`pytest_mlpatterns.loadgen.ceiling` measures it, and the result reports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Callable
from datetime import timedelta
from time import perf_counter_ns
from typing import Any

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS
from pytest_mlpatterns.loadgen.load_run import TICK_NS, LoadRun
from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult
from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer, answers_to
from pytest_mlpatterns.records.addressing import Remote
from pytest_mlpatterns.records.outcomes import Failure

_REFUSED = (Failure.TIMEOUT, Failure.CONNECT, Failure.CLOSED, Failure.MALFORMED)
"""Failures after which a caller of a closed loop rests, so that a dead server is not asked all the time."""
_FRAMING = ("host", "content-length", "transfer-encoding", "connection")
"""Headers that the client library writes itself."""


class PyreqwestLoop:
    """Runs one job whose endpoint is remote."""

    def __init__(self, job: LoadJob, emit: Callable[[Event], None]) -> None:
        assert job.endpoint.remote is not None
        self._remote = job.endpoint.remote
        self._requests = [parse_message(message) for message in job.messages]
        self._timeout_ns = job.timeout_ns
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: Any = None
        self._logged = False
        self._has_answer = False
        self._paced_until_ns = NEVER_NS
        self._is_due_earlier = asyncio.Event()
        self._in_pieces = job.stream
        self._new_answer = answers_to(job)
        self._load_run = LoadRun(job, self._start_request, emit)

    def run(self) -> LoadResult:
        """Run the load to its end."""
        import uvloop

        uvloop.run(self._drive())
        return self._load_run.result()

    def open_at(self, at_ns: int) -> None:
        """Open the window of a shared load at this time. Thread-safe."""
        self._load_run.open_at(at_ns)

    def add_address(self, _address: tuple[str, int]) -> None:
        """Do nothing: the library reaches a service by its one origin."""

    def remove_address(self, _address: tuple[str, int]) -> None:
        """Do nothing, as for an address that is added."""

    def stop(self) -> None:
        """End the load at the next tick. Thread-safe."""
        self._load_run.stop_early = True

    async def _drive(self) -> None:
        load_run = self._load_run
        async with _client_of(self._remote, self._timeout_ns) as self._client:
            load_run.start(perf_counter_ns())
            pacing = asyncio.create_task(self._pace())
            try:
                while not (load_run.draining and (load_run.stop_early or not self._tasks)):
                    await asyncio.sleep(TICK_NS / 1e9)
                    load_run.tick(perf_counter_ns(), len(self._tasks), limit_reached=False)
                    self._note_due()
            finally:
                pacing.cancel()
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(pacing, *self._tasks, return_exceptions=True)

    async def _pace(self) -> None:
        """Send requests when they are due by the clock."""
        while True:
            now = perf_counter_ns()
            due_ns = self._load_run.next_due_ns
            if due_ns > now:
                self._paced_until_ns = min(due_ns, now + TICK_NS)
                self._is_due_earlier.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout((self._paced_until_ns - now) / 1e9):
                        await self._is_due_earlier.wait()
            else:
                self._load_run.send_due(now)
                await asyncio.sleep(0)

    def _note_due(self) -> None:
        """Wake the pace if a request is due earlier than it waits for: an answer or the window's begin made it so."""
        if self._load_run.next_due_ns < self._paced_until_ns:
            self._is_due_earlier.set()

    def _start_request(self, request: int, due_ns: int | None) -> None:
        task = asyncio.create_task(self._request(request, due_ns, asked_ns=perf_counter_ns()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _request(self, request: int, due_ns: int | None, *, asked_ns: int) -> None:
        load_run, sent_ns = self._load_run, perf_counter_ns()
        due_ns = load_run.due_at_once(asked_ns, sent_ns) if due_ns is None else due_ns
        received = _Received(self._new_answer())
        received.answer.begin(request)
        outcome = await self._outcome_of(request, received)
        if outcome == Failure.CLOSED and self._has_answer and not received.began:
            load_run.sent_again_ns.append(due_ns)
            outcome = await self._outcome_of(request, received)
        self._has_answer = self._has_answer or outcome > 0
        now = perf_counter_ns()
        load_run.recording.adder_of(received.answer)(due_ns, sent_ns, now, outcome, request, 0, len(received.body))
        if load_run.answers is not None and 200 <= outcome < 300:
            load_run.answers.offer(request, received.body, received.head)
        if load_run.answered(due_ns, now, failed=outcome in _REFUSED):
            self._start_request(load_run.next_request(), None)
        if load_run.figures is not None:
            load_run.figures.read()
        self._note_due()

    async def _outcome_of(self, request: int, received: _Received) -> int:
        """Send the request, and receive its answer. Returns the status, or a code of :class:`Failure`."""
        from pyreqwest import exceptions

        method, path, headers, body = self._requests[request]
        try:
            prepared = self._client.request(method, self._remote.origin + path).headers(headers).body_bytes(body)
            receive = received.pieces if self._in_pieces else received.whole
            return await receive(prepared, with_head=self._load_run.answers is not None)
        except Exception as error:
            # The library calls the end of a connection during a request so, too.
            unreached = Failure.CONNECT if "client error (Connect)" in str(error) else Failure.CLOSED
            for kind, failure in (
                (exceptions.RequestTimeoutError, received.answer.timed_out()),
                (exceptions.ConnectError, unreached),
                (exceptions.NetworkError, Failure.CLOSED),
            ):
                if isinstance(error, kind):
                    return failure.value
            if not isinstance(error, exceptions.PyreqwestError):
                self._log_unexpected()
            return Failure.MALFORMED.value

    def _log_unexpected(self) -> None:
        """Print the first unexpected exception to the generator's log."""
        if not self._logged:
            self._logged = True
            traceback.print_exc()


class _Received:
    """What has come of one answer."""

    __slots__ = ("answer", "began", "body", "head")

    def __init__(self, answer: StreamedAnswer) -> None:
        self.answer = answer
        self.body = self.head = b""
        self.began = False

    async def whole(self, prepared: Any, *, with_head: bool) -> int:
        """Receive the answer at once. Returns its status."""
        response = await prepared.build().send()
        self.began = True
        self.body = bytes(await response.bytes())
        if with_head:
            self.head = _head_of(response)
        return int(response.status)

    async def pieces(self, prepared: Any, *, with_head: bool) -> int:
        """Receive the answer in pieces. Returns its outcome."""
        answer, pieces = self.answer, []
        async with prepared.streamed_read_buffer_limit(0).build_streamed() as response:
            answer.first_byte_ns = perf_counter_ns()
            self.began = True
            kind, coding = (response.get_header(name) or "" for name in ("content-type", "content-encoding"))
            answer.read_type(kind, coding, is_sized=response.get_header("content-length") is not None)
            if with_head:
                self.head = _head_of(response)
            while (piece := await response.body_reader.read_chunk()) is not None:
                answer.now_ns = perf_counter_ns()
                pieces.append(bytes(piece))
                if answer.is_stream:
                    answer.take(pieces[-1])
                    answer.end_piece()
                else:
                    answer.keep_opening(pieces[-1])
        self.body = b"".join(pieces)
        return answer.outcome(int(response.status), delimited=_is_delimited(response))


def parse_message(message: bytes) -> tuple[str, str, list[tuple[str, str]], bytes]:
    """Split a prepared HTTP/1.1 request into method, path, headers without framing headers, and body."""
    head, _, body = message.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _version = first.split(" ")
    pairs = (line.partition(": ")[::2] for line in lines)
    return method, path, [(name, value) for name, value in pairs if name.lower() not in _FRAMING], body


def _head_of(response: Any) -> bytes:
    """The response head in the form our own connections give."""
    lines = (f"HTTP/1.1 {response.status}", *(f"{name}: {value}" for name, value in response.headers.items()))
    return "\r\n".join(lines).encode("latin-1")


def _is_delimited(response: Any) -> bool:
    """Whether HTTP marked the end of an answer that is over; not if it lasted until the connection was closed."""
    if not response.version.startswith("HTTP/1"):
        return True
    return any(response.get_header(name) is not None for name in ("content-length", "transfer-encoding"))


def _client_of(remote: Remote, timeout_ns: int) -> Any:
    from pyreqwest.client import ClientBuilder

    builder = ClientBuilder().timeout(timedelta(microseconds=timeout_ns / 1000)).no_proxy().follow_redirects(False)
    builder = builder.tcp_nodelay(True).gzip(False).brotli(False).deflate(False).zstd(False)
    if remote.ca_pem is not None:
        builder = builder.add_root_certificate_pem(remote.ca_pem)
    if not remote.http2:
        builder = builder.http1_only()
    elif not remote.origin.startswith("https:"):
        builder = builder.http2_prior_knowledge()
    return builder.build()
