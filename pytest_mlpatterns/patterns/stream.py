"""Answers that come in pieces: what a model that yields returns is read as a :class:`Stream`, which layers pass on.

A model may return a generator, an asynchronous generator, or a list with one of them; each piece is a chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from time import perf_counter_ns
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from pytest_mlpatterns.patterns.layer import RequestError, ends_task, error_of_one_caller
from pytest_mlpatterns.patterns.request_clock import SHARED_WAIT, charge

NOT_STREAMED = 501  # Status of a request whose answer would be a stream, where none can be sent


class Stream:
    """The answer to one request, in chunks; it is read once, by one reader, which closes it."""

    def __init__(self, chunks: AsyncIterator[Any], on_end: Callable[[], None] | None = None) -> None:
        self._chunks = chunks
        self._on_end = on_end
        self._ended = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        """The next chunk."""
        try:
            return await self._chunks.__anext__()
        except BaseException:
            self._end()
            raise

    async def aclose(self) -> None:
        """End the stream: what makes its chunks stops, and runs its ``finally`` blocks. Safe to call twice.

        Raises Exception: the exception of such a block.
        """
        try:
            close: Callable[[], Awaitable[object]] | None = getattr(self._chunks, "aclose", None)
            if close is not None:
                await close()
        finally:
            self._end()

    def discard(self) -> None:
        """Close the stream in a task of its own, for a caller that cannot wait."""
        self._closing = asyncio.ensure_future(self.aclose())

    async def ended(self) -> None:
        """Wait until the stream has ended, failed or been closed."""
        await self._ended.wait()

    def _end(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            if self._on_end is not None:
                self._on_end()


def when_over(outputs: Any, on_end: Callable[[], None]) -> Any:
    """The outputs, or their stream; ``on_end`` is called now, or once when the stream ends, fails or is closed."""
    if isinstance(outputs, Stream):
        return Stream(outputs, on_end)
    on_end()
    return outputs


class StreamSource:
    """Reads what one model returns as streams; plain generators run one after the other, as plain functions do.

    ``free_ns``: when a plain generator last gave the event loop free, on the clock of ``perf_counter_ns``; 0 before.
    """

    def __init__(self) -> None:
        self.free_ns: int = 0
        self._lock = asyncio.Lock()

    def read(self, outputs: Any, count: int, name: str, *, on_end: Callable[[], None] | None = None) -> Stream | None:
        """The stream that a handler returned; None if it returned whole outputs.

        Raises RequestError: status 400: a stream for several inputs.
        """
        if not streams(outputs):
            return None
        check_one_input(outputs, count, name)
        found = outputs[0] if isinstance(outputs, list | tuple) else outputs
        if not isinstance(found, Stream):
            found = Stream(found if hasattr(found, "__anext__") else self._one_at_a_time(found), on_end)
        elif on_end is not None:
            found = Stream(found, on_end)
        return found

    async def _one_at_a_time(self, chunks: Iterator[Any]) -> AsyncIterator[Any]:
        """The chunks of a plain generator, each sent before the next is computed."""
        waits_since_ns = perf_counter_ns()
        async with self._lock:
            charge(SHARED_WAIT, perf_counter_ns() - waits_since_ns)
            try:
                for chunk in chunks:
                    self.free_ns = perf_counter_ns()
                    yield chunk
                    await asyncio.sleep(0)  # uvloop sends at the end of an iteration of the event loop
            finally:
                if (close := getattr(chunks, "close", None)) is not None:
                    close()


def streams(outputs: Any) -> bool:
    """Whether what a handler returned comes in chunks: a generator, a stream, or a list that begins with one."""
    kind = type(outputs)
    if kind is list or kind is tuple:
        return bool(outputs) and (hasattr(outputs[0], "__anext__") or hasattr(outputs[0], "__next__"))
    return kind is GeneratorType or kind is AsyncGeneratorType or hasattr(kind, "__anext__")


def check_one_input(outputs: Any, count: int, name: str) -> None:
    """Check that a stream answers one input."""
    if count != 1:
        _discard(outputs)
        raise RequestError(
            400,
            f"{name} streams its answer, and the request has {count} inputs, expected one; send a request for each, or "
            "return a list of whole outputs",
        )


def refuse_stream(outputs: Any, text: str) -> None:
    """Check that a handler did not return a stream."""
    if streams(outputs):
        _discard(outputs)
        raise RequestError(NOT_STREAMED, text)


def _discard(outputs: Any) -> None:
    """Close the streams of other processes; generators of this one have not begun."""
    for one in outputs if isinstance(outputs, list | tuple) else (outputs,):
        if isinstance(one, Stream):
            one.discard()


class Recording:
    """Reads a stream as fast as the fastest of its readers, keeps its chunks, and closes it if all have gone."""

    def __init__(
        self,
        stream: Stream,
        *,
        keep: Callable[[list[Any]], Awaitable[None]],
        forget: Callable[[], None],
        own: Callable[[Any], Any],
    ) -> None:
        self._stream = stream
        self._keep, self._forget, self._own = keep, forget, own
        self._chunks: list[Any] = []
        self._error: BaseException | None = None
        self._is_over = False
        self._is_left = False
        self._readers = 0
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._task = asyncio.get_running_loop().create_task(self._record())

    def reader(self, own: Callable[[Any], Any] | None = None) -> Stream:
        """A stream of all chunks, from the first one on; ``own`` copies each, None gives those that are kept."""
        return Stream(_Reader(self, own))

    @property
    def is_read(self) -> bool:
        """Whether a request reads it, or the stream is over."""
        return self._readers > 0 or self._is_over

    async def _record(self) -> None:
        try:
            while not self._is_left and await self._record_next():
                pass
            if not self._is_left:  # a model may catch its cancellation
                await self._keep(self._chunks)
        except BaseException as error:  # for the readers; a model that exits or panics must not end the loop
            if ends_task(error):
                raise
            self._error = error_of_one_caller(error)
        finally:
            await self._end()

    async def _record_next(self) -> bool:
        await self._wanted.wait()
        self._wanted.clear()
        try:
            chunk = await anext(self._stream)
        except StopAsyncIteration:
            return False
        self._chunks.append(self._own(chunk))
        self._wake()
        return True

    async def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._forget()
            self._wake()
            await self._stream.aclose()

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def chunk(self, number: int) -> Any:
        """The chunk of this number, as soon as it is there. Raises Exception: the stream failed before."""
        while number >= len(self._chunks):
            if self._error is not None:
                raise self._error
            if self._is_over:
                raise StopAsyncIteration
            self._wanted.set()
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        return self._chunks[number]

    def join(self) -> None:
        """Count a reader."""
        self._readers += 1

    async def leave(self) -> None:
        """A reader has gone; the last one ends the stream, and waits for its end.

        Raises Exception: what makes the stream failed when it was closed.
        """
        self._readers -= 1
        if self._readers:
            return
        if not self._is_over:
            self._is_left = True
            self._forget()
            self._task.cancel()
        await asyncio.wait([self._task])
        await self._end()  # if the task had not begun
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error


class _Reader(AsyncIterator[Any]):
    """The chunks of a recording for one request."""

    def __init__(self, recording: Recording, own: Callable[[Any], Any] | None) -> None:
        self._recording = recording
        self._own = own
        self._number = 0
        self._has_left = False
        recording.join()

    async def __anext__(self) -> Any:
        chunk = await self._recording.chunk(self._number)
        self._number += 1
        return chunk if self._own is None else self._own(chunk)

    async def aclose(self) -> None:
        if not self._has_left:
            self._has_left = True
            await self._recording.leave()


def replayed(chunks: Sequence[Any], own: Callable[[Any], Any] | None = None) -> Stream:
    """A stream of chunks that are all there; ``own`` copies each, None gives the chunks themselves."""

    async def all_of_them() -> AsyncIterator[Any]:
        for chunk in chunks:
            yield chunk if own is None else own(chunk)

    return Stream(all_of_them())
