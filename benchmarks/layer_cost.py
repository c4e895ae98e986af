"""What each pattern adds to a request when nothing goes wrong: latency and CPU time, beside Single() and FastAPI.

The model costs nothing and returns its inputs. One caller asks at a time, with inputs that do not repeat, so a request
takes the way through the layer and meets nobody there. Every service is started afresh for each window, all in turn.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import services
from bench import Claim, Table, interleave, our_generator, spread
from pattern_cost import driven, serving_ours
from peers.lifecycle import FILES, Peer, install, serving_peer

from pytest_mlpatterns import (
    Batched,
    Cached,
    Cascade,
    Ensemble,
    Limited,
    Microservice,
    Pipeline,
    Queued,
    Replicated,
    Single,
)
from pytest_mlpatterns.workload.payload import read_payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pattern_cost import Start

    from pytest_mlpatterns import Pattern
    from pytest_mlpatterns.loadgen.generator import Generator

CLAIM = (
    "a layer in the process of the model takes at most as long as a request through Single(), and processes in between "
    "at most three times as long"
)
LAUNCHES = 5
INPUTS = [[float(row), *(float((row + column) % 17) for column in range(63))] for row in range(5000)]
"""Inputs of a window, all different: a cache answers none of them a second time."""
MODEL = "models:identity"
SAME_PROCESS = 2.0
"""Claimed ratio to Single() for a layer in the process of the model."""
HOP = 4.0
"""Claimed ratio to Single() for a process in between."""


def stays(given: object, output: object) -> bool:
    """The first model of the cascade is always sure."""
    return False


LAYERS: dict[str, Pattern] = {
    "Cached()": Cached(),
    "Batched()": Batched(max_wait="0ms"),
    "Limited()": Limited(),
    "Cascade(…), the first answers": Cascade(MODEL, "model", stays),
    "Pipeline of two": Pipeline([MODEL, "model"]),
}
HOPS: dict[str, Pattern] = {
    "Replicated(2)": Replicated(2),
    'Replicated(2, "two-choices")': Replicated(2, "two-choices"),
    "Microservice()": Microservice(),
    "Queued()": Queued(),
    "Ensemble of two": Ensemble([MODEL, "model"], combine=max),
}
SINGLE = "Single()"
FASTAPI = Peer("fastapi", "lean", services.PATH)


@dataclass(frozen=True)
class Figures:
    """Median latency of one window and CPU time per request, in nanoseconds."""

    latency_ns: float
    cpu_ns: float


def measure() -> Iterator[Table]:
    pythons, absent = install([FASTAPI])
    sys.path.insert(0, str(FILES))  # our workers take it over, and import the models by their names
    first = read_payload(INPUTS[:1])
    starts: dict[str, Start] = {
        label: partial(serving_ours, pattern, "identity", first)
        for label, pattern in {SINGLE: Single(), **LAYERS, **HOPS}.items()
    }
    if FASTAPI.name in pythons:
        starts["FastAPI, JSON read by hand"] = partial(
            serving_peer, pythons[FASTAPI.name], FASTAPI, "identity", payload=first
        )
    with our_generator() as generator:
        found = interleave(
            {label: partial(drive, generator, label, start) for label, start in starts.items()}, LAUNCHES
        )
    yield table_of(found, absent)


def drive(generator: Generator, label: str, start: Start) -> Figures:
    """One window of one caller; errors as of :func:`pattern_cost.driven`."""
    metrics = driven(generator, label, start, callers=1, inputs=INPUTS)
    cpu = metrics.cpu_ns_per_request
    assert cpu is not None
    return Figures(metrics.rtm_ns.value, cpu.value)


def table_of(found: dict[str, list[Figures]], notes: Sequence[str]) -> Table:
    single = found[SINGLE]
    rows, claims = [], []
    for label, runs in found.items():
        ratios = [run.latency_ns / base.latency_ns for run, base in zip(runs, single, strict=True)]
        added = median(run.latency_ns - base.latency_ns for run, base in zip(runs, single, strict=True))
        cpu = median(run.cpu_ns - base.cpu_ns for run, base in zip(runs, single, strict=True))
        latency = median(run.latency_ns for run in runs)
        is_single = label == SINGLE
        rows.append(
            (
                label,
                f"{latency / 1e3:,.0f} µs",
                "–" if is_single else f"{added / 1e3:+,.0f} µs",
                f"{median(ratios):.2f}",
                spread(ratios) if not is_single else "–",
                "–" if is_single else f"{cpu / 1e3:+,.0f} µs",
            )
        )
        if label in LAYERS:
            claims.append(Claim(f"latency of {label}, against Single()", median(ratios), at_most=SAME_PROCESS))
        elif label in HOPS:
            claims.append(Claim(f"latency of {label}, against Single()", median(ratios), at_most=HOP))
    return Table(
        f"a model that costs nothing, one caller: medians of {LAUNCHES} launches in turn",
        ("service", "RTM", "added", "it / Single()", "spread", "CPU added per request"),
        rows,
        claims,
        notes,
    )
