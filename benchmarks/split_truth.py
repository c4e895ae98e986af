"""Does the split of a latency find where the time goes? Whole pytest runs of every pattern, with known times.

The models run for 2 ms and sleep for 3 ms. Waits in a queue follow by arithmetic: where four callers keep a process
busy, each takes four of its turns, of which one is its own. Each part must be within 5 %, or 50 µs, of what is known,
and the parts must add up to the latency. A busy machine sleeps longer, and its timers are late.
"""

from __future__ import annotations

import tempfile
import timeit
from pathlib import Path
from textwrap import dedent
from time import thread_time_ns
from typing import TYPE_CHECKING, Any

from bench import Claim, Table
from plugin_runs import run_pytest

from pytest_mlpatterns.patterns.request_clock import RequestClock, set_clock
from pytest_mlpatterns.patterns.tally import SplitTally
from pytest_mlpatterns.serving.timed_model import ModelMeter, TimedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CLAIM = "each part of a latency within 5 % or 50 µs of what is known, for at most 10 µs a request"
CPU_MS, SLEEP_MS, SLOW_MS = 2.0, 3.0, 20.0
CALLERS = 4
WITHIN, WITHIN_MS = 0.05, 0.05
CALLS = 100_000
"""Environment variables of the caller that the runs do without."""
MODELS = f"""
    import asyncio
    import time


    def spin():
        end = time.thread_time() + {CPU_MS / 1e3}
        while time.thread_time() < end:
            pass


    def model(batch):
        spin()
        time.sleep({SLEEP_MS / 1e3})
        return batch


    def spinning(batch):
        spin()
        return batch


    def slow(batch):
        time.sleep({SLOW_MS / 1e3})
        return batch


    async def coroutine(batch):
        spin()
        await asyncio.sleep({SLEEP_MS / 1e3})
        return batch


    async def blocking(batch):
        time.sleep({SLEEP_MS / 1e3})
        return batch


    def stream(batch):
        for number in range(5):
            spin()
            yield number


    class Steps:
        def start(self, given):
            return [5]

        def step(self, active):
            spin()
            for state in active:
                state[0] -= 1
            return [state[0] if state[0] >= 0 else None for state in active]
"""
BEFORE_QUEUE = ("hop", "wire", "server", "socket")
"""Parts of a request while the process that others wait for does not work for it."""
BOTH = {"model_cpu": CPU_MS, "model_wait": SLEEP_MS}
CASES: Mapping[str, tuple[str, str, str, Mapping[str, float | tuple[str, ...]]]] = {
    "one caller": ("model", "Single()", "concurrency=1", BOTH),
    "four callers of one process": ("model", "Single()", "concurrency=4", {**BOTH, "socket": ()}),
    "open loop": ("model", "Single()", "load=ConstantRate(50)", BOTH),
    "gRPC": ("model", "Single()", "concurrency=1, wire='grpc'", BOTH),
    "coroutine, four callers": ("coroutine", "Single()", "concurrency=4", {"model_cpu": CPU_MS}),
    "a coroutine that blocks": ("blocking", "Single()", "concurrency=1", {"model_block": SLEEP_MS}),
    "replicas": ("model", "Replicated(2)", "concurrency=2", BOTH),
    "gateway, four callers": ("model", "Microservice()", "concurrency=4", {**BOTH, "queue_wait": BEFORE_QUEUE}),
    "batches of one": ("model", "Batched(max_wait='4ms')", "concurrency=1", {**BOTH, "batch_wait": 4.0}),
    "batches of four": ("model", "Batched(max_batch_size=4, max_wait='50ms')", "concurrency=4", BOTH),
    "cache that misses": ("model", "Cached(max_entries=1)", "concurrency=1", BOTH),
    "cache that hits": ("model", "Cached()", "concurrency=1", {"model_cpu": 0.0, "model_wait": 0.0}),
    "queue, four callers": ("model", "Queued()", "concurrency=4", {**BOTH, "queue_wait": BEFORE_QUEUE}),
    "stages": (
        "model",
        "Pipeline(stages=[spinning, 'model'])",
        "concurrency=1",
        {"spinning/model_cpu": CPU_MS, "model/model_cpu": CPU_MS, "model/model_wait": SLEEP_MS},
    ),
    "ensemble": (
        "slow",
        "Ensemble(models=[spinning, 'model'])",
        "concurrency=1",
        {"model/model_wait": SLOW_MS, "spinning/model_cpu": 0.0},
    ),
    "stream: TTFT": ("stream", "Single()", "concurrency=1", {"model_cpu": CPU_MS}),
    "stream: TPOT": ("stream", "Single()", "concurrency=1", {"model_cpu": CPU_MS}),
    "continuous: TTFT": ("Steps", "Continuous()", "concurrency=1", {"model_cpu": CPU_MS}),
    "continuous: TPOT": ("Steps", "Continuous()", "concurrency=1", {"model_cpu": CPU_MS * 5 / 4}),  # the last step ends
}
"""What is measured, the model, its pattern, its load, and its known parts in milliseconds.

Of a wait for other callers the parts are named that are no turn of the process.
"""
TESTS = """
    import models
    import pytest
    from models import *
    from pytest_mlpatterns import *


    @pytest.mark.perf(payload=[[1.0], [2.0]], duration="2s")
    @pytest.mark.parametrize("case", [
        {cases}
    ])
    def test_case(perf, case):
        assert perf.metrics.requests
"""


