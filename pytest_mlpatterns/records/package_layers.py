"""What each kind of layer of this package counts, and what follows from it.

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
limited     admitted, rejected                                         wait_ns
cascade     kept, escalated                                            first_ns, second_ns
replicated  prefix_hits, prefix_misses                                 ahead, replica_ns, replica:NUMBER for each
==========  =========================================================  ================================================

``coalesced`` inputs waited for a model call that another input had started. ``failed_alone`` inputs failed although
other inputs of their batch did not. ``foreign`` entries of a broker's streams came from another program, or answered a
gateway that was replaced. A ``wire`` layer is the server of a process: sizes of its bodies as they were transferred,
and ``plain``, that is uncompressed.
``ahead`` is the number of requests in flight at a replica when it gets another one. Only a gateway before the replicas
counts.

The metrics follow from what layers counted. A pattern may describe its layer in its attribute ``layer_kind`` instead,
as each one outside this package does; no comparison judges its metrics.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from msgspec.structs import replace

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.layer_description import (
    CPU_FLOOR_NS,
    DerivedMetric,
    Exported,
    Figure,
    LayerKind,
    LevelChart,
    PartsChart,
    SizesChart,
    share_figure,
    time_figure,
)
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats
from pytest_mlpatterns.units import Unit
from pytest_mlpatterns.wording import shown

_LIMITED = LayerKind(
    figures=(
        share_figure(
            "admitted_share",
            "share of requests let in",
            of=("admitted",),
            over=("admitted", "rejected"),
            note="{} let in",
            better="higher",
        ),
        time_figure("limit_wait", "wait at the limit", "wait_ns", note="wait {}"),
    ),
    charts=(
        PartsChart(
            "Requests let in and refused",
            "request",
            "requests",
            {"admitted": "let in", "rejected": "refused"},
            "let in",
        ),
    ),
    split=(("wait_ns", "queue_wait"),),
    paths=("patterns/limited",),
)
"""The layer of ``Limited``."""
_CASCADE = LayerKind(
    figures=(
        share_figure(
            "escalation_share",
            "share of inputs that went on",
            of=("escalated",),
            over=("kept", "escalated"),
            note="{} went on",
        ),
        *(
            time_figure(
                f"cascade_{which}", f"time of the {which} model", f"{which}_ns", note=f"the {which} model takes {{}}"
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
"""The layer of ``Cascade``."""
_REPLICATED = LayerKind(
    figures=(
        Figure(
            "requests_ahead",
            "requests in flight at the chosen replica",
            Unit.COUNT,
            mean="ahead",
            note="{} requests ahead",
            floor=0.1,
        ),
        time_figure("replica_time", "time at a replica", "replica_ns", note="a replica takes {}"),
        share_figure(
            "prefix_hits",
            "share of requests at a replica that had their beginning",
            of=("prefix_hits",),
            over=("prefix_hits", "prefix_misses"),
            note="{} prefix hits",
            better="higher",
        ),
    ),
    charts=(
        PartsChart(
            "Beginnings of prompts",
            "request",
            "requests",
            {"prefix_hits": "known to the replica", "prefix_misses": "new to it"},
            "began as one before at the same replica",
        ),
        SizesChart("Requests ahead", "ahead", "requests", "replica", "calls"),
    ),
    paths=("patterns/replication", "patterns/replica_choice"),
)
"""Replicas behind a gateway that chooses among them; the load generator counts nothing."""
_BATCH_SIZE = Figure("batch_size", "batch size", Unit.COUNT, mean="size", better="higher", floor=0.5)
"""The mean size of a batch, of both kinds of batching."""
_BATCH_WAIT = time_figure("batch_wait", "wait for a batch", "wait_ns", note="wait {}")
"""The wait for a batch, of both kinds of batching."""

_CACHED = LayerKind(
    figures=(
        share_figure(
            "cache_hit_ratio",
            "cache hit ratio",
            of=("hits", "coalesced"),
            over=("hits", "coalesced", "misses"),
            note="{} hits",
            better="higher",
        ),
        *(
            time_figure(f"cache_{way}", f"time of a cache {way}", f"{way}_ns", note=f"a {way} takes {{}}")
            for way in ("hit", "miss")
        ),
    ),
    words={"coalesced": "shared a running call", "evictions": "evicted", "store_errors": "answered without the store"},
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
"""The layer of ``Cached``."""
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
"""The layer of ``Batched``."""
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
"""The layer of ``Continuous``."""
_QUEUED = LayerKind(
    figures=(
        Figure("queue_depth", "queue depth", Unit.COUNT, level="depth", note="{} waiting on average", floor=0.5),
        time_figure("queue_wait", "wait in the queue", "wait_ns", note="wait {}"),
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
"""The layer of ``Queued``."""
_HOP = LayerKind(
    figures=(time_figure("hop", "hop", "hop_ns", note="{} round trip"),),
    words={"errors": "failed"},
    paths=("engines/local/upstream.py",),
)
"""The way to another process."""
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
"""The server of a process."""
PACKAGE_LAYERS: Mapping[str, LayerKind] = {
    "cached": _CACHED,
    "batched": _BATCHED,
    "continuous": _CONTINUOUS,
    "queued": _QUEUED,
    "limited": _LIMITED,
    "cascade": _CASCADE,
    "replicated": _REPLICATED,
    "hop": _HOP,
    "wire": _WIRE,
    "pipeline": LayerKind(paths=("patterns/pipeline",)),
    "ensemble": LayerKind(paths=("patterns/ensemble",)),
}
"""The descriptions by the names of the layers."""


_NAME = re.compile(r"[a-z][a-z0-9_]*")
LAYER_KINDS: dict[str, LayerKind] = dict(PACKAGE_LAYERS)
"""Every description by the name of its layer. A class of a pattern adds its own when it is defined."""
_UNKNOWN = LayerKind()


def layer_kind(name: str) -> LayerKind:
    """The description of a layer; an empty one for a pattern of the user's own that has none."""
    return LAYER_KINDS.get(name, _UNKNOWN)


