"""Counters, histograms and time series of one layer."""

from __future__ import annotations

import threading
from collections import defaultdict
from time import perf_counter_ns

from pytest_mlpatterns.records.telemetry import LayerStats

__all__ = ["Tally", "rounded"]

_COURSE_STEP_NS = 10_000_000
_MAX_COURSE = 100_000


class Tally:
    """Counts for one layer, under the names of :mod:`pytest_mlpatterns.records.telemetry`.

    Args:
        position: the layer's place in the composition.
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
        """Something happened so many times."""
        self._counters[name] += times

    def see(self, name: str, value: int) -> None:
        """A small number was seen, such as the size of a batch; kept exactly."""
        self._histograms[name][value] += 1

    def time(self, name: str, duration_ns: int) -> None:
        """A stretch of time was seen; kept to its seven leading bits."""
        self._histograms[name][rounded(duration_ns)] += 1

    def level(self, name: str, value: int) -> None:
        """A level, such as a queue's depth, is ``value`` from now on.

        Its integral is the counter ``NAME_ns``, over ``observed_ns``; its course keeps one moment in 10 ms.
        """
        with self._leveling:
            now = perf_counter_ns()
            since, old, integral, observed = self._levels.get(name, (now, 0, 0, 0))
            self._levels[name] = (now, value, integral + old * (now - since), observed + now - since)
            course = self._series.setdefault(name, [])
            if (not course or now - course[-1][0] >= _COURSE_STEP_NS) and len(course) < _MAX_COURSE:
                course.append((now, value))

    def snapshot(self) -> LayerStats:
        """Everything counted so far."""
        counters = dict(self._counters)
        with self._leveling:
            now = perf_counter_ns()
            for name, (since, value, integral, observed) in self._levels.items():
                counters[f"{name}_ns"] = integral + value * (now - since)
                counters["observed_ns"] = observed + now - since
            series = {name: tuple(course) for name, course in self._series.items()}
        histograms = {
            name: dict(spread) for name, spread in dict(self._histograms).items()
        }  # copied whole, as others count
        return LayerStats(self._position, self._layer, counters, histograms, series)


def rounded(value: int) -> int:
    """A number to its seven leading bits, in the middle of those that share them."""
    spare = value.bit_length() - 7
    return value if spare <= 0 else (value >> spare << spare) + (1 << spare >> 1)
