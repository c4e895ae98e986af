"""Maps a server's Prometheus metrics to the telemetry of patterns.

The descriptions of layers have the metric names of known servers; users name others in :class:`Prometheus`. A
Prometheus histogram becomes a histogram of the middles of its buckets; the counters ``NAME_sum`` and ``NAME_count``
hold the exact sum and count. Pure; :mod:`pytest_mlpatterns.serving.external.scraper` fetches the text.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from msgspec import Struct

from pytest_mlpatterns.credentials import address_without_credentials, public_command
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.layer_description import LayerKind
from pytest_mlpatterns.records.package_layers import LAYER_KINDS
from pytest_mlpatterns.records.telemetry import Histogram, LayerStats, merged_layers
from pytest_mlpatterns.wording import shown

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_UNITS_NS = {"seconds": 1e9, "second": 1e9, "s": 1e9, "ms": 1e6, "milliseconds": 1e6, "us": 1e3, "ns": 1.0}
_TOO_LARGE = 2.0**63  # Numbers from here on are no counter of 64 bits
_KNOWN = {name: names for kind in LAYER_KINDS.values() for name, names in kind.prometheus.items()}
"""Names of each metric in mosec, BentoML, MLServer, Triton, Ray Serve, llama.cpp and vLLM; the first that exists is
used. In mosec and BentoML the queue depth includes requests in process; in MLServer it is a histogram of the depth at
each arrival. A batch of llama.cpp and vLLM is counted in tokens: those that a step of the model makes, and in vLLM
those that it reads."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Path and names of a server's Prometheus metrics.

    mosec, BentoML, MLServer, Triton, Ray Serve, llama.cpp and vLLM need no names. The unit of a time follows from the
    end of the name (``_seconds``, ``_ms``, ``_us``, ``_ns``); the default is seconds. Needs the extra ``prometheus``.

    Args:
        path: a path on the server, or an address such as ``"http://127.0.0.1:{metrics_port}/metrics"``.
        batch_size: histogram or summary of the inputs in a model call.
        batch_wait: histogram or summary of the time that an input waits for its batch.
        batch_call: histogram or summary of the time that a model call takes.
        batched_items: counter of inputs, together with ``batched_calls``; an alternative to ``batch_size``.
        batched_calls: counter of model calls.
        queue_depth: gauge of the requests that wait, read twice a second; or a histogram of it.
        queue_wait: histogram or summary of the time that a request waits, or a counter of that time, together with
            ``queued_requests``.
        queued_requests: counter of the requests that waited.
        queue_rejected: counter of the requests that were refused.
        cache_hits: counter of cache hits.
        cache_misses: counter of cache misses.

    Raises:
        SettingError: neither path nor address, or a name that Prometheus does not allow.
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
            found = shown(public_command(self.path))
            raise SettingError(f'Prometheus({found}), expected a path or address; write Prometheus("/metrics")')
        for name in _METRIC_FIELDS:
            given = getattr(self, name)
            if given is not None and (not isinstance(given, str) or not _NAME.fullmatch(given)):
                raise SettingError(f"Prometheus({name}={shown(given)}), expected the name of a metric of the server")

    def __repr__(self) -> str:
        given = [f"{name}={getattr(self, name)!r}" for name in _METRIC_FIELDS if getattr(self, name) is not None]
        return f"Prometheus({', '.join([repr(address_without_credentials(self.path)), *given])})"

    def names_of(self, metric: str) -> tuple[str, ...]:
        """Possible names of a metric, in order of preference."""
        given = getattr(self, metric)
        return _KNOWN.get(metric, ()) if given is None else (given,)


_METRIC_FIELDS = tuple(found.name for found in fields(Prometheus))[1:]


class Reading(Struct, frozen=True):
    """One reading of a server's metrics: its counters and histograms, and the queue depth (None: not available)."""

    layers: tuple[LayerStats, ...]
    depth: int | None = None


