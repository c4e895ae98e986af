"""The streams of a cache: each is recorded while it is sent, and replayed whole once it has ended well."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.stream import Recording, Stream, StreamSource, check_one_input, replayed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable


class Chunks(tuple[Any, ...]):
    """The chunks of a stream that ended well, as a cache remembers them."""

    __slots__ = ()


class CacheStreams:
    """The streams that a cache reads from its handler; requests for the same input share one."""

    def __init__(self, own: Callable[[Any], Any]) -> None:
        self._own = own
        self._reader = StreamSource()
        self._running: dict[bytes, Recording] = {}
        self._awaited: Counter[Any] = Counter()

    def running(self, keys: list[bytes]) -> dict[bytes, Recording]:
        """The stream that answers a request and has not ended, by its key; empty if there is none."""
        return {keys[0]: self._running[keys[0]]} if len(keys) == 1 and keys[0] in self._running else {}

    def record(
        self, keys: Iterable[bytes], outputs: Any, keep: Callable[[bytes, Chunks], Awaitable[None]]
    ) -> dict[bytes, Recording]:
        """Record what a handler returned, if it is a stream.

        Returns the recording by the key of its input; empty if the outputs are whole.
        """
        keys = list(keys)
        stream = self._reader.read(outputs, len(keys), "the model")
        if stream is None:
            return {}
        key = keys[0]
        recording = Recording(
            stream,
            keep=lambda chunks: keep(key, Chunks(chunks)),
            forget=lambda: self._forget(key, recording),
            own=self._own,
        )
        self._running[key] = recording
        return {key: recording}

    def _forget(self, key: bytes, recording: Recording) -> None:
        if self._running.get(key) is recording:  # not the one that a later request began
            del self._running[key]

    def answer(self, output: Recording | Chunks, count: int, *, copies: bool) -> Stream:
        """A stream for one request."""
        check_one_input(output, count, "the model")
        own = self._own if copies else None
        return replayed(output, own) if isinstance(output, Chunks) else output.reader(own)

    def enter(self, futures: Iterable[Any]) -> None:
        """A request waits for these outputs."""
        self._awaited.update(futures)

    def leave(self, futures: Iterable[Any]) -> None:
        """A request has its outputs, or its caller has gone: a stream that no request reads then is closed."""
        for future in futures:
            self._awaited[future] -= 1
            if not self._awaited[future]:
                del self._awaited[future]
                if future.done() and not future.cancelled():
                    self._close_unread(getattr(future.result(), "output", None))

    def resolved(self, future: Any, output: Any) -> None:
        """An output is there: if it is a stream, and the callers of all requests have gone, it is closed."""
        if future not in self._awaited:
            self._close_unread(output)

    def _close_unread(self, output: Any) -> None:
        if isinstance(output, Recording) and not output.is_read:
            output.reader().discard()


def is_streamed(output: Any) -> bool:
    """Whether an output of a cache is a stream, or one that is remembered."""
    return isinstance(output, Recording | Chunks)
