"""Does the NMRT search find what a deployment sustains? Services of known capacity, ten searches each, beside wrk.

Three services have N places in which a request spends a fixed time; a fourth burns 2 ms of CPU per request. The
reference is the rate that wrk reaches, measured between the searches with several numbers of connections: the median
with the number with which it is highest, since a service can slow down again beyond its best.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median, stdev
from typing import TYPE_CHECKING, Any

from bench import Claim, Table, on_client_core, our_generator, run_child

from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.patterns import Single
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

CLAIM = "NMRT within 3 % of the highest rate that wrk reaches, variation at most 2 %, each search at most 15 s"
SEARCHES = 10
CONNECTIONS = (16, 32, 64)
BODY = '{"instances":[0]}'


class Places:
    """Serves a fixed number of requests at once, each for a fixed time."""

    def __init__(self, places: int, seconds: float) -> None:
        self.places, self.seconds = places, seconds
        self.free: asyncio.Semaphore | None = None

    async def __call__(self, batch: list[Any]) -> list[Any]:
        if self.free is None:
            self.free = asyncio.Semaphore(self.places)
        async with self.free:
            await asyncio.sleep(self.seconds)
        return batch


def burn(batch: list[Any]) -> list[Any]:
    """Two milliseconds of CPU."""
    until = time.perf_counter() + 0.002
    while time.perf_counter() < until:
        pass
    return batch


SERVICES = {
    "1 place of 10 ms": Places(1, 0.01),
    "4 places of 10 ms": Places(4, 0.01),
    "15 places of 10 ms": Places(15, 0.01),
    "2 ms of CPU": burn,
}


def measure() -> Iterator[Table]:
    rows, claims = [], []
    with tempfile.TemporaryDirectory() as name, our_generator() as generator:
        directory = Path(name)
        (directory / "wrk.lua").write_text(
            f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{BODY}'\n",
            encoding="utf-8",
        )
        payload = read_payload([0])
        plan = LoadPlan(payload, ClosedLoop(1), 10**9, 10**8, 10 * 10**9, None)
        for label, model in SERVICES.items():
            recipe, startup = service_plan(Single(), model), StartOptions(20 * 10**9, payload, directory)
            bench = LaunchRunner(partial(launch, recipe, startup), plan, generator, on_progress=lambda _: None)
            try:
                found, knees, seconds, reference = search(bench, directory)
            finally:
                bench.close()
            middle, variation = median(found), stdev(found) / median(found)
            wrk = max(median(rates) for rates in reference.values()) if shutil.which("wrk") else None
            rows.append(
                (
                    label,
                    f"{middle:,.1f}",
                    f"{100 * variation:.2f} %",
                    f"{wrk:,.1f}" if wrk else "–",
                    f"{middle / wrk:.3f}" if wrk else "–",
                    ", ".join(f"{knee}: {knees.count(knee)}" for knee in sorted(set(knees))),
                    f"{median(seconds):.1f}, at most {max(seconds):.1f}",
                )
            )
            claims += [
                *([Claim(f"{label}: against wrk", middle / wrk, at_least=0.97, at_most=1.03)] if wrk else []),
                Claim(f"{label}: coefficient of variation", variation, at_most=0.02),
                Claim(f"{label}: longest search, of 15 s", max(seconds) / 15, at_most=1.0),
            ]
    yield Table(
        f"NMRT by {SEARCHES} searches, in requests/s",
        ("service", "NMRT", "variation", "wrk, at its best", "ratio", "knee: times found", "seconds"),
        rows,
        claims,
    )


def search(bench: LaunchRunner, directory: Path) -> tuple[list[float], list[int], list[float], dict[int, list[float]]]:
    """NMRT, knee and seconds of each search, and wrk's rates by connections, measured before each."""
    found, knees, seconds = [], [], []
    reference: dict[int, list[float]] = {connections: [] for connections in CONNECTIONS}
    deployment = bench.deployment
    for _ in range(SEARCHES):
        if shutil.which("wrk"):
            for connections, rates in reference.items():
                command = ["wrk", "-t1", f"-c{connections}", "-d1s", "-s", "wrk.lua", deployment.url + deployment.path]
                with on_client_core():
                    output = run_child(command, directory=directory).output
                match = re.search(r"Requests/sec:\s+([\d.]+)", output)
                assert match is not None, output
                rates.append(float(match[1]))
        started = time.perf_counter()
        with on_client_core():
            capacity = bench.search(lambda _value: False, None, 15 * 10**9)
        seconds.append(time.perf_counter() - started)
        found.append(capacity.nmrt.value)
        knees.append(capacity.concurrency)
    return found, knees, seconds, reference
