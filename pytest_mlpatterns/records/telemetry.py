"""Telemetry of a deployment: one schema for every pattern and engine, and the metrics derived from it.

Each layer of a pattern counts under the names of this table; names that end in ``_ns`` are in nanoseconds:

==========  =========================================================  ================================================
layer       counters                                                   histograms (value → count)
==========  =========================================================  ================================================
cached      hits, misses, coalesced, evictions, store_errors           hit_ns, miss_ns
batched     calls, items, failed_alone                                 size, wait_ns, call_ns
continuous  steps, chunks, cancelled, active_ns, observed_ns           size, wait_ns, step_ns; the series ``active``
queued      accepted, rejected, answered, redelivered, duplicated,     wait_ns; the series ``depth`` and its integral,
            lost, foreign, broker_errors, depth_ns, observed_ns        the counters depth_ns over observed_ns
pipeline    –                                                          stage:NAME for every stage
ensemble    last:NAME for every model                                  model:NAME for every model
hop         calls, errors                                              hop_ns (transport, without work and wait)
wire        requests, decode_ns, encode_ns, received_bytes,            –
            received_plain_bytes, sent_bytes, sent_plain_bytes
==========  =========================================================  ================================================

``coalesced`` inputs waited for a model call that another input had started. ``failed_alone`` inputs failed although
other inputs of their batch did not. ``foreign`` entries of a broker's streams came from another program. A third-party
server that reports a histogram in buckets, or only its mean, has the counters ``NAME_sum`` and ``NAME_count`` as well
or instead, and its mean is exact. A ``wire`` layer is the server of a process: sizes of its bodies as they were
transferred, and ``plain``, that is uncompressed. The layer ``split`` has where the time of requests went; its names are
those of :mod:`pytest_mlpatterns.patterns.tally`. The layer ``awaits`` of a profiled deployment has where
coroutines wait (:mod:`pytest_mlpatterns.records.telemetry`). Pure; this module must not know which engine counts.

A deployment that is profiled counts in its layer ``awaits`` the nanoseconds for which each chain waited, and under
``times:CHAIN`` how often. A chain is written from the model's own coroutine to the innermost one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "AWAITS",
    "AWAIT_TIMES",
    "AwaitedTime",
    "Awaiting",
    "DerivedMetric",
    "Histogram",
    "LayerStats",
    "PatternStats",
    "awaited_times",
    "chain_name",
    "derived_metrics",
    "merged_layers",
    "straggler_shares",
]


Histogram = dict[int, int]
"""Count of each value; times are rounded to their seven leading bits (0.8 %)."""


@dataclass(frozen=True, slots=True)
class LayerStats:
    """What one layer of a pattern counted.

    Args:
        position: position in the composition, the outermost 0.
        layer: its name in the table above.
        counters: counts by name, which only grow.
        histograms: counts of each value by name, which only grow.
        series: ``(time_ns, value)`` by name, on the clock of ``time.perf_counter_ns``: the value from that time on.
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
            {name: _gained(histogram, earlier.histograms.get(name, {})) for name, histogram in self.histograms.items()},
            {name: series[len(earlier.series.get(name, ())) :] for name, series in self.series.items()},
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerStats:
        """The inverse of ``dataclasses.asdict``, also after a trip through JSON, whose keys are text."""
        return cls(
            data["position"],
            data["layer"],
            dict(data["counters"]),
            {
                name: {int(value): times for value, times in histogram.items()}
                for name, histogram in data["histograms"].items()
            },
            {name: tuple((time, value) for time, value in series) for name, series in data["series"].items()},
        )

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


@dataclass(frozen=True, slots=True)
class PatternStats:
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


@dataclass(frozen=True, slots=True)
class DerivedMetric:
    """One metric of one window, and its relative standard error; 0 if the counts do not give one."""

    value: float
    relative_error: float


def derived_metrics(stats: PatternStats | None) -> dict[str, DerivedMetric]:
    """The metrics that follow from the counts, by name; of several layers of one kind the outermost one counts.

    ``cache_hit_ratio`` is the share of inputs answered without a model call of their own, ``batch_size`` the mean over
    the model calls, ``queue_depth`` the mean over time of the waiting requests. ``decode`` and ``encode`` are means,
    the other times medians (means if a server reports only those).
    """
    if stats is None:
        return {}
    found = {name: of(stats) for name, of in _DERIVATIONS.items()}
    return {name: metric for name, metric in found.items() if metric is not None}


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


def _mean_of(layer: str, name: str) -> Callable[[PatternStats], DerivedMetric | None]:
    def read(stats: PatternStats) -> DerivedMetric | None:
        for found in stats.layers_named(layer):
            if (mean := found.mean(name)) is not None:
                values = found.histograms.get(name, {})
                count = sum(values.values())
                variance = sum((value - mean) ** 2 * times for value, times in values.items())
                return DerivedMetric(mean, sqrt(variance) / count / mean if mean and count else 0.0)
        return None

    return read


def _median_of(layer: str, name: str) -> Callable[[PatternStats], DerivedMetric | None]:
    def read(stats: PatternStats) -> DerivedMetric | None:
        for found in stats.layers_named(layer):
            middle = found.median(name)
            if middle is None:
                middle = found.mean(name)  # some servers report nothing else
            if middle is not None:
                return DerivedMetric(middle, 0.0)
        return None

    return read


def _first(
    *readers: Callable[[PatternStats], DerivedMetric | None],
) -> Callable[[PatternStats], DerivedMetric | None]:
    def read(stats: PatternStats) -> DerivedMetric | None:
        return next((found for reader in readers if (found := reader(stats)) is not None), None)

    return read


_DERIVATIONS: Mapping[str, Callable[[PatternStats], DerivedMetric | None]] = {
    "cache_hit_ratio": _hit_ratio,
    "cache_hit": _median_of("cached", "hit_ns"),
    "cache_miss": _median_of("cached", "miss_ns"),
    "batch_size": _first(_mean_of("batched", "size"), _mean_of("continuous", "size")),
    "batch_wait": _first(_median_of("batched", "wait_ns"), _median_of("continuous", "wait_ns")),
    "queue_depth": _depth,
    "queue_wait": _median_of("queued", "wait_ns"),
    "hop": _median_of("hop", "hop_ns"),
    "decode": _time_per_request("decode_ns"),
    "encode": _time_per_request("encode_ns"),
}


def _gained(now: Mapping[int, int], earlier: Mapping[int, int]) -> Histogram:
    gained = {value: times - earlier.get(value, 0) for value, times in now.items()}
    return {value: times for value, times in gained.items() if times}


def _added(parts: Iterable[Mapping[Any, int]]) -> dict[Any, int]:
    total: Counter[Any] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


AWAITS = "awaits"
"""Name of the layer."""
AWAIT_TIMES = "times:"
_FRAMES, _FIELDS = "\x1e", "\x1f"


@dataclass(frozen=True, slots=True)
class Awaiting:
    """A coroutine that waits: its ``co_qualname``, the full path of its file, and the line that waits."""

    qualified: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class AwaitedTime:
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
