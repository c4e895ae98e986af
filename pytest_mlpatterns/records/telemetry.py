"""Telemetry of a deployment: one schema for every pattern and engine.

What each layer counts, and which metrics follow, is in :mod:`pytest_mlpatterns.records.package_layers`. A third-party
server that reports a histogram in buckets, or only its mean, has the counters ``NAME_sum`` and ``NAME_count`` as well
or instead, and its mean is exact. The layer ``split`` has where the time of requests went; its names are those of
:mod:`pytest_mlpatterns.patterns.tally`. Pure; this module must not know which engine counts.

The layer ``awaits`` of a profiled deployment has where coroutines wait: the nanoseconds for which each chain waited,
and under ``times:CHAIN`` how often. A chain is written from the model's own coroutine to the innermost one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from pytest_mlpatterns.records.codec import Count, Record

Histogram = dict[int, Count]  # Count of each value; times are rounded to their seven leading bits (0.8 %)


class LayerStats(Record, frozen=True):
    """What one layer of a pattern counted.

    Args:
        position: position in the composition, the outermost 0.
        layer: its name.
        counters: counts by name, which only grow.
        histograms: counts of each value by name, which only grow.
        series: ``(time_ns, value)`` by name, on the clock of ``time.perf_counter_ns``: the value from that time on.
    """

    position: int
    layer: str
    counters: Mapping[str, int] = {}
    histograms: Mapping[str, Histogram] = {}
    series: Mapping[str, tuple[tuple[int, int], ...]] = {}

    def since(self, earlier: LayerStats) -> LayerStats:
        """What was counted between an earlier reading and this one."""
        return LayerStats(
            self.position,
            self.layer,
            {name: count - earlier.counters.get(name, 0) for name, count in self.counters.items()},
            {name: _gained(histogram, earlier.histograms.get(name, {})) for name, histogram in self.histograms.items()},
            {name: series[len(earlier.series.get(name, ())) :] for name, series in self.series.items()},
        )

    def counted(self, names: Iterable[str]) -> int:
        """The sum of these counters."""
        return sum(self.counters.get(name, 0) for name in names)

    def mean(self, name: str) -> float | None:
        """Mean of a histogram; None if it is empty."""
        if exact := self.counters.get(f"{name}_count", 0):
            return self.counters.get(f"{name}_sum", 0) / exact
        count = sum(self.histograms.get(name, {}).values())
        return sum(value * times for value, times in self.histograms[name].items()) / count if count else None

    def median(self, name: str) -> float | None:
        """Median of a histogram; None if it is empty."""
        histogram = self.histograms.get(name, {})
        left = sum(histogram.values()) / 2
        for value in sorted(histogram):
            left -= histogram[value]
            if left <= 0:
                return float(value)
        return None


class PatternStats(Struct, frozen=True):
    """The telemetry of a deployment, since its start or over a window.

    Args:
        replica_requests: inference requests that each replica answered, of the outermost service with several replicas.
        tracebacks: the first few distinct tracebacks of the user's model.
        layers: one for each layer that counts anything, the outermost first.
        replaced: processes that died and were replaced.
    """

    replica_requests: tuple[int, ...] = ()
    tracebacks: tuple[str, ...] = ()
    layers: tuple[LayerStats, ...] = ()
    replaced: int = 0

    def since(self, earlier: PatternStats) -> PatternStats:
        """What was counted between an earlier reading and this one; the tracebacks as they are now.

        Replicas that were added meanwhile had counted nothing.
        """
        before = {(layer.position, layer.layer): layer for layer in earlier.layers}
        added = len(self.replica_requests) - len(earlier.replica_requests)
        replicas = (*earlier.replica_requests, *[0] * added)
        return PatternStats(
            replica_requests=tuple(now - then for now, then in zip(self.replica_requests, replicas, strict=True)),
            tracebacks=self.tracebacks,
            layers=tuple(
                layer.since(before.get((layer.position, layer.layer), LayerStats(layer.position, layer.layer)))
                for layer in self.layers
            ),
            replaced=self.replaced - earlier.replaced,
        )

    def layers_named(self, name: str) -> tuple[LayerStats, ...]:
        """The layers of this name, the outermost first."""
        return tuple(layer for layer in self.layers if layer.layer == name)


def merged_layers(parts: Iterable[LayerStats]) -> tuple[LayerStats, ...]:
    """Layers of several processes, added up by position and name, the outermost first."""
    found: dict[tuple[int, str], list[LayerStats]] = {}
    for part in parts:
        found.setdefault((part.position, part.layer), []).append(part)
    return tuple(
        LayerStats(
            position,
            layer,
            _added(part.counters for part in same),
            {
                name: _added(part.histograms.get(name, {}) for part in same)
                for name in dict.fromkeys(name for part in same for name in part.histograms)
            },
            {
                name: tuple(sorted(moment for part in same for moment in part.series.get(name, ())))
                for name in dict.fromkeys(name for part in same for name in part.series)
            },
        )
        for (position, layer), same in sorted(found.items())
    )


def straggler_shares(layer: LayerStats) -> dict[str, float]:
    """Share of the requests in which each model of an ensemble answered last, by its name; empty for other layers."""
    names = [name.partition(":")[2] for name in layer.histograms if name.startswith("model:")]
    total = sum(layer.counters.get(f"last:{name}", 0) for name in names)
    return {name: layer.counters.get(f"last:{name}", 0) / total for name in names} if total else {}


def _gained(now: Mapping[int, int], earlier: Mapping[int, int]) -> Histogram:
    gained = {value: times - earlier.get(value, 0) for value, times in now.items()}
    return {value: times for value, times in gained.items() if times}


def _added(parts: Iterable[Mapping[Any, int]]) -> dict[Any, int]:
    total: Counter[Any] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


AWAITS = "awaits"  # Name of the layer
AWAIT_TIMES = "times:"
_FRAMES, _FIELDS = "\x1e", "\x1f"


class Awaiting(Struct, frozen=True):
    """A coroutine that waits: its ``co_qualname``, the full path of its file, and the line that waits."""

    qualified: str
    file: str
    line: int


class AwaitedTime(Struct, frozen=True):
    """The nanoseconds for which a chain waited, the outermost coroutine first, and how often."""

    chain: tuple[Awaiting, ...]
    ns: int
    times: int


def chain_name(chain: Iterable[Awaiting]) -> str:
    """The name of the counter of a chain; empty for one without coroutines."""
    return _FRAMES.join(_FIELDS.join((one.qualified, one.file, str(one.line))) for one in chain)


def awaited_times(counters: Mapping[str, int]) -> Iterator[AwaitedTime]:
    """The chains that waited, from the counters of the layer."""
    for name, ns in counters.items():
        if not name.startswith(AWAIT_TIMES) and ns > 0:
            fields = (one.split(_FIELDS) for one in name.split(_FRAMES))
            chain = tuple(Awaiting(qualified, file, int(line)) for qualified, file, line in fields)
            yield AwaitedTime(chain, ns, counters.get(AWAIT_TIMES + name, 0))