def measured() -> dict[str, dict[str, Any]]:
    """The splits of each case, by latency."""
    marked = [
        f"pytest.param({name!r}, marks=pytest.mark.perf(model=models.{model}, pattern={pattern}, {load})),"
        for name, (model, pattern, load, _) in CASES.items()
    ]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "models.py").write_text(dedent(MODELS), encoding="utf-8")
        tests = dedent(TESTS).format(cases="\n    ".join(marked))
        (place / "test_models.py").write_text(tests, encoding="utf-8")
        results = run_pytest(place, "--perf-baseline=off", "-pno:cacheprovider").results
    return {result["test"].partition("[")[2].removesuffix("]"): result["split"] for result in results}


def rows_of(name: str, splits: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float, float]]:
    """Case, part, known time, measured time, and its error over what is allowed."""
    metric = name.rpartition(": ")[2].lower() if ": " in name else "rtm"
    split = splits[metric]
    found = {f"{part['of']}/{part['name']}".lstrip("/"): part["mean_ns"] / 1e6 for part in split["parts"]}
    whole_ms = split["mean_ns"] / 1e6
    for part, known in CASES[name][3].items():
        if isinstance(known, tuple):
            known_ms = whole_ms * (CALLERS - 1) / CALLERS - sum(found.get(other, 0.0) for other in known)
        else:
            known_ms = known
        error = abs(found.get(part, 0.0) - known_ms) / max(WITHIN * known_ms, WITHIN_MS)
        yield name, part, known_ms, found.get(part, 0.0), error
    yield name, "sum", whole_ms, sum(found.values()), abs(sum(found.values()) - whole_ms) / (WITHIN * whole_ms)


def cost_us() -> float:
    """Microseconds that a request of one call costs more with a clock, its times and their counting."""
    tally, model = SplitTally(0), TimedModel(int, ModelMeter())

    def timed() -> None:
        clock = RequestClock()
        set_clock(clock)
        model()
        clock.add("wire", 1)
        clock.add("wire", 1)
        tally.add(clock.parts, 1_000_000)

    try:
        return cost_of(timed) - cost_of(int)
    finally:
        set_clock(None)


def cost_of(call: Callable[[], object]) -> float:
    """Microseconds of a call, at best."""
    return min(timeit.repeat(call, number=CALLS, repeat=5)) * 1e6 / CALLS


def measure() -> Iterator[Table]:
    found = measured()
    rows = [row for name in CASES if name in found for row in rows_of(name, found[name])]
    yield Table(
        "parts of the latency, known and measured",
        ("case", "part", "known", "measured", "error of what is allowed"),
        [
            (name, part, f"{known:.2f} ms", f"{is_ms:.2f} ms", f"{error:.0%}")
            for name, part, known, is_ms, error in rows
        ],
        [
            Claim("cases measured", len(found), at_least=len(CASES)),
            Claim("worst error of a part over 5 % of it, or 50 µs", max(row[-1] for row in rows), at_most=1),
        ],
    )
    cost = cost_us()
    yield Table(
        "what the split costs",
        ("", "cost"),
        [
            ("a request of one call", f"{cost:.2f} µs"),
            ("of that, two readings of the thread's CPU clock", f"{2 * cost_of(thread_time_ns):.2f} µs"),
        ],
        [Claim("microseconds a request", cost, at_most=10)],
    )
