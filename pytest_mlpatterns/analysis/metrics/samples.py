"""Samples as arrays: rows taken and joined, and the times of their streams, request by request.

Every time counts from when the request was due. A *chunk* is a piece of an answer with content. If the server reports
its usage, that is the number of tokens, unless it cannot be; otherwise each chunk counts as one. Pure; it must not know
windows or blocks.

Sources of the terms: the documentation of NVIDIA's AIPerf and of vLLM's benchmark for TTFT, ITL and TPOT.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.records.samples import Samples, StreamSamples

_COLUMNS = tuple(name for name in Samples.__struct_fields__ if name not in ("stream", "figures"))
_STREAM_COLUMNS = tuple(name for name in StreamSamples.__struct_fields__ if name != "chunk_ns")


def take_rows(samples: Samples, rows: NDArray[np.int64]) -> Samples:
    """The requests with these indices, in this order. ``rows``: indices, shape ``(taken,)``."""
    columns: dict[str, Any] = {name: getattr(samples, name)[rows] for name in _COLUMNS}
    columns["figures"] = {name: values[rows] for name, values in samples.figures.items()}
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
    """The requests of several recordings, in the order of completion.

    All of them were read as streams, or none.

    One column after the other is joined, so that a large load does not lie in memory three times.
    """
    order = np.argsort(_joined(parts, "done_ns"), kind="stable")
    columns: dict[str, Any] = {name: _joined(parts, name)[order] for name in _COLUMNS}
    names = parts[0].figures
    columns["figures"] = {name: np.concatenate([part.figures[name] for part in parts])[order] for name in names}
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
    stream = samples.stream
    if stream is not None:
        first_ns = np.where(stream.first_byte_ns, stream.first_byte_ns + by_ns, 0)  # 0: none came
        stream = replace(stream, first_byte_ns=first_ns, chunk_ns=stream.chunk_ns + by_ns)
    times_ns = {name: getattr(samples, name) + by_ns for name in ("due_ns", "sent_ns", "done_ns")}
    return replace(samples, **times_ns, stream=stream)


class StreamTimes:
    """Times of every request of a load, in nanoseconds; arrays of shape ``(requests,)`` unless noted otherwise.

    ``arrival_ns``: arrival of every chunk, shape ``(chunks,)``, on the clock of ``time.perf_counter_ns``.
    """

    def __init__(self, samples: Samples, streams: StreamSamples) -> None:
        self._samples = samples
        self.arrival_ns: NDArray[np.int64] = streams.chunk_ns
        self.chunk_count: NDArray[np.int64] = streams.chunk_count.astype(np.int64)
        self._usage_tokens = streams.output_tokens.astype(np.int64)
        self.input_tokens: NDArray[np.int32] = streams.input_tokens
        self._ends = np.cumsum(self.chunk_count)

    @property
    def has_chunks(self) -> NDArray[np.bool_]:
        """Mask of the requests that got at least one chunk."""
        found: NDArray[np.bool_] = self.chunk_count > 0
        return found

    @cached_property
    def distrusted(self) -> NDArray[np.bool_]:
        """Mask of the requests whose usage cannot be: no token although chunks came, or more tokens than bytes.

        A response of unknown size, of an imported run, is never distrusted for its size. The bytes count the whole
        response, so that tokens without a text, such as special ones, are believed.
        """
        size = self._samples.received_bytes
        none = (self._usage_tokens == 0) & self.has_chunks
        found: NDArray[np.bool_] = none | ((self._usage_tokens > size) & (size > 0))
        return found

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """Output tokens: by the server's usage if it can be, else the number of chunks."""
        reported = (self._usage_tokens >= 0) & ~self.distrusted
        return np.where(reported, self._usage_tokens, self.chunk_count).astype(np.int64)

    @cached_property
    def ttft_ns(self) -> NDArray[np.float64]:
        """Time to the first chunk with content; infinite without one."""
        return np.where(self.has_chunks, self._chunk_at(self._ends - self.chunk_count), np.inf)

    @cached_property
    def tpot_ns(self) -> NDArray[np.float64]:
        """(Last chunk - first chunk) / (tokens - 1); infinite with fewer than two chunks or tokens."""
        spread = self._chunk_at(self._ends - 1) - self._chunk_at(self._ends - self.chunk_count)
        known = (self.tokens >= 2) & (self.chunk_count >= 2)
        return np.where(known, spread / np.maximum(self.tokens - 1, 1), np.inf)

    @cached_property
    def longest_gap_ns(self) -> NDArray[np.float64]:
        """Longest gap between neighbouring chunks; infinite with fewer than two."""
        longest = np.where(self.chunk_count >= 2, 0.0, np.inf)
        gaps, owner = self.gaps
        np.maximum.at(longest, owner, gaps)
        return longest

    @cached_property
    def gaps(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every gap between neighbouring chunks of one request, shape ``(gaps,)``, and the index of its request."""
        owner = self.owner
        within = owner[1:] == owner[:-1]
        return np.diff(self.arrival_ns)[within], owner[1:][within]

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """Index of the request of each chunk, shape ``(chunks,)``."""
        return np.repeat(np.arange(self.chunk_count.size), self.chunk_count)

    def of(self, quantity: str) -> NDArray[np.int64] | NDArray[np.float64]:
        """The quantity of each request that :data:`pytest_mlpatterns.records.objective.QUANTITIES` names.

        ``itl`` is the longest gap of a request: it keeps a limit if all its gaps do.
        """
        match quantity:
            case "latency":
                return self._samples.latency_ns
            case "ttft":
                return self.ttft_ns
            case "tpot":
                return self.tpot_ns
        return self.longest_gap_ns

    def since_due_ns(self, request: int) -> NDArray[np.int64]:
        """Arrivals of the chunks of one request since it was due, shape ``(chunks of it,)``."""
        end = int(self._ends[request])
        found: NDArray[np.int64] = self.arrival_ns[end - int(self.chunk_count[request]) : end]
        since: NDArray[np.int64] = found - self._samples.due_ns[request]
        return since

    def _chunk_at(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """The chunk at this position of each request, since it was due; of no meaning for requests without one."""
        if not self.arrival_ns.size:
            return np.zeros(position.size, dtype=np.int64)
        arrived: NDArray[np.int64] = self.arrival_ns[np.clip(position, 0, self.arrival_ns.size - 1)]
        return arrived - self._samples.due_ns
