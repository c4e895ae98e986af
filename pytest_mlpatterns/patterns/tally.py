"""Counters, histograms and time series of one layer."""

from __future__ import annotations

import threading
from collections import defaultdict
from time import perf_counter_ns

from pytest_mlpatterns.records.telemetry import LayerStats

__all__ = ["Tally", "rounded"]

_SERIES_STEP_NS = 10_000_000
_MAX_SERIES = 100_000


class Tally:
    """Counts what one layer does. Its methods cost well under a microsecond each.

    The package's own names are listed in ``pytest_mlpatterns.records.telemetry``. Names that end in ``_ns`` are times
    in nanoseconds.

    Args:
        position: the layer's position in the composition.
        layer: the layer's name.
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

        The counter ``NAME_ns`` is its integral over time, ``observed_ns`` the time; its time series keeps at most one
        value every 10 ms.
        """
        with self._leveling:
            now = perf_counter_ns()
            since, old, integral, observed = self._levels.get(name, (now, 0, 0, 0))
            self._levels[name] = (now, value, integral + old * (now - since), observed + now - since)
            series = self._series.setdefault(name, [])
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
            series = {name: tuple(values) for name, values in self._series.items()}
        histograms = {
            name: dict(histogram) for name, histogram in dict(self._histograms).items()
        }  # copied whole, because other threads count meanwhile
        return LayerStats(self._position, self._layer, counters, histograms, series)


def rounded(value: int) -> int:
    """Round a number to its seven leading bits, to the middle of the numbers that share them."""
    spare = value.bit_length() - 7
    return value if spare <= 0 else (value >> spare << spare) + (1 << spare >> 1)
