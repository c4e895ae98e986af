"""Responses that are streams: the parts of their bodies, and clients that go away before the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Protocol

from msgspec import Struct

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.request_clock import RequestClock
from pytest_mlpatterns.patterns.stream import NOT_STREAMED, Stream
from pytest_mlpatterns.patterns.tally import SplitTally
from pytest_mlpatterns.serving.clocks import written_parts
from pytest_mlpatterns.serving.http.inference_call import WireTally
from pytest_mlpatterns.wire import WireError
from pytest_mlpatterns.wire.kserve_v1 import DONE, encode_chunk, encode_error_event, encode_times_event
from pytest_mlpatterns.wire.stream_events import EVENT_STREAM

HEADERS = ((b"content-type", EVENT_STREAM.encode()), (b"cache-control", b"no-cache"))  # Headers of a stream


class StreamFormat(Protocol):
    """How the chunks of one stream are written."""

    @property
    def is_full(self) -> bool:
        """Whether the client wants no more chunks."""
        ...

    def chunk(self, chunk: Any) -> bytes:
        """The events of a chunk.

        Raises:
            WireError: it cannot be written.
        """
        ...

    def end(self) -> bytes:
        """The events after the last chunk."""
        ...

    def error(self, error: RequestError) -> bytes:
        """The events after an error in the middle."""
        ...


class RestEvents:
    """The events of REST JSON.

    ``clock``: of a request between processes of a deployment, whose times after the first chunk come before the end.
    """

    is_full = False

    def __init__(self, clock: RequestClock | None = None) -> None:
        self._clock = clock

    def chunk(self, chunk: Any) -> bytes:
        """The event of a chunk."""
        return encode_chunk(chunk)

    def end(self) -> bytes:
        """The last events."""
        return DONE if self._clock is None else encode_times_event(written_parts(self._clock.report())) + DONE

    def error(self, error: RequestError) -> bytes:
        """The event of an error, which is the last one."""
        return encode_error_event(str(error))


class StreamTimes:
    """Where the time of one stream goes, until its first chunk, which is there now, and after it."""

    __slots__ = ("_clock", "_first", "_first_ns", "_started_ns")

    def __init__(self, clock: RequestClock, started_ns: int) -> None:
        self._clock = clock
        self._started_ns = started_ns
        self._first, self._first_ns = dict(clock.parts), perf_counter_ns() - started_ns

    def count(self, tally: SplitTally, chunks: int) -> None:
        """The stream ends well; ``chunks`` were sent."""
        total_ns = perf_counter_ns() - self._started_ns
        tally.add_stream(self._first, self._first_ns, self._clock.parts, total_ns=total_ns, chunks=chunks)


@dataclass(slots=True)
class _Course:
    """How a stream went so far: its chunks, and whether it failed after the first."""

    chunks: int = 0
    has_failed: bool = False


class StreamResponse(Struct, frozen=True):
    """A response whose first events are known."""

    first: bytes
    rest: AsyncGenerator[bytes]  # the events that follow; it is closed by the caller, which closes the stream
    course: _Course

    async def send(
        self,
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        watch: ClientWatch,
        times: StreamTimes,
        *,
        tally: SplitTally | None,
    ) -> None:
        """Send the body (ASGI), each event at once. ``tally``: counts a stream that ends well; None: nothing does."""
        async with aclosing(self.rest):
            await send({"type": "http.response.body", "body": self.first, "more_body": True})
            async for part in self.rest:
                if watch.has_left:  # the model caught its cancellation
                    return
                await send({"type": "http.response.body", "body": part, "more_body": True})
            if tally is not None and not self.course.has_failed:
                times.count(tally, self.course.chunks)
            await send({"type": "http.response.body", "body": b""})


async def begun(stream: Stream, form: StreamFormat, tally: WireTally) -> StreamResponse:
    """The response to a stream, as soon as it has a chunk: an error before that is an error of the request.

    Raises RequestError: the stream failed before its first chunk.
    """
    course = _Course()
    rest = _parts(stream, form, tally, course=course)
    return StreamResponse(await anext(rest), rest, course)


async def _parts(stream: Stream, form: StreamFormat, tally: WireTally, *, course: _Course) -> AsyncGenerator[bytes]:
    try:
        while not form.is_full:
            try:
                part = _encoded(await anext(stream), form, tally)
            except StopAsyncIteration:
                break
            except RequestError as error:
                if not course.chunks:
                    raise
                course.has_failed = True
                yield form.error(error)
                return
            course.chunks += 1
            yield part
        await stream.aclose()  # the model has ended before the client reads the end
        yield form.end()
    finally:
        await stream.aclose()


def _encoded(chunk: Any, form: StreamFormat, tally: WireTally) -> bytes:
    started_ns = perf_counter_ns()
    try:
        part = form.chunk(chunk)
    except WireError as error:
        raise RequestError(500, f"the model yielded a chunk that cannot be sent: {error}") from error
    tally.note_sent(len(part), len(part), started_ns)
    return part


def not_streamed(stream: Stream, text: str) -> RequestError:
    """The error of a request whose answer would be a stream, where none can be sent; closes the stream."""
    stream.discard()
    return RequestError(NOT_STREAMED, f"the model streams its answer, {text}")


class ClientWatch:
    """Cancels the task that answers a request when the client goes away."""

    def __init__(self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> None:
        self.has_left: bool = False
        self._owner = asyncio.current_task()
        self._task = asyncio.ensure_future(self._wait(receive))

    async def _wait(self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        assert self._owner is not None
        self._owner.cancel()

    def stop(self) -> None:
        """Watch no longer; a cancellation by this watch is forgotten."""
        self._task.cancel()
        if self.has_left and self._owner is not None:
            self._owner.uncancel()
