"""A stream that several requests read, each from its beginning, and that is kept when it has ended well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.stream import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

__all__ = ["Recording", "replayed"]


class Recording:
    """Reads a stream as fast as the fastest of its readers, and keeps its chunks.

    The stream is closed early if all readers have gone.

    Args:
        stream: what is read.
        keep: awaited with all chunks when the stream has ended well, before its readers reach the end.
        forget: called when the stream is over, however it ended.
        own: makes the copy of a chunk that is kept.
    """

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
        self._readers = 0
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._task = asyncio.get_running_loop().create_task(self._record())

    def reader(self, own: Callable[[Any], Any] | None = None) -> Stream:
        """A stream of all chunks, from the first one on.

        Args:
            own: makes the copy of a chunk that the reader gets; None: it gets the one that is kept.
        """
        return Stream(_Reader(self, own))

    @property
    def is_read(self) -> bool:
        """Whether a request reads it, or the stream is over."""
        return self._readers > 0 or self._is_over

    async def _record(self) -> None:
        try:
            while await self._record_next():
                pass
            await self._keep(self._chunks)
        except (Exception, SystemExit) as error:  # for the readers; a model that exits must not end the loop
            self._error = error
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
        """The chunk of this number, as soon as it is there.

        Raises:
            StopAsyncIteration: the stream has fewer.
            Exception: the stream failed before.
        """
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

        Raises:
            Exception: what makes the stream failed when it was closed.
        """
        self._readers -= 1
        if self._readers:
            return
        if not self._is_over:
            self._task.cancel()
        await asyncio.wait([self._task])
        await self._end()  # if the task had not begun
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error


class _Reader:
    """The chunks of a recording for one request."""

    def __init__(self, recording: Recording, own: Callable[[Any], Any] | None) -> None:
        self._recording = recording
        self._own = own
        self._number = 0
        self._has_left = False
        recording.join()

    def __aiter__(self) -> _Reader:
        return self

    async def __anext__(self) -> Any:
        chunk = await self._recording.chunk(self._number)
        self._number += 1
        return chunk if self._own is None else self._own(chunk)

    async def aclose(self) -> None:
        if not self._has_left:
            self._has_left = True
            await self._recording.leave()


def replayed(chunks: Sequence[Any], own: Callable[[Any], Any] | None = None) -> Stream:
    """A stream of chunks that are all there.

    Args:
        chunks: the chunks.
        own: makes the copy of a chunk that the reader gets; None: it gets the chunk itself.
    """

    async def all_of_them() -> AsyncIterator[Any]:
        for chunk in chunks:
            yield chunk if own is None else own(chunk)

    return Stream(all_of_them())
