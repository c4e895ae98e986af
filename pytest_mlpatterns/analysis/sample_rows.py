"""Rows of samples, taken and joined, with the chunks of their streams. Pure; it must not know where rows come from."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_mlpatterns.records.samples import Samples, StreamSamples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["join_samples", "shift_samples", "take_rows"]

_COLUMNS = tuple(field.name for field in fields(Samples) if field.name != "stream")
_STREAM_COLUMNS = tuple(field.name for field in fields(StreamSamples) if field.name != "chunk_ns")


def take_rows(samples: Samples, rows: NDArray[np.int64]) -> Samples:
    """The requests with these indices, in this order.

    Args:
        samples: the requests.
        rows: indices, shape ``(taken,)``.
    """
    columns: dict[str, Any] = {name: getattr(samples, name)[rows] for name in _COLUMNS}
    if samples.stream is not None:
        columns["stream"] = _take_streams(samples.stream, rows)
    return Samples(**columns)


def _take_streams(stream: StreamSamples, rows: NDArray[np.int64]) -> StreamSamples:
    """The streams of the requests with these indices, in this order."""
    taken = {name: getattr(stream, name)[rows] for name in _STREAM_COLUMNS}
    counts = stream.chunk_count.astype(np.int64)
    first = np.cumsum(counts) - counts  # of the chunks of each request
    counts = counts[rows]
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return StreamSamples(**taken, chunk_ns=stream.chunk_ns[np.repeat(first[rows], counts) + place])


def join_samples(parts: Sequence[Samples]) -> Samples:
    """The requests of several recordings, in the order of completion; all of them were read as streams, or none.

    One column after the other, so that a large load does not lie in memory three times.
    """
    order = np.argsort(_joined(parts, "done_ns"), kind="stable")
    columns: dict[str, Any] = {name: _joined(parts, name)[order] for name in _COLUMNS}
    streams = [part.stream for part in parts if part.stream is not None]
    if streams:
        joined = {name: _joined(streams, name) for name in (*_STREAM_COLUMNS, "chunk_ns")}
        columns["stream"] = _take_streams(StreamSamples(**joined), order)
    return Samples(**columns)


def _joined(parts: Sequence[Samples] | Sequence[StreamSamples], name: str) -> NDArray[Any]:
    """One column of several recordings, one recording after the other."""
    return np.concatenate([getattr(part, name) for part in parts])


def shift_samples(samples: Samples, by_ns: int) -> Samples:
    """The same requests, all of their times later by ``by_ns``."""
    columns: dict[str, Any] = {name: getattr(samples, name) for name in _COLUMNS}
    for name in ("due_ns", "sent_ns", "done_ns"):
        columns[name] = columns[name] + by_ns
    stream = samples.stream
    if stream is not None:
        columns["stream"] = StreamSamples(
            first_byte_ns=np.where(stream.first_byte_ns, stream.first_byte_ns + by_ns, 0),  # 0: none came
            chunk_count=stream.chunk_count,
            output_tokens=stream.output_tokens,
            input_tokens=stream.input_tokens,
            chunk_ns=stream.chunk_ns + by_ns,
        )
    return Samples(**columns)
