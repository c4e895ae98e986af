"""A server's own figures, as it tells them in Prometheus' text format, put into the schema that patterns have.

Names of servers that are known stand in one table; users name others in :class:`Prometheus`. Where a server tells
buckets, a spread holds the middle of each, and the counters ``NAME_sum`` and ``NAME_count`` what was summed up exactly.
Pure; who fetches the text, and when, is the caller's business (:mod:`pytest_mlpatterns.serving.external.scraper`).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.telemetry import LayerStats, merged_layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.telemetry import Histogram

__all__ = ["Prometheus", "Reading", "merge_readings", "read_prometheus"]

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_UNITS_NS = {"seconds": 1e9, "second": 1e9, "s": 1e9, "ms": 1e6, "milliseconds": 1e6, "us": 1e3, "ns": 1.0}
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "batch_size": (
        "mosec_service_batch_size",
        "bentoml_service_adaptive_batch_size",
        "ray_serve_actual_batch_size",
    ),
    "batch_wait": ("ray_serve_batch_wait_time_ms",),
    "batch_call": ("ray_serve_batch_execution_time_ms",),
    "batched_items": ("nv_inference_count",),
    "batched_calls": ("nv_inference_exec_count",),
    "queue_depth": (
        "mosec_service_remaining_task",
        "bentoml_service_request_in_progress",
        "batch_request_queue",
        "parallel_request_queue",
        "nv_inference_pending_request_count",
        "ray_serve_deployment_queued_queries",
    ),
    "queue_wait": ("nv_inference_queue_duration_us",),
    "queued_requests": ("nv_inference_request_success",),
}
"""Figure → what mosec, BentoML, MLServer, Triton and Ray Serve call it; the first that is there counts. mosec and
BentoML count in a queue's depth what is being worked on too; MLServer tells a depth as each request found it."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Where a server tells its own figures in Prometheus' text format, and what they are called there.

    mosec, BentoML, MLServer, Triton and Ray Serve need no names. Times are read by the ending of the name
    (``_seconds``, ``_ms``, ``_us``, ``_ns``), in seconds where it has none of these. Reading takes the extra
    ``prometheus``.

    Args:
        path: a path on the server, or an address such as ``"http://127.0.0.1:{metrics_port}/metrics"``.
        batch_size: histogram or summary of the inputs in a model call.
        batch_wait: histogram or summary of the time that an input waits for its batch.
        batch_call: histogram or summary of the time that a model call takes.
        batched_items: counter of inputs, where there is no ``batch_size``; beside ``batched_calls``.
        batched_calls: counter of model calls.
        queue_depth: gauge of the requests that wait, read twice a second; or a histogram of it.
        queue_wait: histogram or summary of the time that a request waits, or a counter of all that time; then beside
            ``queued_requests``.
        queued_requests: counter of the requests that waited.
        queue_rejected: counter of the requests that were refused.
        cache_hits: counter.
        cache_misses: counter.

    Raises:
        SettingError: something else than a path or address, or a name that Prometheus does not allow.
    """

    path: str = "/metrics"
    batch_size: str | None = None
    batch_wait: str | None = None
    batch_call: str | None = None
    batched_items: str | None = None
    batched_calls: str | None = None
    queue_depth: str | None = None
    queue_wait: str | None = None
    queued_requests: str | None = None
    queue_rejected: str | None = None
    cache_hits: str | None = None
    cache_misses: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not re.match(r"/|https?://.", self.path) or not self.path.isprintable():
            raise SettingError(f'Prometheus({self.path!r}), expected a path or address; write Prometheus("/metrics")')
        for name in _FIGURES:
            given = getattr(self, name)
            if given is not None and (not isinstance(given, str) or not _NAME.fullmatch(given)):
                raise SettingError(
                    f"Prometheus({name}={given!r}), expected the name of a metric as the server tells it"
                )

    def names_of(self, figure: str) -> tuple[str, ...]:
        """What a figure may be called, in order of preference."""
        given = getattr(self, figure)
        return _KNOWN.get(figure, ()) if given is None else (given,)


_FIGURES = tuple(found.name for found in fields(Prometheus))[1:]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a server told at one moment: what only grows, and how many wait now (None: it does not tell)."""

    layers: tuple[LayerStats, ...]
    depth: int | None = None


