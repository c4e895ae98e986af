"""Counters, histograms and time series of one layer.

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

A counter is the sum over all requests. The histogram of the same name holds the same sums by server time, rounded to
seven leading bits. The buckets around the median give the parts of a median request. All of it only grows, and adds up
over processes.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping
from time import perf_counter_ns

from pytest_mlpatterns.records.telemetry import LayerStats

_SERIES_STEP_NS = 10_000_000  # Least time between two points of a series, in nanoseconds
_MAX_SERIES = 100_000  # Most points of a series: 17 minutes with this step


class Tally:
    """Counts what one layer does. Its methods cost well under a microsecond each.

    The package's own names are listed in ``pytest_mlpatterns.records.package_layers``. Names that end in ``_ns`` are
    times in nanoseconds.
    """

    def __init__(self, position: int, layer: str) -> None:
        self._position = position
        self._layer = layer
        self._counters: defaultdict[str, int] = defaultdict(int)
        self._histograms: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._levels: dict[str, tuple[int, int, int, int]] = {}
        self._series: dict[str, list[tuple[int, int]]] = {}
        self._leveling = threading.Lock()  # a clock read before another's change would make integrals fall

    def count(self, name: str, times: int = 1) -> None:
        """Add to a counter."""
        self._counters[name] += times

    def observe(self, name: str, value: int) -> None:
        """Add a small number, such as the size of a batch, to a histogram, exactly."""
        self._histograms[name][value] += 1

    def time(self, name: str, duration_ns: int) -> None:
        """Add a duration in nanoseconds to a histogram, rounded to its seven leading bits (0.8 %)."""
        self._histograms[name][rounded(duration_ns)] += 1

    def level(self, name: str, value: int) -> None:
        """Set a level, such as the depth of a queue.

        The counter ``NAME_ns`` is its integral over time, ``observed_ns`` the time. Its time series keeps one value
        every 10 ms, and each that lasted longer.
        """
        with self._leveling:
            now = perf_counter_ns()
            since, old, integral, observed = self._levels.get(name, (now, 0, 0, 0))
            self._levels[name] = (now, value, integral + old * (now - since), observed + now - since)
            series = self._series.setdefault(name, [])
            _add_lasting(series, since, old, now_ns=now)
            if (not series or now - series[-1][0] >= _SERIES_STEP_NS) and len(series) < _MAX_SERIES:
                series.append((now, value))

    def snapshot(self) -> LayerStats:
        """Everything counted so far; may be called from another thread."""
        counters = dict(self._counters)
        with self._leveling:
            now = perf_counter_ns()
            for name, (since, value, integral, observed) in self._levels.items():
                counters[f"{name}_ns"] = integral + value * (now - since)
                counters["observed_ns"] = observed + now - since
                _add_lasting(self._series[name], since, value, now_ns=now)
            series = {name: tuple(values) for name, values in self._series.items()}
        histograms = {
            name: dict(histogram) for name, histogram in dict(self._histograms).items()
        }  # copied whole, because other threads count meanwhile
        return LayerStats(self._position, self._layer, counters, histograms, series)


def _add_lasting(series: list[tuple[int, int]], since_ns: int, value: int, *, now_ns: int) -> None:
    """Add a value that the series left out because another came shortly before it, if it has lasted since."""
    lasted = now_ns - since_ns >= _SERIES_STEP_NS
    if lasted and 0 < len(series) < _MAX_SERIES and series[-1][0] < since_ns and series[-1][1] != value:
        series.append((since_ns, value))


def rounded(value: int) -> int:
    """Round a number to its seven leading bits, to the middle of the numbers that share them."""
    spare = value.bit_length() - 7
    return value if spare <= 0 else (value >> spare << spare) + (1 << spare >> 1)


class SplitTally:
    """Counts where the time of requests went; about 1 µs a request."""

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

        ``first_ns``: its time in the server until then, in nanoseconds. ``total_ns``: its time in the server, in
        nanoseconds.
        """
        self._whole.add(parts, total_ns)
        if chunks > 0:
            self._first.add(first, first_ns)
        if chunks > 1:
            rest = {key: value - first.get(key, 0) for key, value in parts.items()}
            self._rest.add({**rest, "chunks": chunks - 1}, total_ns - first_ns)

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
