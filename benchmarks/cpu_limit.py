"""Does a deployment get the processor that ``cpus=`` names, and does ASL relate to that? The model is always busy."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import Claim, Table, our_generator

from pytest_mlpatterns.analysis.health.machine import crowding_note
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.engines.engine import launch
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.patterns import Replicated, Single
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_mlpatterns.patterns import Pattern

CLAIM = "a deployment uses at most the cores that it was given, and ASL is what it uses of them"
CASES: tuple[tuple[Pattern, float], ...] = (
    (Replicated(2), 0.25),
    (Single(), 0.25),
    (Single(), 0.5),
    (Single(), 1),
    (Replicated(2), 1),
)
BUSY_S = 0.005


def busy(batch: list[Any]) -> list[Any]:
    """Uses the processor for a fixed CPU time."""
    until = time.thread_time() + BUSY_S
    while time.thread_time() < until:
        pass
    return batch


def measure() -> Iterator[Table]:
    rows: list[tuple[str, ...]] = []
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as name, our_generator() as generator:
        payload = read_payload([0])
        plan = LoadPlan(payload, ClosedLoop(4), 2 * 10**9, 3 * 10**8, 10 * 10**9, None)
        for pattern, cpus in CASES:
            startup = StartOptions(20 * 10**9, payload, Path(name), cpus=cpus)
            start = partial(launch, service_plan(pattern, busy), startup)
            runner = LaunchRunner(start, plan, generator, on_progress=lambda _: None)
            label = f"{pattern}, cpus={cpus:g}"
            try:
                metrics = Metrics((runner.measure(),))
            except SettingError as error:  # no control group can be created here
                rows.append((label, str(error), "–", "–", "–"))
                continue
            finally:
                runner.close()
            cpu, asl = metrics.cpu_ns_per_request, metrics.asl_ratio
            assert cpu is not None
            assert asl is not None
            used = cpu.value * metrics.throughput_rps.value / 1e9
            crowded = crowding_note(metrics.launches) is not None
            rows.append((label, f"{used:.3f}", f"{used / cpus:.3f}", f"{asl.value:.3f}", "yes" if crowded else "no"))
            claims.append(Claim(f"{label}: ASL", asl.value, at_most=1.05))
            claims.append(Claim(f"{label}: ASL × cores over the cores used", asl.value * cpus / used, 1.05, 0.95))
    headings = ("deployment", "cores used", "of those given", "ASL", "threads wait for each other")
    yield Table("a model that is always busy, 4 requests in flight", headings, rows, claims)