def describe_layer_kind(name: str, kind: LayerKind) -> None:
    """Add the description of a layer of a pattern outside this package; a later one of the same name replaces it."""
    if name == _ANSWERS:
        describe_figures(kind.figures)
        return
    if name in PACKAGE_LAYERS:
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


_ANSWERS = "figures of answers"  # Name under which :data:`LAYER_KINDS` has the figures that tests read from answers


_RECALLED: dict[str, Figure] = {}  # Figures that files know of earlier runs


def answer_figures() -> tuple[Figure, ...]:
    """The figures that tests read from answers (``perf_figures``), and figures of earlier runs."""
    return tuple((_RECALLED | {one.name: one for one in layer_kind(_ANSWERS).figures}).values())


def recall_figures(figures: Mapping[str, tuple[Unit, Literal["lower", "higher"]]]) -> None:
    """Add figures of an earlier run: unit and better values by name. What a test describes counts instead."""
    _RECALLED.update({name: Figure(name, name, unit, better=better) for name, (unit, better) in figures.items()})


def describe_figures(figures: Iterable[Figure]) -> None:
    """Add figures that a test reads from answers; all tests share their names."""
    known = {one.name: one for one in layer_kind(_ANSWERS).figures}
    for figure in figures:
        if (other := known.setdefault(figure.name, figure)) != figure:
            found, before = (f"{one.unit.value or 'number'}, {one.better} is better" for one in (figure, other))
            raise SettingError(
                f"perf_figures has {figure.name} ({found}), and that of another test has it otherwise ({before}); "
                "rename one of the two"
            )
    LAYER_KINDS[_ANSWERS] = LayerKind(figures=tuple(known.values()))


def package_figures() -> Iterator[Figure]:
    """The metrics of the package's own layers; one that two kinds have comes twice, with other notes."""
    return (figure for kind in PACKAGE_LAYERS.values() for figure in kind.figures if figure.name)


def own_layer_kinds() -> dict[str, LayerKind]:
    """The descriptions of patterns outside this package, by the names of their layers."""
    return {name: kind for name, kind in LAYER_KINDS.items() if name not in PACKAGE_LAYERS}


def own_figures() -> Iterator[Figure]:
    """The metrics of patterns outside this package."""
    kinds = (kind for name, kind in own_layer_kinds().items() if name != _ANSWERS)
    return (figure for kind in kinds for figure in kind.figures if figure.name)


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
