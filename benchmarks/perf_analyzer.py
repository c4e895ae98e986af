"""Triton's ``perf_analyzer``, unmodified, as a client of a model that we serve, beside our own load generator.

It is a compiled client; both load the same deployment in turns, over REST with binary tensors and over gRPC.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from bench import Claim, Table, interleave, on_client_core, on_server_core, our_generator, run_child
from environments import python_of

from pytest_mlpatterns import Single, Wire
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.measurement.launch import job_for
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.payload import Payload

CLAIM = "perf_analyzer drives our server over REST and gRPC without an error, and its median is within 10 % of ours"
REQUIREMENTS = Path(__file__).resolve().parent / "clients" / "perf_analyzer.txt"
WIRES = {"http": "rest+binary", "grpc": "grpc"}
REPETITIONS = 3
WINDOW_S = 2.0
RUN_S = 120.0
STARTUP_S = 30.0
WEIGHTS = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


def model(batch: list[Any]) -> list[Any]:
    """Some 2 ms of a small network."""
    state = np.asarray(batch, np.float32)
    for _ in range(1_000):
        state = np.tanh(state @ WEIGHTS)
    return list(state)


def measure() -> Iterator[Table]:
    rows, claims = [], []
    with our_generator() as generator:
        for protocol, wire in WIRES.items():
            with serving(wire) as deployment:
                for callers in (1, 16):
                    sides = {
                        "ours": partial(ours, generator, deployment, callers),
                        "theirs": partial(theirs, deployment, protocol, callers),
                    }
                    found = interleave(sides, REPETITIONS)
                    (own_ns, own_rps), (their_ns, their_rps) = (
                        (median(one[0] for one in found[side]), median(one[1] for one in found[side])) for side in sides
                    )
                    ratio = their_ns / own_ns
                    rows.append(
                        (
                            wire,
                            str(callers),
                            f"{own_ns / 1e6:.3f} ms",
                            f"{their_ns / 1e6:.3f} ms",
                            f"{ratio:.3f}",
                            f"{own_rps:.0f}/s",
                            f"{their_rps:.0f}/s",
                        )
                    )
                    claims.append(Claim(f"{wire}, {callers} callers: perf_analyzer's median ÷ ours", ratio, 1.1, 0.9))
    headings = ("wire", "callers", "median, ours", "perf_analyzer", "ratio", "throughput, ours", "perf_analyzer")
    yield Table(f"medians of {REPETITIONS} turns", headings, rows, claims)


def ours(generator: Generator, deployment: Deployment, callers: int) -> tuple[float, float]:
    """Median latency in ns and answers per second, by our generator."""
    plan = LoadPlan(
        payload(deployment.endpoint.wire),
        ClosedLoop(callers),
        round(WINDOW_S * 1e9),
        500_000_000,
        10_000_000_000,
        check=None,
    )
    with on_client_core():
        result = generator.run(
            job_for(deployment, plan, deployment.messages(plan.payload)), poll_s=0.5, on_poll=lambda _event: None
        )
    samples = samples_of(result)
    inside = samples.due_in(result.window)
    if not samples.succeeded[inside].all():
        raise RuntimeError(f"{int((~samples.succeeded[inside]).sum())} requests of our generator failed")
    return float(np.median(samples.latency_ns[inside])), float(inside.sum()) / WINDOW_S


def theirs(deployment: Deployment, protocol: str, callers: int) -> tuple[float, float]:
    """The same by perf_analyzer, which ends with an error if a request fails.

    Raises:
        RuntimeError: it ended with an error, or reported nothing.
    """
    program = Path(python_of("perf_analyzer", REQUIREMENTS)).with_name("perf_analyzer")
    host, port = deployment.addresses[0]
    with tempfile.TemporaryDirectory() as directory, on_client_core():
        report = Path(directory) / "report.csv"
        window = ("--measurement-interval", str(round(WINDOW_S * 1e3)), "--percentile", "50")
        load = (
            "-m",
            deployment.model_name,
            "-u",
            f"{host}:{port}",
            "-i",
            protocol,
            "--concurrency-range",
            str(callers),
        )
        run_child(
            [str(program), *load, *window, "-s", "50", "-f", str(report)], directory=report.parent, timeout_s=RUN_S
        )
        if not report.exists():
            raise RuntimeError("perf_analyzer wrote no report")
        (row,) = csv.DictReader(report.read_text(encoding="utf-8").splitlines())
    return float(row["p50 latency"]) * 1e3, float(row["Inferences/Second"])


def payload(wire: Wire) -> Payload:
    return read_payload([np.ones(64, np.float32)], wire)


@contextmanager
def serving(wire_name: str) -> Iterator[Deployment]:
    """Our server, on the server's core."""
    wire = Wire.parse(wire_name)
    with tempfile.TemporaryDirectory() as directory, on_server_core():
        options = StartOptions(round(STARTUP_S * 1e9), payload(wire), Path(directory), wire=wire)
        deployment = launch(service_plan(Single(), model, [sys.modules[__name__]]), options)
        try:
            yield deployment
        finally:
            deployment.close()
