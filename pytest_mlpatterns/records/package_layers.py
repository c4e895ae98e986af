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
limited     admitted, rejected, limit_ns, observed_ns                  wait_ns; the series ``limit``
cascade     kept, escalated                                            first_ns, second_ns
fallback    model, on_error, on_timeout, on_rejected, while_open,      the series ``breaker`` (0 closed, 1 half-open,
            failed, opened, open_ns, observed_ns                       2 open)
faulty      passed, injected                                           –
replicated  asked_once, hedged, failed_over, prefix_hits,              ahead, replica_ns, replica:NUMBER for each
            prefix_misses
autoscaled  unhurt, waited, failed, scale_outs, scale_ins,             out_ns, in_ns; the series ``replicas`` and
            oscillations, died_replicas, failed_replicas, replicas_ns, ``wanted``
            wanted_ns, observed_ns
multimodel  warm, cold, unloaded, load_failed, close_failed,           load_ns, wait_ns; the series ``loaded``
            loaded_ns, observed_ns
shadowed    copied, dropped, same, different, failed, waiting_ns,      cost_ns, shadow_ns; the series ``waiting``
            observed_ns
retries     once, again, denied, attempts_ns, answered_ns, observed_ns the series ``attempts`` and ``answered``
==========  =========================================================  ================================================

