"""Responses that are streams: the parts of their bodies, and clients that go away before the end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.stream import NOT_STREAMED
from pytest_mlpatterns.wire import WireError
from pytest_mlpatterns.wire.rest_stream import DONE, encode_chunk, encode_error_event
from pytest_mlpatterns.wire.stream_events import EVENT_STREAM

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping

    from pytest_mlpatterns.patterns.stream import Stream
    from pytest_mlpatterns.serving.http.inference_call import WireTally

__all__ = ["HEADERS", "ClientWatch", "RestEvents", "StreamFormat", "StreamResponse", "begun", "not_streamed"]

HEADERS = ((b"content-type", EVENT_STREAM.encode()), (b"cache-control", b"no-cache"))
"""Headers of a stream."""


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
    """The events of REST JSON."""

    is_full = False

    def chunk(self, chunk: Any) -> bytes:
        """The event of a chunk."""
        return encode_chunk(chunk)

    def end(self) -> bytes:
        """The last event."""
        return DONE

    def error(self, error: RequestError) -> bytes:
        """The event of an error, which is the last one."""
        return encode_error_event(str(error))


@dataclass(frozen=True, slots=True)
class StreamResponse:
    """A response whose first events are known.

    Args:
        first: the first events.
        rest: the events that follow; it is closed by the caller, which closes the stream.
    """

    first: bytes
    rest: AsyncGenerator[bytes]

    async def send(self, send: Callable[[MutableMapping[str, Any]], Awaitable[None]], watch: ClientWatch) -> None:
        """Send the body (ASGI), each event at once."""
        async with aclosing(self.rest):
            await send({"type": "http.response.body", "body": self.first, "more_body": True})
            async for part in self.rest:
                if watch.has_left:  # the model caught its cancellation
                    return
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def begun(stream: Stream, form: StreamFormat, tally: WireTally) -> StreamResponse:
    """The response to a stream, as soon as it has a chunk: an error before that is an error of the request.

    Args:
        stream: what is sent.
        form: how it is written.
        tally: counts the cost.

    Raises:
        RequestError: the stream failed before its first chunk.
    """
    rest = _parts(stream, form, tally)
    return StreamResponse(await anext(rest), rest)


async def _parts(stream: Stream, form: StreamFormat, tally: WireTally) -> AsyncGenerator[bytes]:
    has_begun = False
    try:
        while not form.is_full:
            try:
                part = _encoded(await anext(stream), form, tally)
            except StopAsyncIteration:
                break
            except RequestError as error:
                if not has_begun:
                    raise
                yield form.error(error)
                return
            has_begun = True
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
    tally.sent += len(part)
    tally.sent_plain += len(part)
    tally.encode_ns += perf_counter_ns() - started_ns
    return part


def not_streamed(stream: Stream, text: str) -> RequestError:
    """The error of a request whose answer would be a stream, where none can be sent; closes the stream."""
    stream.discard()
    return RequestError(NOT_STREAMED, f"the model streams its answer, {text}")


class ClientWatch:
    """Cancels the task that answers a request when the client goes away.

    Args:
        receive: of the request (ASGI), after its whole body was received.

    Attributes:
        has_left: whether the client has gone.
    """

    def __init__(self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> None:
        self.has_left = False
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
