"""What each kind of layer counts, and what follows from it: one description for metrics, reports and profiles.

Each layer of a pattern counts under the names of this table; names that end in ``_ns`` are in nanoseconds:

==========  =========================================================  ================================================
layer       counters                                                   histograms (value → count)
==========  =========================================================  ================================================
cached      hits, misses, coalesced, evictions, store_errors           hit_ns, miss_ns
batched     calls, items, failed_alone                                 size, wait_ns, call_ns
continuous  steps, chunks, cancelled, active_ns, observed_ns           size, wait_ns, step_ns; the series ``active``
queued      accepted, rejected, answered, redelivered, duplicated,     wait_ns; the series ``depth`` and its integral,
            lost, foreign, broker_errors, depth_ns, observed_ns        the counters depth_ns over observed_ns
limited     admitted, rejected, limit_ns, observed_ns                  wait_ns; the series ``limit``
cascade     kept, escalated                                            first_ns, second_ns
pipeline    –                                                          stage:NAME for every stage
ensemble    last:NAME for every model                                  model:NAME for every model
hop         calls, errors                                              hop_ns (transport, without work and wait)
wire        requests, decode_ns, encode_ns, received_bytes,            –
            received_plain_bytes, sent_bytes, sent_plain_bytes
==========  =========================================================  ================================================

``coalesced`` inputs waited for a model call that another input had started. ``failed_alone`` inputs failed although
other inputs of their batch did not. ``foreign`` entries of a broker's streams came from another program. A ``wire``
layer is the server of a process: sizes of its bodies as they were transferred, and ``plain``, that is uncompressed.

A pattern outside this package describes its layer in its attribute ``layer_kind``. Pure; this module must not know how
a description is drawn.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import TYPE_CHECKING, Literal

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import Unit
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats

__all__ = [
    "CPU_FLOOR_NS",
    "LATENCY_FLOOR_NS",
    "LAYER_KINDS",
    "DerivedMetric",
    "Exported",
    "Figure",
    "LayerKind",
    "LevelChart",
    "PartsChart",
    "SizesChart",
    "derived_metrics",
    "describe_layer_kind",
    "layer_kind",
    "own_figures",
    "own_layer_kinds",
    "package_figures",
]

LATENCY_FLOOR_NS = 5_000
"""Change of a latency that no machine resolves reliably; a noisy one resolves less, which its intervals show."""
CPU_FLOOR_NS = 2_000
"""The same for CPU time per request, which does not hold the time to wake a process."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class DerivedMetric:
    """One metric of one window, and its relative standard error; 0 if the counts do not give one."""

    value: float
    relative_error: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A value that follows from the counts of a layer: ``median``, ``mean``, ``level``, or ``of`` divided by ``over``.

    Args:
        name: of the metric; empty for a value of the note alone.
        label: as reports write the metric.
        unit: of the value.
        median: histogram whose median it is, or whose mean if a server reports nothing else.
        mean: histogram whose mean it is.
        level: name of a level, such as the depth of a queue, whose mean over time it is.
        of: counters that are added up.
        over: counters by whose sum they are divided; ``("observed_ns",)`` gives a rate per second.
        plain: counters of the same before compression; the note has them in brackets if they differ.
        note: its text in the note of the layer, such as ``"wait {}"``; empty: not there. The first value with a text
            leads: without it there is no note.
        better: which values are better.
        floor: smallest change that a comparison takes seriously.
        varies: whether launches vary by themselves.
    """

    name: str
    label: str
    unit: Unit
    median: str = ""
    mean: str = ""
    level: str = ""
    of: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    note: str = ""
    better: Literal["lower", "higher"] = "lower"
    floor: float = 0.0
    varies: bool = True

    def read(self, layer: LayerStats) -> DerivedMetric | None:
        """The value of a layer; None if the layer counted nothing that gives it."""
        if self.median:
            middle = layer.median(self.median)
            return _exact(layer.mean(self.median) if middle is None else middle)
        if self.mean:
            return _mean(layer, self.mean)
        if self.level:
            observed = layer.counters.get("observed_ns", 0)
            depth_ns = layer.counters.get(f"{self.level}_ns", 0)
            return _exact(depth_ns / observed if observed else layer.mean(self.level))
        counted, total = layer.counted(self.of), layer.counted(self.over)
        if not total:
            return None
        if self.over == ("observed_ns",):
            return _exact(counted * 1e9 / total)
        ratio = counted / total
        is_share = set(self.of) < set(self.over)
        return DerivedMetric(ratio, sqrt((1 - ratio) / counted) if is_share and counted else 0.0)


def _exact(value: float | None) -> DerivedMetric | None:
    return None if value is None else DerivedMetric(value, 0.0)


def _mean(layer: LayerStats, name: str) -> DerivedMetric | None:
    if (mean := layer.mean(name)) is None:
        return None
    values = layer.histograms.get(name, {})
    count = sum(values.values())
    variance = sum((value - mean) ** 2 * times for value, times in values.items())
    return DerivedMetric(mean, sqrt(variance) / count / mean if mean and count else 0.0)


@dataclass(frozen=True, slots=True)
class PartsChart:
    """The shares of counters in their sum.

    Args:
        title: of the chart.
        part: what a counter is, such as ``"answer"``.
        what: what is counted, such as ``"inputs"``.
        parts: label of each counter; the last one is the rest, which the summary leaves out.
        summary: end of the summary, after the share and ``of 400 inputs``.
        optional: counters that are left out if they are zero.
    """

    title: str
    part: str
    what: str
    parts: Mapping[str, str]
    summary: str
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SizesChart:
    """How often each value of a histogram of whole numbers was observed.

    Args:
        title: of the chart.
        histogram: its name.
        what: what a value counts, such as ``"inputs"``.
        group: what has the value, such as ``"batch"``.
        when: what was observed, in the plural, such as ``"calls"``.
    """

    title: str
    histogram: str
    what: str
    group: str
    when: str


@dataclass(frozen=True, slots=True)
class LevelChart:
    """A level over time.

    Args:
        title: of the chart.
        level: name of the level.
        what: what the level counts, such as ``"waiting"``.
    """

    title: str
    level: str
    what: str


@dataclass(frozen=True, slots=True)
class Exported:
    """A Prometheus metric of another server, by the fields of :class:`pytest_mlpatterns.serving.prometheus.Prometheus`.

    Args:
        field: its name there.
        into: histogram or counter of the layer.
        is_counter: whether it is a counter as it is; else it becomes a histogram.
        whole: whether the values are whole numbers; else they are times.
        total: counter of the sum, for servers without the histogram; empty: ``field`` itself.
        times: counter of the observations that belongs to it; empty: only a histogram is read.
        counts: counters of the layer for the sum and for the number of observations.
    """

    field: str
    into: str
    is_counter: bool = False
    whole: bool = False
    total: str = ""
    times: str = ""
    counts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerKind:
    """The description of a kind of layer.

    Args:
        figures: metrics and values of the note, in the order of both.
        words: counters that the note has if they are not zero, and their text after the number.
        charts: charts of the page; times have one without a description.
        split: parts of the split of latencies that histograms of another server stand for.
        exported: what is read from another server.
        prometheus: names of the fields of ``exported`` in servers; the first that exists is read.
        paths: beginnings of the paths in this package whose functions are of the layer in a profile.
        stores: whether it answers from what it stored, so that a load that repeats its inputs makes it look better.
    """

    figures: tuple[Figure, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    charts: tuple[PartsChart | SizesChart | LevelChart, ...] = ()
    split: tuple[tuple[str, str], ...] = ()
    exported: tuple[Exported, ...] = ()
    prometheus: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    stores: bool = False


_BATCH_SIZE = Figure("batch_size", "batch size", Unit.COUNT, mean="size", better="higher", floor=0.5)
_BATCH_WAIT = Figure(
    "batch_wait", "wait for a batch", Unit.DURATION, median="wait_ns", note="wait {}", floor=LATENCY_FLOOR_NS
)

_CACHED = LayerKind(
    figures=(
        Figure(
            "cache_hit_ratio",
            "cache hit ratio",
            Unit.RATIO,
            of=("hits", "coalesced"),
            over=("hits", "coalesced", "misses"),
            note="{} hits",
            better="higher",
            floor=0.01,
            varies=False,
        ),
        *(
            Figure(
                f"cache_{way}",
                f"time of a cache {way}",
                Unit.DURATION,
                median=f"{way}_ns",
                note=f"a {way} takes {{}}",
                floor=LATENCY_FLOOR_NS,
            )
            for way in ("hit", "miss")
        ),
    ),
    words={
        "coalesced": "shared a running call",
        "evictions": "evicted",
        "store_errors": "answered without the store",
    },
    charts=(
        PartsChart(
            "Cache hits and misses",
            "answer",
            "inputs",
            {"hits": "hit", "coalesced": "shared a running call", "misses": "miss"},
            "without a model call of their own",
            optional=("coalesced",),
        ),
    ),
    exported=tuple(Exported(f"cache_{name}", name, is_counter=True) for name in ("hits", "misses")),
    paths=("patterns/cache", "serving/redis/cache"),
    stores=True,
)
_BATCHED = LayerKind(
    figures=(
        replace(_BATCH_SIZE, note="{} inputs per call"),
        _BATCH_WAIT,
        Figure("", "call", Unit.DURATION, median="call_ns", note="call {}"),
    ),
    words={"failed_alone": "failed on their own"},
    charts=(SizesChart("Batch sizes", "size", "inputs", "batch", "calls"),),
    split=(("wait_ns", "batch_wait"), ("call_ns", "model_call")),
    exported=(
        Exported(
            "batch_size", "size", whole=True, total="batched_items", times="batched_calls", counts=("items", "calls")
        ),
        Exported("batch_wait", "wait_ns"),
        Exported("batch_call", "call_ns"),
    ),
    prometheus={
        "batch_size": (
            "mosec_service_batch_size",
            "bentoml_service_adaptive_batch_size",
            "ray_serve_actual_batch_size",
            "vllm:iteration_tokens_total",
        ),
        "batch_wait": ("ray_serve_batch_wait_time_ms",),
        "batch_call": ("ray_serve_batch_execution_time_ms",),
        "batched_items": ("nv_inference_count", "llamacpp:tokens_predicted_total"),
        "batched_calls": ("nv_inference_exec_count", "llamacpp:n_decode_total"),
    },
    paths=("patterns/batch",),
)
_CONTINUOUS = LayerKind(
    figures=(
        replace(_BATCH_SIZE, note="{} sequences per step"),
        _BATCH_WAIT,
        Figure("", "step", Unit.DURATION, median="step_ns", note="step {}"),
    ),
    words={"cancelled": "closed before the model ended them"},
    charts=(SizesChart("Batch sizes", "size", "sequences", "batch", "steps"),),
    paths=("patterns/continuous",),
)
_QUEUED = LayerKind(
    figures=(
        Figure("queue_depth", "queue depth", Unit.COUNT, level="depth", note="{} waiting on average", floor=0.5),
        Figure(
            "queue_wait", "wait in the queue", Unit.DURATION, median="wait_ns", note="wait {}", floor=LATENCY_FLOOR_NS
        ),
    ),
    words={
        "rejected": "rejected",
        "redelivered": "redelivered",
        "duplicated": "answered twice",
        "lost": "lost",
        "foreign": "foreign entries skipped",
        "broker_errors": "refused because the broker was unavailable",
    },
    charts=(LevelChart("Queue depth over time", "depth", "waiting"),),
    split=(("wait_ns", "queue_wait"),),
    exported=(
        Exported("queue_wait", "wait_ns", times="queued_requests"),
        Exported("queue_depth", "depth", whole=True),
        Exported("queue_rejected", "rejected", is_counter=True),
    ),
    prometheus={
        "queue_depth": (
            "mosec_service_remaining_task",
            "bentoml_service_request_in_progress",
            "batch_request_queue",
            "parallel_request_queue",
            "nv_inference_pending_request_count",
            "ray_serve_deployment_queued_queries",
            "llamacpp:requests_deferred",
            "vllm:num_requests_waiting",
        ),
        "queue_wait": ("nv_inference_queue_duration_us", "vllm:request_queue_time_seconds"),
        "queued_requests": ("nv_inference_request_success",),
    },
    paths=("patterns/queued", "serving/redis/"),
)
_LIMITED = LayerKind(
    figures=(
        Figure(
            "admitted_share",
            "share of requests let in",
            Unit.RATIO,
            of=("admitted",),
            over=("admitted", "rejected"),
            note="{} let in",
            better="higher",
            floor=0.01,
            varies=False,
        ),
        Figure(
            "limit", "limit of requests in flight", Unit.COUNT, level="limit", note="limit {}", better="higher", floor=1
        ),
        Figure(
            "limit_wait", "wait at the limit", Unit.DURATION, median="wait_ns", note="wait {}", floor=LATENCY_FLOOR_NS
        ),
    ),
    charts=(
        PartsChart(
            "Requests let in and refused",
            "request",
            "requests",
            {"admitted": "let in", "rejected": "refused"},
            "let in",
        ),
        LevelChart("Limit over time", "limit", "in flight"),
    ),
    split=(("wait_ns", "queue_wait"),),
    paths=("patterns/limited", "patterns/adaptive_limit"),
)
_CASCADE = LayerKind(
    figures=(
        Figure(
            "escalation_share",
            "share of inputs that went on",
            Unit.RATIO,
            of=("escalated",),
            over=("kept", "escalated"),
            note="{} went on",
            floor=0.01,
            varies=False,
        ),
        *(
            Figure(
                f"cascade_{which}",
                f"time of the {which} model",
                Unit.DURATION,
                median=f"{which}_ns",
                note=f"the {which} model takes {{}}",
                floor=LATENCY_FLOOR_NS,
            )
            for which in ("first", "second")
        ),
    ),
    charts=(
        PartsChart(
            "Who answered",
            "answer",
            "inputs",
            {"kept": "the first model", "escalated": "the second model"},
            "were answered by the first model alone",
        ),
    ),
    paths=("patterns/cascade",),
)
_HOP = LayerKind(
    figures=(Figure("hop", "hop", Unit.DURATION, median="hop_ns", note="{} round trip", floor=LATENCY_FLOOR_NS),),
    words={"errors": "failed"},
    paths=("engines/local/upstream.py",),
)
_WIRE = LayerKind(
    figures=(
        *(
            Figure(
                "",
                f"size {words}",
                Unit.SIZE,
                of=(f"{way}_bytes",),
                over=("requests",),
                plain=(f"{way}_plain_bytes",),
                note=f"{{}} {words}",
            )
            for way, words in (("received", "in"), ("sent", "out"))
        ),
        *(
            Figure(
                way,
                f"time to {way} {what}",
                Unit.DURATION,
                of=(f"{way}_ns",),
                over=("requests",),
                note=f"{way} {{}}",
                floor=CPU_FLOOR_NS,
            )
            for way, what in (("decode", "a request"), ("encode", "an answer"))
        ),
    ),
    paths=("wire/",),
)
_BUILT_IN: Mapping[str, LayerKind] = {
    "cached": _CACHED,
    "batched": _BATCHED,
    "continuous": _CONTINUOUS,
    "queued": _QUEUED,
    "limited": _LIMITED,
    "cascade": _CASCADE,
    "hop": _HOP,
    "wire": _WIRE,
    "pipeline": LayerKind(paths=("patterns/pipeline",)),
    "ensemble": LayerKind(paths=("patterns/ensemble",)),
}
LAYER_KINDS: dict[str, LayerKind] = dict(_BUILT_IN)
"""Every description by the name of its layer. A class of a pattern adds its own when it is defined."""
_UNKNOWN = LayerKind()


def layer_kind(name: str) -> LayerKind:
    """The description of a layer; an empty one for a pattern of the user's own that has none."""
    return LAYER_KINDS.get(name, _UNKNOWN)


