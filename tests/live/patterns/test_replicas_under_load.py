"""Replicas behind a gateway share a load as theory says, and figures of any pattern that get worse are caught."""

import asyncio
import heapq
import os
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from msgspec.structs import replace
from support.deployed import MS, deployed
from support.project import Project
from support.repository import Repository

from pytest_mlpatterns import Replicated
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.patterns.replica_choice import Choice, TwoChoices
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop, PoissonRate

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]


class Sleeper:
    """Sleeps as long as its input says, in seconds."""

    async def __call__(self, batch: list[Any]) -> list[Any]:
        await asyncio.sleep(sum(batch))
        return batch


class OneIsSlow:
    """The replica that loads first takes a second, the others a hundredth of it."""

    def __init__(self) -> None:
        try:
            (Path(os.environ["NOTES"]) / "slow").touch(exist_ok=False)
            self.takes_s = 1.0
        except FileExistsError:
            self.takes_s = 0.01

    async def __call__(self, batch: list[Any]) -> list[Any]:
        await asyncio.sleep(self.takes_s)
        return [[one, self.takes_s] for one in batch]


class Named:
    """Answers a prompt with its process."""

    async def __call__(self, batch: list[str]) -> list[Any]:
        await asyncio.sleep(0.005)
        return [[prompt, os.getpid()] for prompt in batch]


def layer_of(stats: PatternStats) -> LayerStats:
    (layer,) = stats.layers_named("replicated")
    return layer