@dataclass(slots=True)
class _Series:
    """One metric, summed over its labels."""

    name: str
    is_distribution: bool
    total: float = 0.0
    sum: float = 0.0
    count: float = 0.0
    buckets: defaultdict[float, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def scale(self) -> float:
        """Nanoseconds in the unit that the name ends in."""
        return _UNITS_NS.get(self.name.rpartition("_")[2], 1e9)


class _Metrics(Struct, frozen=True):
    """All metrics of a server, found by the names in ``names``."""

    series: Mapping[str, _Series]
    names: Prometheus

    def find(self, metric: str) -> _Series | None:
        """The metric with the first of its possible names that exists; None without one, and for an empty field."""
        if not metric:
            return None
        return next((self.series[key] for key in map(_base, self.names.names_of(metric)) if key in self.series), None)


def read_prometheus(text: str, names: Prometheus) -> Reading:
    """Read the text of a metrics endpoint. Needs the package ``prometheus_client``.

    Raises ValueError: the text is malformed, or one of these metrics is too large for a number of 64 bits.
    """
    metrics = _Metrics(_series_of(text), names)
    layers = [_layer(name, kind, metrics) for name, kind in LAYER_KINDS.items()]
    depth = metrics.find("queue_depth")
    gauge = None if depth is None or depth.is_distribution else _whole(depth.total, depth.name)
    return Reading(tuple(layer for layer in layers if layer.counters), gauge)


def _layer(name: str, kind: LayerKind, metrics: _Metrics) -> LayerStats:
    """What a server counted of one kind of layer."""
    counters: dict[str, int] = {}
    histograms: dict[str, Histogram] = {}

    def count(name: str, value: float) -> None:
        counters[name] = _whole(value, f"{name} of the metrics")

    for one in kind.exported:
        series, total, times = (metrics.find(field) for field in (one.field, one.total or one.field, one.times))
        if one.is_counter:
            if series is not None:
                count(one.into, series.total)
            continue
        if series is not None and series.is_distribution:
            source, found = series, (series.sum, series.count)
        elif total is not None and times is not None:
            source, found = total, (total.total, times.total)
        else:
            continue
        scale = 1.0 if one.whole else source.scale
        count(f"{one.into}_sum", found[0] * scale)
        count(f"{one.into}_count", found[1])
        if source is series and source.buckets:
            histograms[one.into] = _histogram(source, scale, one.whole)
        for counter, value in zip(one.counts, found, strict=False):
            count(counter, value)
    return LayerStats(0, name, counters, histograms)


def merge_readings(readings: Sequence[Reading]) -> Reading:
    """Add up the readings of several processes of one server."""
    depths = [reading.depth for reading in readings if reading.depth is not None]
    layers = merged_layers(layer for reading in readings for layer in reading.layers)
    return Reading(layers, sum(depths) if depths else None)


def _series_of(text: str) -> dict[str, _Series]:
    try:
        return _parsed_series(text)
    except (LookupError, ArithmeticError) as error:  # of the parser, for text cut in a label; of numbers beyond floats
        raise ValueError(f"a line of the metrics cannot be read: {error}") from None


def _parsed_series(text: str) -> dict[str, _Series]:
    from prometheus_client.parser import text_string_to_metric_families

    metrics: dict[str, _Series] = {}
    for family in text_string_to_metric_families(text):
        key = _base(family.name)
        series = metrics.setdefault(key, _Series(key, family.type in ("histogram", "summary")))
        for sample in family.samples:
            if not math.isnan(sample.value):
                _add(series, sample.name.removeprefix(family.name), sample.labels, value=sample.value)
    return metrics


def _add(series: _Series, ending: str, labels: Mapping[str, str], *, value: float) -> None:
    if ending == "_bucket":
        if "le" not in labels:
            raise ValueError(f"a bucket of the histogram {series.name} has no label le")
        series.buckets[float(labels["le"])] += value
    elif ending == "_sum":
        series.sum += value
    elif ending == "_count":
        series.count += value
    elif ending in ("", "_total") and not series.is_distribution:
        series.total += value


def _base(name: str) -> str:
    """The name of a metric without the suffix that Prometheus clients add to counters."""
    return name.removesuffix("_total")


def _whole(value: float, name: str) -> int:
    if not abs(value) < _TOO_LARGE:  # neither is NaN
        raise ValueError(f"{name} is {value:g}, expected a number below {_TOO_LARGE:g}")
    return round(value)


def _histogram(series: _Series, scale: float, whole: bool) -> Histogram:
    """Convert cumulative buckets to counts of the middles of the buckets."""
    found: defaultdict[int, int] = defaultdict(int)
    lower, seen = -math.inf if whole else 0.0, 0.0
    for bound, cumulative in sorted(series.buckets.items()):
        times = _whole(cumulative - seen, series.name)
        if times > 0:
            found[_whole(_middle(lower, bound, scale, whole=whole), series.name)] += times
        lower, seen = bound, max(seen, cumulative)
    return dict(found)


def _middle(below: float, bound: float, scale: float, *, whole: bool) -> float:
    if math.isinf(bound):
        return below * scale
    if math.isinf(below):
        return math.floor(bound)
    return (math.floor(below) + 1 + math.floor(bound)) // 2 if whole else (below + bound) / 2 * scale
