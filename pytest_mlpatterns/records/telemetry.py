"""What a deployment knows of itself: one schema for every pattern and engine, and the figures that follow from it.

Each layer of a pattern counts under names of this table; what ends in ``_ns`` is in nanoseconds:

=========  =========================================================  ================================================
layer      counters                                                   spreads (value → how often)
=========  =========================================================  ================================================
cached     hits, misses, coalesced, evictions, store_errors           hit_ns, miss_ns
batched    calls, items, failed_alone                                 size, wait_ns, call_ns
queued     accepted, rejected, answered, redelivered, duplicated,     wait_ns; the course ``depth`` and its integral,
           lost, broker_errors, depth_ns, observed_ns                 the counters depth_ns over observed_ns
pipeline   –                                                          stage:NAME for every stage
ensemble   last:NAME for every model                                  model:NAME for every model
hop        calls, errors                                              hop_ns (the way and the wait, without the work)
wire       requests, decode_ns, encode_ns, received_bytes,            –
           received_plain_bytes, sent_bytes, sent_plain_bytes
=========  =========================================================  ================================================

``coalesced`` inputs waited for a model call that another input had begun. ``failed_alone`` inputs failed although
others of their batch did not. A server of another make that tells a spread in buckets, or only its mean, has the
counters ``NAME_sum`` and ``NAME_count`` beside or instead of it, and its mean is exact. A ``wire`` is the face of a
process: its bodies as they came and went, and plain, that is not compressed. Pure; it must not know who counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "DerivedMetric",
    "Histogram",
    "LayerStats",
    "PatternStats",
    "derived_metrics",
    "merged_layers",
    "straggler_shares",
]

Histogram = dict[int, int]
"""How often each value was seen; times are rounded to their seven leading bits (0.8 %)."""


@dataclass(frozen=True, slots=True)
class LayerStats:
    """What one layer of a pattern counted.

    Args:
        position: its place in the composition, the outermost 0.
        layer: its name in the table above.
        counters: they only grow.
        histograms: how often each value was seen; they only grow.
        series: ``(time_ns, value)``, on the clock of ``time.perf_counter_ns``: the value from that time on.
    """

    position: int
    layer: str
    counters: Mapping[str, int] = field(default_factory=dict)
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    series: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    def since(self, earlier: LayerStats) -> LayerStats:
        """What was counted between an earlier reading and this one."""
        return LayerStats(
            self.position,
            self.layer,
            {name: count - earlier.counters.get(name, 0) for name, count in self.counters.items()},
            {name: _gained(spread, earlier.histograms.get(name, {})) for name, spread in self.histograms.items()},
            {name: course[len(earlier.series.get(name, ())) :] for name, course in self.series.items()},
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerStats:
        """The inverse of ``dataclasses.asdict``, also after a trip through JSON, whose keys are text."""
        return cls(
            data["position"],
            data["layer"],
            dict(data["counters"]),
            {
                name: {int(value): times for value, times in spread.items()}
                for name, spread in data["histograms"].items()
            },
            {name: tuple((time, value) for time, value in course) for name, course in data["series"].items()},
        )

    def mean(self, name: str) -> float | None:
        """Mean of a spread, None where nothing was seen."""
        if exact := self.counters.get(f"{name}_count", 0):
            return self.counters.get(f"{name}_sum", 0) / exact
        count = sum(self.histograms.get(name, {}).values())
        return sum(value * times for value, times in self.histograms[name].items()) / count if count else None

    def median(self, name: str) -> float | None:
        """Median of a spread, None where nothing was seen."""
        spread = self.histograms.get(name, {})
        left = sum(spread.values()) / 2
        for value in sorted(spread):
            left -= spread[value]
            if left <= 0:
                return float(value)
        return None


@dataclass(frozen=True, slots=True)
class PatternStats:
    """What a deployment knows of itself; counted over the window where a window was measured.

    Args:
        replica_requests: inference requests that each replica answered, over the outermost service that has several.
        tracebacks: those of the user's model, the first few distinct ones.
        layers: one for each layer that knows something, the outermost first.
        replaced: processes that died and were replaced.
    """

    replica_requests: tuple[int, ...] = ()
    tracebacks: tuple[str, ...] = ()
    layers: tuple[LayerStats, ...] = ()
    replaced: int = 0

    def since(self, earlier: PatternStats) -> PatternStats:
        """What was counted between an earlier reading and this one; the tracebacks as they are now."""
        before = {(layer.position, layer.layer): layer for layer in earlier.layers}
        return PatternStats(
            replica_requests=tuple(
                now - then for now, then in zip(self.replica_requests, earlier.replica_requests, strict=True)
            ),
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
    """Layers of several processes, added up by place and name, the outermost first."""
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
    """How often each model of an ensemble was the last to answer, a share by its name; empty for other layers."""
    names = [spread.partition(":")[2] for spread in layer.histograms if spread.startswith("model:")]
    total = sum(layer.counters.get(f"last:{name}", 0) for name in names)
    return {name: layer.counters.get(f"last:{name}", 0) / total for name in names} if total else {}


@dataclass(frozen=True, slots=True)
class DerivedMetric:
    """One figure of one window, and its relative standard error as far as the counts tell."""

    value: float
    relative_error: float


def derived_metrics(stats: PatternStats | None) -> dict[str, DerivedMetric]:
    """What follows from the counts, by the name of the metric; of several layers of one name the outermost counts.

    ``cache_hit_ratio`` is the share of inputs answered without a model call of their own, ``batch_size`` the mean over
    the model calls, ``queue_depth`` the mean over time of requests that wait; ``decode`` and ``encode`` are means, the
    other times medians (means where a server tells no more); ``compression_ratio`` is how many times shorter bodies
    were on the way, where they were.
    """
    if stats is None:
        return {}
    found = {name: of(stats) for name, of in _FIGURES.items()}
    return {name: figure for name, figure in found.items() if figure is not None}


def _hit_ratio(stats: PatternStats) -> DerivedMetric | None:
    for layer in stats.layers_named("cached"):
        hits, total = (
            sum(layer.counters.get(name, 0) for name in names)
            for names in (("hits", "coalesced"), ("hits", "coalesced", "misses"))
        )
        if total:
            ratio = hits / total
            return DerivedMetric(ratio, sqrt((1 - ratio) / hits) if hits else 0.0)
    return None


def _depth(stats: PatternStats) -> DerivedMetric | None:
    for layer in stats.layers_named("queued"):
        if observed := layer.counters.get("observed_ns", 0):
            return DerivedMetric(layer.counters.get("depth_ns", 0) / observed, 0.0)
        if (found := layer.mean("depth")) is not None:
            return DerivedMetric(found, 0.0)
    return None


def _time_per_request(counter: str) -> Callable[[PatternStats], DerivedMetric | None]:
    def read(stats: PatternStats) -> DerivedMetric | None:
        for layer in stats.layers_named("wire"):
            if requests := layer.counters.get("requests", 0):
                return DerivedMetric(layer.counters.get(counter, 0) / requests, 0.0)
        return None

    return read


def _compression(stats: PatternStats) -> DerivedMetric | None:
    for layer in stats.layers_named("wire"):
        plain, sent = (
            sum(layer.counters.get(f"{way}{kind}_bytes", 0) for way in ("received", "sent")) for kind in ("_plain", "")
        )
        return DerivedMetric(plain / sent, 0.0) if plain != sent and sent else None
    return None


def _mean_of(layer: str, spread: str) -> Callable[[PatternStats], DerivedMetric | None]:
    def read(stats: PatternStats) -> DerivedMetric | None:
        for found in stats.layers_named(layer):
            if (mean := found.mean(spread)) is not None:
                values = found.histograms.get(spread, {})
                count = sum(values.values())
                variance = sum((value - mean) ** 2 * times for value, times in values.items())
                return DerivedMetric(mean, sqrt(variance) / count / mean if mean and count else 0.0)
        return None

    return read


def _median_of(layer: str, spread: str) -> Callable[[PatternStats], DerivedMetric | None]:
    def read(stats: PatternStats) -> DerivedMetric | None:
        for found in stats.layers_named(layer):
            middle = found.median(spread)
            if middle is None:
                middle = found.mean(spread)  # all that some servers tell
            if middle is not None:
                return DerivedMetric(middle, 0.0)
        return None

    return read


_FIGURES: Mapping[str, Callable[[PatternStats], DerivedMetric | None]] = {
    "cache_hit_ratio": _hit_ratio,
    "cache_hit": _median_of("cached", "hit_ns"),
    "cache_miss": _median_of("cached", "miss_ns"),
    "batch_size": _mean_of("batched", "size"),
    "batch_wait": _median_of("batched", "wait_ns"),
    "queue_depth": _depth,
    "queue_wait": _median_of("queued", "wait_ns"),
    "hop": _median_of("hop", "hop_ns"),
    "decode": _time_per_request("decode_ns"),
    "encode": _time_per_request("encode_ns"),
    "compression_ratio": _compression,
}


def _gained(now: Mapping[int, int], earlier: Mapping[int, int]) -> Histogram:
    gained = {value: times - earlier.get(value, 0) for value, times in now.items()}
    return {value: times for value, times in gained.items() if times}


def _added(parts: Iterable[Mapping[Any, int]]) -> dict[Any, int]:
    total: Counter[Any] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)