def test_two_choices_are_more_even_than_one_as_a_simulation_says(generator: Generator, tmp_path: Path) -> None:
    drawn = random.Random(3)
    payload = [drawn.expovariate(10) for _ in range(2000)]
    plan = LoadPlan(read_payload(payload), PoissonRate(100, seed=5), 5000 * MS, 500 * MS, 10_000 * MS, None)
    pattern = Replicated(4, "two-choices")
    with deployed(pattern, Sleeper, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        launch = runner.measure()
    metrics = Metrics((launch,))
    assert launch.stats is not None
    found, takes_ns = metrics.figure("requests_ahead"), layer_of(launch.stats).mean("replica_ns")
    assert found is not None
    assert takes_ns is not None
    load = rate_of(launch) * takes_ns / 1e9
    assert found.value == pytest.approx(simulated(TwoChoices, load), rel=0.2)
    assert found.value < 0.92 * load / 4  # at random, a request finds the mean number
    assert metrics.replica_share is not None
    assert all(share.value == pytest.approx(0.25, abs=0.06) for share in metrics.replica_share)


def rate_of(launch: Launch) -> float:
    """Requests per second at the replicas, as the gateway counted them."""
    assert launch.stats is not None
    return sum(layer_of(launch.stats).histograms["ahead"].values()) * 1e9 / launch.window.duration_ns


def simulated(rule: Callable[[list[int]], Choice], load: float, replicas: int = 4, requests: int = 20_000) -> float:
    """Mean number of requests ahead of a new one, of replicas that work on all at once.

    ``load`` is the mean number of requests in flight at all of them, with times that are exponential.
    """
    drawn, in_flight = random.Random(1), [0] * replicas
    choice = rule(in_flight)
    ends: list[tuple[float, int]] = []
    ahead, now = [], 0.0
    for _ in range(requests):
        now += drawn.expovariate(load)
        while ends and ends[0][0] <= now:
            in_flight[heapq.heappop(ends)[1]] -= 1
        place = choice.choose(range(replicas), [])
        ahead.append(in_flight[place])
        in_flight[place] += 1
        heapq.heappush(ends, (now + drawn.expovariate(1), place))
    return mean(ahead)


def test_a_slow_replica_gets_few_requests_by_latency(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path))
    slow: list[bool] = []

    def note(_inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        slow.extend(takes_s > 0.5 for _, takes_s in outputs)

    plan = LoadPlan(read_payload(list(range(64))), ClosedLoop(6), 2000 * MS, 1500 * MS, 10_000 * MS, note)
    pattern = Replicated(3, "least-latency")
    with deployed(pattern, OneIsSlow, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        metrics = Metrics((runner.measure(),))
        layer = layer_of(runner.deployment.stats())
    assert metrics.replica_share is not None
    assert min(share.value for share in metrics.replica_share) < 0.15  # each in turn, it would have a third
    assert sum(slow) / len(slow) < 0.15
    assert max(layer.mean(f"replica:{number}") or 0 for number in (1, 2, 3)) > 900 * MS


def prompts(topics: int, each: int) -> list[str]:
    return [f"topic {topic:03}: question {number}" for number in range(each) for topic in range(topics)]


def homes_of(
    callers: int, payload: list[str], generator: Generator, directory: Path
) -> tuple[dict[str, set[int]], Metrics]:
    """The processes that answered each beginning of a prompt, and metrics with the counts since the start."""
    homes: defaultdict[str, set[int]] = defaultdict(set)

    def note(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for given, (prompt, pid) in zip(inputs, outputs, strict=True):
            assert given == prompt
            homes[prompt[:9]].add(pid)

    plan = LoadPlan(read_payload(payload), ClosedLoop(callers), 1500 * MS, 300 * MS, 10_000 * MS, note)
    pattern = Replicated(3, "prefix", prefix_chars=9)
    with deployed(pattern, Named, plan, module=HERE, generator=generator, directory=directory) as runner:
        metrics = Metrics((replace(runner.measure(), stats=runner.deployment.stats()),))
    assert metrics.failures == {}
    return homes, metrics


def test_prompts_that_begin_alike_meet_at_one_replica(generator: Generator, tmp_path: Path) -> None:
    homes, metrics = homes_of(1, prompts(12, 50), generator, tmp_path)
    assert len(homes) == 12
    assert all(len(pids) == 1 for pids in homes.values())
    assert len(set.union(*homes.values())) > 1
    (layer,) = (layer for layer in metrics.layers if layer.layer == "replicated")
    assert layer.counters["prefix_misses"] == 12  # only the first of each is new
    hits = metrics.figure("prefix_hits")
    assert hits.value == pytest.approx(1 - 12 / layer.counted(("prefix_hits", "prefix_misses")))


def test_a_beginning_that_all_prompts_have_does_not_fill_one_replica(generator: Generator, tmp_path: Path) -> None:
    homes, metrics = homes_of(12, prompts(1, 500), generator, tmp_path)
    assert [len(pids) for pids in homes.values()] == [3]
    assert metrics.replica_share is not None
    assert max(share.value for share in metrics.replica_share) < 0.6


REGRESSION = """
import asyncio
import random

import pytest
from pytest_mlpatterns import Cascade, Limited, Pipeline, Replicated

class Model:
    takes_s = {takes}

    async def __call__(self, batch):
        await asyncio.sleep(self.takes_s)
        return batch

class Held(Model):
    takes_s = {held}

pytestmark = pytest.mark.perf(model=Model, payload=list(range(3000)), concurrency=4, duration="1s")

async def rest(batch):
    await asyncio.sleep(random.expovariate(5))  # so that requests come to the replicas as in an open loop
    return batch

@pytest.mark.perf(
    pattern=Pipeline([rest, "model"]) | Replicated(2, "two-choices"), concurrency=16, compare=("requests_ahead",)
)
def test_two_choices(perf):
    pass

@pytest.mark.perf(pattern=Replicated(2, "least-latency"), compare=("replica_time",))
def test_least_latency(perf):
    pass

def template(numbers):
    return [f"{template}" for number in numbers]

@pytest.mark.perf(
    pattern=Pipeline([template, "model"]) | Replicated(2, "prefix", prefix_chars=8), compare=("prefix_hits",)
)
def test_prefix(perf):
    pass

async def short_rest(batch):
    await asyncio.sleep(0.02)
    return batch

@pytest.mark.perf(
    pattern=Pipeline([short_rest, "model"]) | Limited(4, max_waiting=0),
    model=Held,
    concurrency=12,
    overload=True,
    compare=("admitted_share",),
)
def test_limited(perf):
    pass

def guess(batch):
    return [number / {sharpness} for number in batch]

def think(batch):
    return batch

def unsure(given, output):
    return output > 1500

@pytest.mark.perf(pattern=Cascade(guess, think, unsure), concurrency=2, compare=("escalation_share",))
def test_cascade(perf):
    pass
"""
"""Each caller waits for its answer, so that no lag of the generator makes a launch invalid."""


def test_each_figure_that_gets_worse_is_a_regression_of_its_revision(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    before = REGRESSION.format(takes=0.01, held=0.01, sharpness=1.5, template="topic {number % 10}: question {number}")
    repository.commit({"pytest.ini": "[pytest]\n", "test_perf.py": before})
    after = REGRESSION.format(takes=0.03, held=0.1, sharpness=1, template="{number:05} of topic {number % 10}")
    run = Project().with_file("test_perf.py", after).run(repository.top, "--perf-against=main")
    assert run.exit_code == 1
    for name, label in {
        "test_two_choices": "requests in flight at the chosen replica",
        "test_least_latency": "time at a replica",
        "test_prefix": "share of requests at a replica that had their beginning",
        "test_limited": "share of requests let in",
        "test_cascade": "share of inputs that went on",
    }.items():
        assert "RegressionFailure: " in run.failure(name)
        assert label in run.failure(name)
