"""The layer ``split``: where the time of the requests went that a server has answered well.

It is counted in the process that clients reach. The names of its counters and histograms; ``KEY`` is a key of
:mod:`pytest_mlpatterns.patterns.request_clock`, and times are in nanoseconds:

================  =================================================================================================
name              counted
================  =================================================================================================
``requests``      requests
``total_ns``      their times in the server, from the head of the request until the answer is written
``KEY``           times of this part; ``calls`` and ``OF/calls`` are numbers of calls
``ttft:NAME``     the same of streams, each until its first chunk is written
``tpot:NAME``     the same of streams, each from its first chunk to its end; ``tpot:chunks`` counts the chunks after
                  the first
================  =================================================================================================

A counter is the sum over all requests. The histogram of the same name has the same sums by the time that a request
spent in the server, rounded to its seven leading bits: so the parts of a median request are known, which are those of
the entries around it. All of it only grows, and adds up over processes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pytest_mlpatterns.patterns.tally import rounded
from pytest_mlpatterns.records.telemetry import LayerStats

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SplitTally"]


class SplitTally:
    """Counts where the time of requests went; about 1 µs a request.

    Args:
        position: position of the process in the composition.
    """

    def __init__(self, position: int) -> None:
        self._position = position
        self._whole, self._first, self._rest = _Sums(), _Sums(), _Sums()

    def add(self, parts: Mapping[str, int], total_ns: int) -> None:
        """Count a request: the times of its clock, and its time in the server in nanoseconds."""
        self._whole.add(parts, total_ns)

    def add_stream(
        self, first: Mapping[str, int], first_ns: int, parts: Mapping[str, int], *, total_ns: int, chunks: int
    ) -> None:
        """Count a stream that ended well.

        Args:
            first: times of its clock when the first chunk was sent.
            first_ns: its time in the server until then, in nanoseconds.
            parts: times of its clock at the end.
            total_ns: its time in the server, in nanoseconds.
            chunks: number of chunks after the first.
        """
        self._whole.add(parts, total_ns)
        self._first.add(first, first_ns)
        if chunks:
            rest = {key: value - first.get(key, 0) for key, value in parts.items()}
            self._rest.add({**rest, "chunks": chunks}, total_ns - first_ns)

    def snapshot(self) -> LayerStats:
        """Everything counted so far; may be called from another thread."""
        histograms: dict[str, dict[int, int]] = {}
        for prefix, sums in (("", self._whole), ("ttft:", self._first), ("tpot:", self._rest)):
            histograms |= sums.by_name(prefix)
        counters = {name: sum(by_time.values()) for name, by_time in histograms.items()}
        return LayerStats(self._position, "split", counters, histograms)


class _Sums:
    """Sums of each key by the rounded time of the request in the server."""

    def __init__(self) -> None:
        self._by_key: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, parts: Mapping[str, int], total_ns: int) -> None:
        by_key, bucket = self._by_key, rounded(total_ns)
        by_key["requests"][bucket] += 1
        by_key["total_ns"][bucket] += total_ns
        for key, value in parts.items():
            by_key[key][bucket] += value

    def by_name(self, prefix: str) -> dict[str, dict[int, int]]:
        return {f"{prefix}{key}": dict(by_time) for key, by_time in dict(self._by_key).items()}
