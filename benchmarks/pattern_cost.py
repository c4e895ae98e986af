"""What each pattern costs, beside FastAPI under uvicorn, LitServe, mosec, BentoML and Ray Serve, with the same models.

One model costs nothing, the other 5 ms a call for any batch. Every server is started afresh for each window, all
in turn. It may use every core; the generator keeps to one. Peers have environments of their own, made on demand.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import httpx
import services
from bench import Claim, Table, interleave, on_client_core, our_generator, spread
from peers.lifecycle import FILES, Peer, install, serving_peer, versions

from pytest_mlpatterns import Batched, Microservice, Replicated, Single
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.wire.body import JSON_HEADERS
from pytest_mlpatterns.wire.kserve_v1 import encode_instances
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_mlpatterns import Pattern
    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.payload import Payload

    Start = Callable[[], contextlib.AbstractContextManager[Deployment]]

CLAIM = (
    "with a model that costs nothing Single() reaches at least 0.85 times the throughput of FastAPI and is ahead of "
    "LitServe, BentoML and Ray Serve; with one that costs 5 ms a call Batched() reaches at least 5 times Single()"
)
CONCURRENCY = 32
LAUNCHES = 3
SECONDS = 1.5
WARMUP_S = 0.5
INPUTS = [[float((row + column) % 17) for column in range(64)] for row in range(200)]

OURS: dict[str, Pattern] = {
    "Single()": Single(),
    "Replicated(2)": Replicated(2),
    "Batched(max_batch_size=32)": Batched(max_batch_size=32),
    "Microservice()": Microservice(),
}
SINGLE, _, BATCHED, _ = OURS
PEERS = {
    "FastAPI, body validated by pydantic": Peer("fastapi", "validated", services.PATH),
    "FastAPI, JSON read by hand": Peer("fastapi", "lean", services.PATH),
    "LitServe": Peer("litserve", "single"),
    "LitServe, batching": Peer("litserve", "batched"),
    "mosec, batching": Peer("mosec", "batched"),
    "BentoML": Peer("bentoml", "single"),
    "BentoML, adaptive batching": Peer("bentoml", "batched"),
    "Ray Serve, one replica": Peer("ray", "single"),
}
BEHIND = {"litserve": "LitServe", "bentoml": "BentoML", "ray": "Ray Serve"}
"""The peers that Single() is claimed to be ahead of."""


@dataclass(frozen=True)
class Figures:
    """What one window came to; ``limited`` says why the generator may be what was measured."""

    throughput_rps: float
    cpu_ns_per_request: float
    limited: str | None


def measure() -> Iterator[Table]:
    pythons, absent = install(PEERS.values())
    sys.path.insert(0, str(FILES))  # our workers take it over, and import the models by their names
    with our_generator() as generator:
        found = measure_launches(generator, "identity", pythons)
        yield table_of(
            "a model that costs nothing", found, claims_of_identity(found), notes=[versions(pythons), *absent]
        )
        found = measure_launches(generator, "fixed_cost", pythons)
        ratio = throughput(found[BATCHED]) / throughput(found[SINGLE])
        claims = [Claim(f"throughput of {BATCHED} at 5 ms a call, against Single()", ratio, at_least=5.0)]
        notes = ["every service makes one call at a time, Replicated(2) two"]
        yield table_of("a model that costs 5 ms a call", found, claims, notes=notes)


def measure_launches(generator: Generator, model: str, pythons: Mapping[str, str]) -> dict[str, list[Figures]]:
    """Every server launched so many times, in turn, and driven for a window each."""
    first = read_payload(INPUTS[:1])
    starts: dict[str, Start] = {label: partial(serving_ours, pattern, model, first) for label, pattern in OURS.items()}
    for label, peer in PEERS.items():
        if peer.name in pythons:
            starts[label] = partial(serving_peer, pythons[peer.name], peer, model, payload=first)
    sides = {label: partial(measure_launch, generator, label, start) for label, start in starts.items()}
    return interleave(sides, LAUNCHES)


def measure_launch(generator: Generator, label: str, start: Start) -> Figures:
    """Start a server, drive it, and look at its answers; errors as of :func:`driven`."""
    metrics = driven(generator, label, start, callers=CONCURRENCY, inputs=INPUTS)
    cpu = metrics.cpu_ns_per_request
    assert cpu is not None
    return Figures(metrics.throughput_rps.value, cpu.value, metrics.generator.limited)


def driven(
    generator: Generator, label: str, start: Start, *, callers: int, inputs: Sequence[Sequence[float]]
) -> Metrics:
    """What one window of a server gave.

    Raises:
        RuntimeError: it did not start, a request failed, or an answer was not the one to its question.
    """
    with start() as deployment:
        url = f"{deployment.url}{deployment.path}"
        requests = [
            httpx.Request("POST", url, content=encode_instances([row]), headers=dict(JSON_HEADERS)) for row in inputs
        ]
        plan = LoadPlan(
            payload=read_payload(requests),
            schedule=ClosedLoop(callers),
            duration_ns=round(SECONDS * 1e9),
            warmup_ns=round(WARMUP_S * 1e9),
            timeout_ns=10 * 10**9,
            check=partial(check_answers, label),
        )
        runner = LaunchRunner(lambda: deployment, plan, generator, on_progress=lambda _progress: None)
        with on_client_core():
            metrics = Metrics((runner.measure(),))
    if metrics.failures:
        raise RuntimeError(f"{label}: requests failed, by status: {metrics.failures}")
    return metrics


def check_answers(label: str, requests: Sequence[httpx.Request], answers: Sequence[bytes]) -> None:
    """Each answer from under load holds what was asked, as both models give it back.

    BentoML returns the bare list when it batches, every other server ``{"predictions": list}``.
    """
    for request, body in zip(requests, answers, strict=True):
        asked, answer = json.loads(request.content)["instances"], json.loads(body)
        if (answer["predictions"] if isinstance(answer, dict) else answer) != asked:
            raise RuntimeError(f"{label} answered {body[:200]!r} to {request.content[:200]!r}")


@contextlib.contextmanager
def serving_ours(pattern: Pattern, model: str, payload: Payload) -> Iterator[Deployment]:
    """A model under one of our patterns."""
    with tempfile.TemporaryDirectory() as directory:
        startup = StartOptions(60 * 10**9, payload, Path(directory))
        deployment = launch(service_plan(pattern, f"models:{model}"), startup)
        try:
            yield deployment
        finally:
            deployment.close()


# --- what is printed ------------------------------------------------------------------------------------------------


def table_of(
    called: str, found: Mapping[str, Sequence[Figures]], claims: Sequence[Claim], *, notes: Sequence[str]
) -> Table:
    single = throughput(found[SINGLE])
    rows = []
    for label, runs in found.items():
        rates = [run.throughput_rps for run in runs]
        cpu = median(run.cpu_ns_per_request for run in runs)
        rows.append(
            (label, f"{median(rates):,.0f}", spread(rates), f"{median(rates) / single:.3f}", f"{cpu / 1e3:,.0f} µs")
        )
    limited = {label: runs[0].limited for label, runs in found.items() if all(run.limited for run in runs)}
    return Table(
        f"{called}: {CONCURRENCY} requests in flight, median of {LAUNCHES} launches in turn",
        ("service", "req/s", "spread", "it / Single()", "CPU per request"),
        rows,
        claims,
        [*notes, *(f"{label}: {why}" for label, why in limited.items())],
    )


def claims_of_identity(found: Mapping[str, Sequence[Figures]]) -> list[Claim]:
    """Single() against each peer that is there, in the form in which it is fastest."""
    single = throughput(found[SINGLE])
    fastest: dict[str, float] = {}
    for label, peer in PEERS.items():
        if label in found:
            fastest[peer.name] = max(fastest.get(peer.name, 0.0), throughput(found[label]))
    return [
        Claim("throughput of Single(), against the faster FastAPI", single / fastest["fastapi"], at_least=0.85),
        *(
            Claim(f"throughput of Single(), against {label}", single / fastest[name], at_least=1.0)
            for name, label in BEHIND.items()
            if name in fastest
        ),
    ]


def throughput(runs: Sequence[Figures]) -> float:
    return median(run.throughput_rps for run in runs)
