"""Values as messages on a pipe between two processes of this package: pickled, with raw buffers beside them."""

from __future__ import annotations

import pickle
import select
import struct
from typing import IO, Any

__all__ = ["read_message", "write_message"]

_PARTS = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")


def write_message(stream: IO[bytes], message: object, patience_s: float | None = None) -> None:
    """Write one value. Objects wrapped in ``pickle.PickleBuffer`` are written as raw bytes, without a copy.

    Args:
        stream: where to; with ``patience_s`` it must not block.
        message: the value.
        patience_s: longest time without the other end taking a byte; None: without limit.

    Raises:
        TimeoutError: the other end took no byte for so long.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    sizes = _PARTS.pack(len(parts)) + b"".join(_LENGTH.pack(part.nbytes) for part in parts)
    for part in (memoryview(sizes), *parts):
        while part:
            if patience_s is not None:
                _await_room(stream, patience_s)
            part = part[stream.write(part) or 0 :]  # noqa: PLW2901 - an unbuffered stream may take only a part


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
