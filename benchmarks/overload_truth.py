"""What happens beyond the NMRT, against queueing theory: a service that collapses, and ones that shed.

Every service has one place in which a request spends a fixed time, so that with even arrivals every wait is known. An
unbounded queue that serves in turn lets a request that is due t after the start of a load of ρ times the NMRT wait for
(ρ - 1) t; a bounded one answers as many as it can serve, and rejects the rest. Last, a model that blocks its event
loop: such a server answers on the connections that it has and lets new ones wait, so no queueing theory is claimed.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import Claim, Table, on_client_core, our_generator

from pytest_mlpatterns.analysis.capacity.overload import OverloadPlan, overload_of
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.patterns import Queued, Single
from pytest_mlpatterns.records.capacity import Behaviour
from pytest_mlpatterns.reports.text.notes import describe_overload, overload_picture
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_mlpatterns.analysis.capacity.overload import OfferedLoad
    from pytest_mlpatterns.patterns import Pattern
    from pytest_mlpatterns.records.capacity import Overload

CLAIM = "goodput within 5 % of queueing theory; a bounded queue keeps 0.9 of its NMRT at twice the load"
SERVICE_S, LIMIT_S = 0.01, 0.1
TRIES = 3
PLAN = OverloadPlan((0.5, 0.8, 1.0, 1.25, 1.5, 2.0), step_s=2.0, watched_s=12.0)


class InTurn:
    """Serves one request at a time, in turn, for a fixed time; its queue has no bound."""

    def __init__(self) -> None:
        self.free: asyncio.Semaphore | None = None

    async def __call__(self, batch: list[Any]) -> list[Any]:
        if self.free is None:
            self.free = asyncio.Semaphore(1)
        async with self.free:
            await asyncio.sleep(SERVICE_S)
        return batch


def blocking(batch: list[Any]) -> list[Any]:
    """Blocks its process for a fixed time."""
    time.sleep(SERVICE_S)
    return batch


SERVICES: dict[str, tuple[Pattern, Any, bool]] = {
    "Single, serves in turn": (Single(), InTurn(), False),
    "Queued(capacity=4)": (Queued(capacity=4), blocking, True),
    "Single, blocks": (Single(), blocking, False),
}


def measure() -> Iterator[Table]:
    rows: list[tuple[str, ...]] = []
    claims: list[Claim] = []
    curves: list[str] = []
    with tempfile.TemporaryDirectory() as name, our_generator() as generator:
        payload = read_payload([0])
        plan = LoadPlan(payload, ClosedLoop(1), 10**9, 10**8, 10 * 10**9, None)
        for label, (pattern, model, bounded) in SERVICES.items():
            startup = StartOptions(20 * 10**9, payload, Path(name))
            start = partial(launch, service_plan(pattern, model), startup)
            runner = LaunchRunner(start, plan, generator, on_progress=lambda _: None)
            try:
                loads, found = quiet(runner)
            finally:
                runner.close()
            served = served_ratio(loads[-1], found.nmrt_rps)
            known = bounded or model is not blocking
            rows += rows_of(label, found, None if not known else theory_of(served, bounded=bounded))
            curves.append("\n".join([f"{label}: {describe_overload(found)}", *overload_picture(found)]))
            claims += claims_of(label, found, served, bounded=bounded) if known else []
    print("\n\n".join(curves), end="\n\n")
    headings = ("service", "× NMRT", "goodput", "theory", "rejected", "theory", "late", "p99")
    yield Table("goodput and rejected requests, as shares of the NMRT and of the requests", headings, rows, claims)


def quiet(runner: LaunchRunner) -> tuple[tuple[OfferedLoad, ...], Overload]:
    """The loads and what they say; measured again, a few times at most, while other processes use the machine."""
    for _ in range(TRIES):
        with on_client_core():
            nmrt = runner.search(lambda _value: False, None, 15 * 10**9).nmrt.value
            loads = runner.offer_overload(PLAN, nmrt)
        if not any(load.busy for load in loads):
            break
    return loads, overload_of(loads, nmrt, LIMIT_S * 1e9)


def served_ratio(peak: OfferedLoad, nmrt: float) -> float:
    """What the service serves at the peak, in time or late, as a share of the NMRT, which may be some percent off."""
    done_ns = peak.samples.done_ns[peak.samples.succeeded]
    inside = (done_ns >= peak.window.start_ns) & (done_ns < peak.window.end_ns)
    return float(inside.sum()) * 1e9 / peak.window.duration_ns / nmrt


def theory_of(served: float, *, bounded: bool) -> Callable[[float], tuple[float, float]]:
    """By the load as a multiple of the NMRT: goodput in the last two thirds of a step, and the rejected share."""

    def expected(ratio: float) -> tuple[float, float]:
        if ratio <= min(served, 1.0):
            return ratio, 0.0
        if bounded:
            return min(ratio, served), max(1 - served / ratio, 0.0)
        last_s = (LIMIT_S - SERVICE_S) / max(ratio / served - 1, 1e-9)
        return ratio * max(min(last_s, PLAN.step_s) - PLAN.step_s / 3, 0.0) / (2 / 3 * PLAN.step_s), 0.0

    return expected


def rows_of(
    label: str, found: Overload, theory: Callable[[float], tuple[float, float]] | None
) -> Iterator[tuple[str, ...]]:
    for step in found.steps:
        expected = ("–", "–") if theory is None else tuple(f"{share:.3f}" for share in theory(step.load_ratio))
        yield (
            label,
            f"{step.load_ratio:g}",
            f"{step.goodput_rps / found.nmrt_rps:.3f}",
            expected[0],
            f"{step.rejected_ratio:.3f}",
            expected[1],
            f"{step.late_ratio:.3f}",
            "–" if step.p99_ns is None else f"{step.p99_ns / 1e6:.0f} ms",
        )


def claims_of(label: str, found: Overload, served: float, *, bounded: bool) -> Iterator[Claim]:
    theory = theory_of(served, bounded=bounded)
    apart = max(abs(step.goodput_rps / found.nmrt_rps - theory(step.load_ratio)[0]) for step in found.steps)
    yield Claim(f"{label}: goodput, largest distance from theory", apart, at_most=0.05)
    if bounded:
        yield Claim(f"{label}: goodput at twice the NMRT", found.goodput_ratio(2.0), at_least=0.9)
        yield Claim(f"{label}: sheds (1) or not (0)", float(found.behaviour is Behaviour.SHEDS), at_least=1.0)
        return
    yield Claim(f"{label}: collapses (1) or not (0)", float(found.behaviour is Behaviour.COLLAPSES), at_least=1.0)
    due_s = PLAN.step_s - 0.01 * 2 / 3 * PLAN.step_s  # 99 % of the requests of the step were due before
    p99_s = (PLAN.ratios[-1] / served - 1) * due_s + SERVICE_S
    yield Claim(
        f"{label}: p99 at the peak against theory", (found.peak.p99_ns or 0) / 1e9 / p99_s, at_least=0.95, at_most=1.05
    )
    backlog_s = PLAN.step_s * (PLAN.ratios[-1] / served - 1)
    expected_s = (backlog_s - (LIMIT_S - SERVICE_S)) / (1 - 0.8 / served)
    recovery_s = 0.0 if found.recovery_ns is None else found.recovery_ns / 1e9
    yield Claim(f"{label}: time to recover against theory", recovery_s / expected_s, at_least=0.9, at_most=1.1)