``coalesced`` inputs waited for a model call that another input had started. ``failed_alone`` inputs failed although
other inputs of their batch did not. ``foreign`` entries of a broker's streams came from another program, or answered a
gateway that was replaced. A ``wire`` layer is the server of a process: sizes of its bodies as they were transferred,
and ``plain``, that is uncompressed.
``ahead`` is the number of requests in flight at a replica when it gets another one. ``hedged`` requests were asked
twice because the first replica was late, ``failed_over`` ones because it was lost. Only a gateway before the replicas
counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.layer_description import (
    CPU_FLOOR_NS,
    Exported,
    Figure,
    LayerKind,
    LevelChart,
    PartsChart,
    SizesChart,
    share_figure,
    time_figure,
)
from pytest_mlpatterns.units import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = ["PACKAGE_LAYERS", "RETRY_LAYER"]


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
        Figure(
            "limit", "limit of requests in flight", Unit.COUNT, level="limit", note="limit {}", better="higher", floor=1
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
        LevelChart("Limit over time", "limit", "in flight"),
    ),
    split=(("wait_ns", "queue_wait"),),
    paths=("patterns/limited", "patterns/adaptive_limit"),
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
_OTHERS = {
    "on_error": "the fallback, after an error",
    "on_timeout": "the fallback, after a time-out",
    "on_rejected": "the fallback, after a refusal",
    "while_open": "the fallback, while the breaker was open",
}
"""Counters of the answers of a fallback, and their labels."""
_FALLBACK = LayerKind(
    figures=(
        replace(
            share_figure(
                "fallback_share",
                "share answered by the fallback",
                of=tuple(_OTHERS),
                over=(*_OTHERS, "model"),
                note="{} from the fallback",
            ),
            varies=True,
        ),
        Figure(
            "breaker_open",
            "share of time with an open breaker",
            Unit.RATIO,
            level="open",
            note="breaker open {} of the time",
            floor=0.01,
        ),
    ),
    words={"opened": "× opened", "failed": "failed after all"},
    charts=(
        PartsChart(
            "Who answered",
            "answer",
            "requests",
            {**_OTHERS, "model": "the model"},
            "were answered by the fallback",
            optional=tuple(_OTHERS),
        ),
        LevelChart("State of the breaker over time", "breaker", "(0 closed, 1 half-open, 2 open)"),
    ),
    paths=("patterns/fallback", "patterns/circuit_breaker"),
)
"""The layer of ``Fallback``."""
_FAULTY = LayerKind(
    figures=(
        share_figure(
            "injected_share",
            "share of requests that met a fault on purpose",
            of=("injected",),
            over=("injected", "passed"),
            note="{} met a fault",
        ),
    ),
    charts=(
        PartsChart(
            "Faults on purpose",
            "request",
            "requests",
            {"injected": "met a fault", "passed": "passed"},
            "met a fault",
        ),
    ),
    paths=("patterns/faulty",),
)
"""The layer of ``Faulty``."""
_ASKED = ("asked_once", "hedged", "failed_over")
"""What becomes of requests that may be hedged."""
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
            "hedged_share",
            "share of late requests that were asked twice",
            of=("hedged",),
            over=_ASKED,
            note="{} asked twice",
        ),
        share_figure(
            "extra_load", "calls of replicas beyond one for each request", of=("hedged", "failed_over"), over=_ASKED
        ),
        share_figure(
            "prefix_hits",
            "share of requests at a replica that had their beginning",
            of=("prefix_hits",),
            over=("prefix_hits", "prefix_misses"),
            note="{} prefix hits",
            better="higher",
        ),
    ),
    words={"failed_over": "asked again after a replica was lost"},
    charts=(
        PartsChart(
            "Requests asked again",
            "request",
            "requests",
            {"hedged": "late", "failed_over": "replica lost", "asked_once": "asked once"},
            "were asked again",
        ),
        PartsChart(
            "Beginnings of prompts",
            "request",
            "requests",
            {"prefix_hits": "known to the replica", "prefix_misses": "new to it"},
            "began as one before at the same replica",
        ),
        SizesChart("Requests ahead", "ahead", "requests", "replica", "calls"),
    ),
    paths=("patterns/replication", "patterns/balanced", "patterns/replica_choice", "patterns/hedging"),
)
"""Replicas behind a gateway that chooses among them; the load generator counts nothing."""
_AUTOSCALED = LayerKind(
    figures=(
        Figure("replicas", "replicas", Unit.COUNT, level="replicas", note="{} replicas", floor=0.1),
        time_figure("scale_out", "time of a scale-out", "out_ns", note="one more takes {}"),
        time_figure("scale_in", "time of a scale-in", "in_ns", note="one less takes {}"),
        replace(
            share_figure(
                "hurt_share",
                "share of requests hurt by a scaling",
                of=("waited", "failed"),
                over=("unhurt", "waited", "failed"),
                note="{} hurt",
            ),
            varies=True,
        ),
        Figure(
            "oscillations",
            "scale-ins taken back",
            Unit.PER_SECOND,
            of=("oscillations",),
            over=("observed_ns",),
            floor=0.05,
        ),
    ),
    words={
        "oscillations": "× back and forth",
        "died_replicas": "× a replica died",
        "failed_replicas": "× no replica started",
    },
    charts=(
        PartsChart(
            "Requests hurt by a scaling",
            "request",
            "requests",
            {
                "waited": "waited for a replica",
                "failed": "failed with a replica",
                "unhurt": "met no scaling",
            },
            "were hurt by a scaling",
            optional=("failed",),
        ),
        LevelChart("Replicas over time", "replicas", "ready"),
        LevelChart("Replicas wanted over time", "wanted", "wanted"),
    ),
    paths=("patterns/autoscaled", "patterns/replica_rule"),
)
"""The layer of ``Autoscaled``."""
_MULTIMODEL = LayerKind(
    figures=(
        share_figure(
            "cold_hit_share",
            "share of calls that waited for a load",
            of=("cold",),
            over=("warm", "cold"),
            note="{} cold",
        ),
        time_figure("model_load", "time to load a model", "load_ns", note="a load takes {}"),
        time_figure("cold_wait", "wait of a cold call", "wait_ns", note="wait {}"),
    ),
    words={"unloaded": "unloaded", "load_failed": "failed to load", "close_failed": "failed to close"},
    charts=(
        PartsChart(
            "Calls by whether the model was loaded",
            "call",
            "calls",
            {"warm": "its model was loaded", "cold": "waited for a load"},
            "found their model loaded",
        ),
        LevelChart("Loaded models over time", "loaded", "loaded"),
    ),
    paths=("patterns/multi_model",),
)
"""Several models in one process; counters of calls of a model for the inputs of one request."""
_SHADOWED = LayerKind(
    figures=(
        share_figure(
            "agreement",
            "share of answers that the shadow gave too",
            of=("same",),
            over=("same", "different"),
            note="{} agree",
            better="higher",
        ),
        time_figure("shadow_cost", "time to copy a request", "cost_ns", note="a copy takes {}", floor=CPU_FLOOR_NS),
        time_figure("shadow_time", "time of the shadow", "shadow_ns", note="the shadow takes {}"),
        replace(
            share_figure(
                "shadow_dropped", "share of copies that were dropped", of=("dropped",), over=("copied", "dropped")
            ),
            varies=True,
        ),
    ),
    words={"dropped": "dropped", "failed": "failed in the shadow"},
    charts=(
        PartsChart(
            "Answers of the shadow",
            "answer",
            "inputs",
            {"same": "the same", "different": "different"},
            "have the same answer",
        ),
        LevelChart("Copies that wait over time", "waiting", "waiting"),
    ),
    paths=("patterns/shadowed",),
)
"""A shadow; counters of inputs."""
RETRY_LAYER = "retries"
"""Name of what the load's own clients count that try again: a layer before the service, of results only."""
_RETRIES = LayerKind(
    charts=(
        PartsChart(
            "Requests that were sent again",
            "request",
            "requests",
            {"again": "sent again", "denied": "not sent again, the budget was used up", "once": "sent once"},
            "needed another attempt",
            optional=("denied",),
        ),
        LevelChart("Attempts of the requests that were due", "attempts", "attempts per second"),
        LevelChart("Answers to the requests that were due", "answered", "answers per second"),
    ),
)
"""The clients of a load with retries."""
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
    "fallback": _FALLBACK,
    "faulty": _FAULTY,
    "replicated": _REPLICATED,
    "autoscaled": _AUTOSCALED,
    "multimodel": _MULTIMODEL,
    "shadowed": _SHADOWED,
    RETRY_LAYER: _RETRIES,
    "hop": _HOP,
    "wire": _WIRE,
    "pipeline": LayerKind(paths=("patterns/pipeline",)),
    "ensemble": LayerKind(paths=("patterns/ensemble",)),
}
"""The descriptions by the names of the layers."""