@dataclass(slots=True)
class _Series:
    """All samples of one metric, added up over its labels."""

    name: str
    has_spread: bool
    total: float = 0.0
    sum: float = 0.0
    count: float = 0.0
    buckets: defaultdict[float, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def scale(self) -> float:
        """Nanoseconds in the unit that the name ends in."""
        return _UNITS_NS.get(self.name.rpartition("_")[2], 1e9)


@dataclass(frozen=True, slots=True)
class _Told:
    """Everything that a server told, and what is what in it."""

    series: Mapping[str, _Series]
    source: Prometheus

    def find(self, figure: str) -> _Series | None:
        """The first of the names that the figure may have."""
        return next((self.series[key] for key in map(_base, self.source.names_of(figure)) if key in self.series), None)


def read_prometheus(text: str, source: Prometheus) -> Reading:
    """Read what a server tells; needs the package ``prometheus_client``.

    Args:
        text: the text format, version 0.0.4.
        source: what figures are called.

    Raises:
        ValueError: not that format.
    """
    told = _Told(_series_of(text), source)
    layers = (_batched(told), _queued(told), _cached(told))
    depth = told.find("queue_depth")
    gauge = None if depth is None or depth.has_spread else round(depth.total)
    return Reading(tuple(layer.stats() for layer in layers if layer.knows), gauge)


def _batched(told: _Told) -> _Layer:
    layer = _Layer("batched")
    size, items, calls = (told.find(name) for name in ("batch_size", "batched_items", "batched_calls"))
    if size is not None:
        layer.spread("size", size, whole=True)
        layer.count("items", size.sum)
        layer.count("calls", size.count)
    elif items is not None and calls is not None:
        layer.summed("size", items.total, calls.total)
        layer.count("items", items.total)
        layer.count("calls", calls.total)
    for name, spread in (("batch_wait", "wait_ns"), ("batch_call", "call_ns")):
        if (series := told.find(name)) is not None:
            layer.spread(spread, series)
    return layer


def _queued(told: _Told) -> _Layer:
    layer = _Layer("queued")
    wait, requests = told.find("queue_wait"), told.find("queued_requests")
    if wait is not None and wait.has_spread:
        layer.spread("wait_ns", wait)
    elif wait is not None and requests is not None:
        layer.summed("wait_ns", wait.total * wait.scale, requests.total)
    depth = told.find("queue_depth")
    if depth is not None and depth.has_spread:
        layer.spread("depth", depth, whole=True)
    if (rejected := told.find("queue_rejected")) is not None:
        layer.count("rejected", rejected.total)
    return layer


def _cached(told: _Told) -> _Layer:
    layer = _Layer("cached")
    for name in ("hits", "misses"):
        if (series := told.find(f"cache_{name}")) is not None:
            layer.count(name, series.total)
    return layer


def merge_readings(readings: Sequence[Reading]) -> Reading:
    """What several processes of one server told, added up."""
    depths = [reading.depth for reading in readings if reading.depth is not None]
    layers = merged_layers(layer for reading in readings for layer in reading.layers)
    return Reading(layers, sum(depths) if depths else None)


class _Layer:
    """One layer as it is put together."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counters: dict[str, int] = {}
        self._histograms: dict[str, Histogram] = {}

    @property
    def knows(self) -> bool:
        return bool(self._counters or self._histograms)

    def count(self, name: str, value: float) -> None:
        self._counters[name] = round(value)

    def summed(self, name: str, total: float, count: float) -> None:
        self.count(f"{name}_sum", total)
        self.count(f"{name}_count", count)

    def spread(self, name: str, series: _Series, *, whole: bool = False) -> None:
        """A spread of whole numbers, or of times."""
        scale = 1.0 if whole else series.scale
        self.summed(name, series.sum * scale, series.count)
        if series.buckets:
            self._histograms[name] = _histogram(series.buckets, scale, whole)

    def stats(self) -> LayerStats:
        return LayerStats(0, self._name, self._counters, self._histograms)


def _series_of(text: str) -> dict[str, _Series]:
    from prometheus_client.parser import text_string_to_metric_families

    told: dict[str, _Series] = {}
    for family in text_string_to_metric_families(text):
        key = _base(family.name)
        series = told.setdefault(key, _Series(key, family.type in ("histogram", "summary")))
        for sample in family.samples:
            if not math.isnan(sample.value):
                _add(series, sample.name.removeprefix(family.name), sample.labels, sample.value)
    return told


def _add(series: _Series, ending: str, labels: Mapping[str, str], value: float) -> None:
    if ending == "_bucket":
        series.buckets[float(labels["le"])] += value
    elif ending == "_sum":
        series.sum += value
    elif ending == "_count":
        series.count += value
    elif ending in ("", "_total") and not series.has_spread:
        series.total += value


def _base(name: str) -> str:
    """A metric's name without what Prometheus' clients put behind that of a counter."""
    return name.removesuffix("_total")


def _histogram(buckets: Mapping[float, float], scale: float, whole: bool) -> Histogram:
    """Cumulative buckets as how often each value was seen, the middle of a bucket standing for what is in it."""
    found: defaultdict[int, int] = defaultdict(int)
    below, seen = -math.inf if whole else 0.0, 0.0
    for bound, cumulative in sorted(buckets.items()):
        times = round(cumulative - seen)
        if times > 0:
            found[_middle(below, bound, scale, whole)] += times
        below, seen = bound, max(seen, cumulative)
    return dict(found)


def _middle(below: float, bound: float, scale: float, whole: bool) -> int:
    if math.isinf(bound):
        return round(below * scale)
    if math.isinf(below):
        return math.floor(bound)
    return (math.floor(below) + 1 + math.floor(bound)) // 2 if whole else round((below + bound) / 2 * scale)
