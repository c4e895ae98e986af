"""Values as messages on a pipe between two processes of this package: pickled, with raw buffers beside them."""

import pickle
import select
import struct
from typing import IO, Any

from msgspec import Struct

_PARTS = struct.Struct("<I")  # Number of the parts of a message, as it is sent before them
_LENGTH = struct.Struct("<Q")  # Length of one part in bytes, as it is sent before the parts


class MessageWriter:
    """Writes values to a pipe. If an interrupt cuts one, its rest is written before the next one.

    Otherwise the other end would take the next value for that rest, and fail to unpickle it.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._unsent = _Unsent()

    def write(self, message: object, patience_s: float | None = None) -> None:
        """Write one value. Objects wrapped in ``pickle.PickleBuffer`` are written as raw bytes, without a copy.

        ``patience_s``: longest time without the other end taking a byte; the stream must not block then. None: without
        limit. Raises TimeoutError: the other end took no byte in this time. Raises OSError: the stream is closed, at
        either end.
        """
        self._finish(patience_s)
        self._unsent = _Unsent(_parts_of(message))
        self._finish(patience_s)

    def _finish(self, patience_s: float | None) -> None:
        """Write what is left of the present value."""
        unsent = self._unsent
        while part := unsent.next_part():
            if self._stream.closed:  # by another thread
                raise BrokenPipeError
            if patience_s is not None:
                _await_room(self._stream, patience_s)
            # In one call: Python handles signals between its instructions, so none comes between write and count.
            unsent.counts.extend(filter(None, map(self._stream.write, (part,))))
        self._unsent = _Unsent()


class _Unsent(Struct, frozen=True):
    """A message on its way."""

    parts: tuple[memoryview, ...] = ()
    counts: list[int] = []

    def next_part(self) -> memoryview:
        """The rest of the first part that is not written; empty after the last."""
        self.counts[:] = [written := sum(self.counts)]
        for part in self.parts:
            if written < part.nbytes:
                return part[written:]
            written -= part.nbytes
        return memoryview(b"")


def _parts_of(message: object) -> tuple[memoryview, ...]:
    """Number and sizes of the parts, the pickled value, and each raw buffer."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = (memoryview(head), *(buffer.raw() for buffer in buffers))
    sizes = _PARTS.pack(len(parts)) + b"".join(_LENGTH.pack(part.nbytes) for part in parts)
    return (memoryview(sizes), *parts)


def _await_room(stream: IO[bytes], patience_s: float) -> None:
    room = select.poll()
    room.register(stream, select.POLLOUT)
    if not room.poll(patience_s * 1000):
        raise TimeoutError


def read_message(stream: IO[bytes]) -> Any:
    """Read one value; raw buffers arrive as ``bytearray``. Raises EOFError if the other end is gone."""
    (count,) = _PARTS.unpack(_exactly(stream, _PARTS.size))
    lengths = [_LENGTH.unpack(_exactly(stream, _LENGTH.size))[0] for _ in range(count)]
    head, *buffers = [_exactly(stream, length) for length in lengths]
    return pickle.loads(head, buffers=buffers)  # noqa: S301 - only our own child or parent writes here


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = stream.readinto(view)  # type: ignore[attr-defined]  # raw and buffered readers both have it
        if not got:
            raise EOFError
        view = view[got:]
    return data