def describe_layer_kind(name: str, kind: LayerKind) -> None:
    """Add the description of a layer of a pattern outside this package; a later one of the same name replaces it.

    Raises:
        SettingError: a layer of this package has the name, it is no description, or a metric does not begin with the
            name of its layer.
    """
    if name in _BUILT_IN:
        raise SettingError(f"a pattern named {shown(name)} has a layer_kind, but the package has one; rename the class")
    if not isinstance(kind, LayerKind):
        raise SettingError(
            f"layer_kind of {name} is {shown(kind)}, expected a LayerKind; write LayerKind(figures=(…,))"
        )
    for figure in kind.figures:
        if figure.name and not (_NAME.fullmatch(figure.name) and figure.name.startswith(f"{name}_")):
            raise SettingError(
                f"layer_kind of {name} has the metric {shown(figure.name)}, expected a name in lower case that begins "
                f"with {name}_; write {shown(f'{name}_wait')}"
            )
    LAYER_KINDS[name] = kind


def package_figures() -> Iterator[Figure]:
    """The metrics of the package's own layers; one that two kinds have comes twice, with other notes."""
    return (figure for kind in _BUILT_IN.values() for figure in kind.figures if figure.name)


def own_layer_kinds() -> dict[str, LayerKind]:
    """The descriptions of patterns outside this package, by the names of their layers."""
    return {name: kind for name, kind in LAYER_KINDS.items() if name not in _BUILT_IN}


def own_figures() -> Iterator[Figure]:
    """The metrics of patterns outside this package."""
    return (figure for kind in own_layer_kinds().values() for figure in kind.figures if figure.name)


def derived_metrics(stats: PatternStats | None) -> dict[str, DerivedMetric]:
    """The metrics that follow from the counts, by name; of several layers of one kind the outermost one counts.

    ``cache_hit_ratio`` is the share of inputs answered without a model call of their own, ``batch_size`` the mean over
    the model calls, ``queue_depth`` the mean over time of the waiting requests. ``decode`` and ``encode`` are means,
    the other times medians (means if a server reports only those).
    """
    found: dict[str, DerivedMetric] = {}
    for figure, layer in () if stats is None else _read_from(stats):
        if figure.name and figure.name not in found and (value := figure.read(layer)) is not None:
            found[figure.name] = value
    return found


def _read_from(stats: PatternStats) -> Iterator[tuple[Figure, LayerStats]]:
    for name, kind in LAYER_KINDS.items():
        for layer in stats.layers_named(name):
            yield from ((figure, layer) for figure in kind.figures)
