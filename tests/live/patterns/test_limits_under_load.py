"""Limits under a load that they refuse in part: as the Erlang loss formula says."""

import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from support.deployed import MS, deployed
from support.queueing import erlang_loss

from pytest_mlpatterns import Limited
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import PoissonRate

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
MEAN_S = 0.02
PLACES = 4
RATE_RPS = 300


class Sleeper:
    """Sleeps as long as its input says, in seconds, and answers how long that took."""

    async def __call__(self, batch: list[Any]) -> list[Any]:
        (asked,) = batch
        began = perf_counter()
        await asyncio.sleep(asked["seconds"])
        return [perf_counter() - began]


def test_what_a_limit_refuses_is_the_loss_of_erlang(generator: Generator, tmp_path: Path) -> None:
    drawn = random.Random(3)
    payload = [{"seconds": drawn.expovariate(1 / MEAN_S)} for _ in range(1000)]
    taken: list[float] = []

    def note(_inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        taken.extend(outputs)

    plan = LoadPlan(
        read_payload(payload), PoissonRate(RATE_RPS, seed=5), 8000 * MS, 500 * MS, 10_000 * MS, note, overloads=True
    )
    pattern = Limited(PLACES, max_waiting=0)
    with deployed(pattern, Sleeper, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        metrics = Metrics((runner.measure(),))
    assert set(metrics.failures) == {503}
    admitted = metrics.figure("admitted_share")
    assert admitted is not None
    answered = metrics.launches[0].samples
    held_s = sum(taken) / len(taken), answered.latency_ns[answered.succeeded].mean() / 1e9
    least, most = (erlang_loss(PLACES, RATE_RPS * seconds) for seconds in held_s)  # a place is held for a time between
    assert least - 0.03 <= 1 - admitted.value <= most + 0.03
