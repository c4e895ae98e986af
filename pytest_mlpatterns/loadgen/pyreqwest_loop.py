"""The loop that drives load through a client library: for https and HTTP/2, which our own connections do not speak.

Same course of a job, same recording as :class:`pytest_mlpatterns.loadgen.event_loop.LoadLoop`. The library (pyreqwest,
extra
``https``) costs time of its own in every request, which :mod:`pytest_mlpatterns.loadgen.ceiling` measures and the
result
states. It must not know processes or numpy.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.loadgen.load_run import TICK_NS, LoadRun
from pytest_mlpatterns.records.outcomes import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult
    from pytest_mlpatterns.records.addressing import Remote

__all__ = ["PyreqwestLoop", "parse_message"]

_FRAMING = ("host", "content-length", "transfer-encoding", "connection")


class PyreqwestLoop:
    """Runs one job whose ``remote`` is set.

    Args:
        job: what to do.
        tell: takes each event as it happens.
    """

    def __init__(self, job: LoadJob, tell: Callable[[Event], None]) -> None:
        assert job.remote is not None
        self._remote = job.remote
        self._requests = [parse_message(message) for message in job.messages]
        self._timeout_ns = job.timeout_ns
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: Any = None
        self._course = LoadRun(job, self._start_request, tell)

    def run(self) -> LoadResult:
        """Drive the load to its end."""
        import uvloop

        uvloop.run(self._drive())
        return self._course.recorded()

    def open_at(self, at_ns: int) -> None:
        """Open the window at this time, where the load is shared. Callable from another thread."""
        self._course.open_at(at_ns)

    def stop(self) -> None:
        """End the load at the next tick. Callable from another thread."""
        self._course.stop_early = True

    async def _drive(self) -> None:
        course = self._course
        async with _client_of(self._remote, self._timeout_ns) as self._client:
            course.start(perf_counter_ns())
            pacing = asyncio.create_task(self._pace())
            try:
                while not (course.draining and (course.stop_early or not self._tasks)):
                    await asyncio.sleep(TICK_NS / 1e9)
                    course.tick(perf_counter_ns(), len(self._tasks), limit_reached=False)
            finally:
                pacing.cancel()
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(pacing, *self._tasks, return_exceptions=True)

    async def _pace(self) -> None:
        """Send what is due by the clock."""
        while True:
            left_ns = self._course.next_due_ns - perf_counter_ns()
            if left_ns > 0:
                await asyncio.sleep(min(left_ns, TICK_NS) / 1e9)
            else:
                self._course.send_due(perf_counter_ns())
                await asyncio.sleep(0)

    def _start_request(self, request: int, due_ns: int | None) -> None:
        task = asyncio.create_task(self._request(request, due_ns))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _request(self, request: int, due_ns: int | None) -> None:
        from pyreqwest import exceptions

        method, path, headers, body = self._requests[request]
        sent_ns = perf_counter_ns()
        due_ns = sent_ns if due_ns is None else due_ns
        answer = head = b""
        try:
            prepared = self._client.request(method, self._remote.origin + path).headers(headers).body_bytes(body)
            response = await prepared.build().send()
            answer = bytes(await response.bytes())
            outcome = int(response.status)
            if self._course.answers is not None:
                head = _head_of(response.headers)
        except exceptions.RequestTimeoutError:
            outcome = Failure.TIMEOUT.value
        except exceptions.ConnectError:
            outcome = Failure.CONNECT.value
        except exceptions.NetworkError:
            outcome = Failure.CLOSED.value
        except exceptions.PyreqwestError:
            outcome = Failure.MALFORMED.value
        now = perf_counter_ns()
        course = self._course
        course.recording.add(due_ns, sent_ns, now, outcome, request, 0, len(answer))
        if course.answers is not None and 200 <= outcome < 300:
            course.answers.offer(request, answer, head)
        if course.answered(due_ns, now, failed=outcome < 0):
            self._start_request(course.next_request(), None)


def parse_message(message: bytes) -> tuple[str, str, dict[str, str], bytes]:
    """A prepared HTTP/1.1 request as method, path, headers without those that frame it, and body."""
    head, _, body = message.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _version = first.split(" ")
    pairs = (line.partition(": ")[::2] for line in lines)
    return method, path, {name: value for name, value in pairs if name.lower() not in _FRAMING}, body


def _head_of(headers: Mapping[str, str]) -> bytes:
    """The head of an answer as our own connections see it; its first line is of no matter."""
    return "\r\n".join(["", *(f"{name}: {value}" for name, value in headers.items())]).encode("latin-1")


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
