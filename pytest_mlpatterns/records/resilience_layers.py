"""What the layers count that decide how a service behaves when it is busy, unsure or broken.

Names that end in ``_ns`` are in nanoseconds:

==========  =========================================================  ================================================
layer       counters                                                   histograms (value → count)
==========  =========================================================  ================================================
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

``ahead`` is the number of requests in flight at a replica when it gets another one. ``hedged`` requests were asked
twice because the first replica was late, ``failed_over`` ones because it was lost. Only a gateway before the replicas
counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.layer_description import (
    CPU_FLOOR_NS,
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

__all__ = ["RESILIENCE_LAYERS", "RETRY_LAYER"]

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
    paths=("patterns/shadowed", "patterns/equality"),
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
RESILIENCE_LAYERS: Mapping[str, LayerKind] = {
    "limited": _LIMITED,
    "cascade": _CASCADE,
    "fallback": _FALLBACK,
    "faulty": _FAULTY,
    "replicated": _REPLICATED,
    "autoscaled": _AUTOSCALED,
    "multimodel": _MULTIMODEL,
    "shadowed": _SHADOWED,
    RETRY_LAYER: _RETRIES,
}
"""The descriptions by the names of the layers."""
