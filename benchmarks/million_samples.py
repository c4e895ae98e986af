"""What a million samples cost: memory in the generator, and time to metrics."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import psutil
from bench import Claim, Table, on_client_core, our_generator, serving
from services import PATH

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_mlpatterns.loadgen.messages import LoadResult

CLAIM = "a million samples: at most 100 MB in the generator, metrics in at most 0.5 s"
SAMPLES = 1_000_000
TIMEOUT_S = 180.0
REPETITIONS = 5


def measure() -> Iterator[Table]:
    with tempfile.TemporaryDirectory(), serving("tiny") as address, our_generator() as generator:
        messages = read_payload([[float(n % 16) for n in range(64)]]).messages(*address, PATH)
        parts: list[LoadResult] = []
        peak = 0
        rate = 0.0
        seconds = 1.0
        for seconds_of_rate in (1.0, None):  # a second to learn the rate, then as long as a million takes
            seconds = seconds_of_rate or min(1.02 * SAMPLES / rate, TIMEOUT_S)
            job = LoadJob(
                endpoint=Endpoint((address,)),
                messages=messages,
                schedule=ClosedLoop(64),
                duration_ns=round(seconds * 1e9),
                warmup_ns=0,
                timeout_ns=10 * 10**9,
            )
            with on_client_core():
                recorded = generator.run(job, poll_s=1.0, on_poll=lambda _event: None)
            rate = recorded.generator.completed / seconds
            peak = peak_rss_bytes()
            parts = [recorded]
        (recorded,) = parts
        launch = launch_of(recorded)
        taken = []
        for _ in range(REPETITIONS):
            started = time.perf_counter()
            metrics = Metrics((launch,))
            for metric in METRICS.values():
                metrics.estimate(metric)
            taken.append(time.perf_counter() - started)
        count = len(launch.samples.done_ns)
    yield Table(
        f"{count:,} samples",
        ("", "value"),
        [
            ("peak resident memory of the generator", f"{peak / 1e6:.0f} MB"),
            ("time to every metric with its interval", f"{median(taken):.3f} s"),
        ],
        [
            Claim("memory, of 100 MB, per million samples", peak / 1e8 * SAMPLES / count, at_most=1.0),
            Claim("time to metrics, of 0.5 s, per million samples", median(taken) / 0.5 * SAMPLES / count, at_most=1.0),
        ],
    )


def peak_rss_bytes() -> int:
    """High-water mark of the generator, the only child of ours that is not the service."""
    for child in psutil.Process(os.getpid()).children():
        if "pytest_mlpatterns.loadgen.generator" in " ".join(child.cmdline()):
            status = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8")
            return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    raise RuntimeError("the generator is not among our children")


def launch_of(recorded: LoadResult) -> Launch:
    return Launch(
        samples=samples_of(recorded),
        window=recorded.window,
        usage=None,
        stats=None,
        warmup=recorded.warmup,
        generator=recorded.generator,
        cold_start_ns=None,
        request_bytes=np.array([500], dtype=np.int64),
        open_loop=False,
    )
