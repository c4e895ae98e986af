"""Classes of callers against a service that is slow for one of them: shares, rates and figures of each class, right
answers, and a regression of one class alone, which is caught beside a revision and beside a baseline."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.deployed import MS, deployed
from support.project import RECORD, Project
from support.repository import Repository

from pytest_mlpatterns import ClosedLoop, Mix, PoissonRate, Replicated, Single
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.workload.mixed_payload import read_mix
from pytest_mlpatterns.workload.plan import LoadPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns import Pattern
    from pytest_mlpatterns.loadgen.generator import Generator

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
GOLD_MS, BULK_MS = 2, 20
GOLD_RPS = 60


class Tiered:
    """Takes as many milliseconds as its input asks for, and logs of which class the input was."""

    async def __call__(self, batch: list[Any]) -> list[Any]:
        for one in batch:
            await asyncio.sleep(one["ms"] / 1000)
            with Path(one["log"]).open("a") as log:
                log.write(f"{one['class']}\n")
        return [3 * one["number"] for one in batch]


def right(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    assert {one["class"] for one in inputs} == {"gold", "bulk"}
    assert list(outputs) == [3 * one["number"] for one in inputs]


@pytest.mark.parametrize("pattern", [Single(), Replicated(2)], ids=str)
def test_classes_have_their_own_rates_and_times(pattern: Pattern, generator: Generator, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"

    def inputs(name: str, ms: int) -> list[dict[str, Any]]:
        return [{"class": name, "ms": ms, "number": number, "log": str(log)} for number in range(20)]

    mix = Mix(
        {
            "gold": (PoissonRate(GOLD_RPS, seed=4), inputs("gold", GOLD_MS)),
            "bulk": (ClosedLoop(1), inputs("bulk", BULK_MS)),
        }
    )
    plan = LoadPlan(read_mix(mix, None), mix, 3000 * MS, 300 * MS, 10_000 * MS, right)
    with deployed(pattern, Tiered, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        assert runner.deployment.cold_start_ns
        log.write_text("")  # the request that showed that it is ready is not part of the load
        launch = runner.measure()

    metrics = Metrics((launch,))
    gold, bulk = metrics.of("gold"), metrics.of("bulk")
    assert metrics.classes == ("gold", "bulk")
    assert metrics.requests == gold.requests + bulk.requests
    assert metrics.failures == {}
    seen = Counter(log.read_text().split())
    assert dict(seen) == dict(Counter(np.where(launch.samples.request < 20, "gold", "bulk").tolist()))
    assert gold.requests == pytest.approx(3 * GOLD_RPS, abs=6 * (3 * GOLD_RPS) ** 0.5)
    due_ns = launch.samples.due_ns[launch.samples.request < 20]
    arrivals = PoissonRate(GOLD_RPS, seed=4).arrivals()
    first_ns = int(np.sort(due_ns)[0]) - next(arrivals)
    assert np.sort(due_ns)[1:] - first_ns == pytest.approx([next(arrivals) for _ in range(due_ns.size - 1)], abs=1)
    assert bulk.rtm_ns.value >= BULK_MS * MS
    assert gold.rtm_ns.value < bulk.rtm_ns.value
    assert bulk.throughput_rps.value <= 1000 / BULK_MS
    assert gold.asl_ratio is None
    assert metrics.cpu_ns_per_request is not None


PERF = """
import time

import pytest
from pytest_mlpatterns import ClosedLoop, Mix


class Model:
    def __call__(self, batch):
        time.sleep({gold} if batch[0] < 100 else 0.02)
        return [2 * value for value in batch]


@pytest.fixture
def perf_model():
    return Model


@pytest.fixture
def perf_payload():
    return list(range(10))


def right(inputs, outputs):
    return outputs == [2 * value for value in inputs]


@pytest.mark.perf(
    pattern="replicated(replicas=2, balance='least-outstanding')",
    load=Mix({{"gold": ClosedLoop(1, think_time="20ms"), "bulk": (ClosedLoop(1), [100, 101])}}),
    check=right,
    compare=("rtm", "error_rate"),
)
def test_mixed(perf):
    pass
"""


def test_one_class_that_gets_slower_is_a_regression_of_its_revision(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    repository.commit({"pytest.ini": "[pytest]\n", "test_perf.py": PERF.format(gold=0.004)})

    project = Project().with_file("test_perf.py", PERF.format(gold=0.012))
    run = project.run(repository.top, "--perf-against=main", "--perf-json=found.json")

    assert run.exit_code == 1, run.out
    assert re.search("RegressionFailure: (mean latency|RTM) of gold", run.failure("test_mixed"))
    (result,) = run.json("found.json")["results"]
    verdicts = {one["metric"]: one["outcome"] for one in result["verdicts"] if one["against"] == "revision"}
    assert verdicts["rtm[gold]"] == "fail"
    assert verdicts["rtm[bulk]"] != "fail"
    assert "rtm" not in verdicts


def test_one_class_that_gets_slower_is_a_regression_of_its_baseline(tmp_path: Path) -> None:
    recorded = Project().with_file("test_perf.py", PERF.format(gold=0.004)).run(tmp_path, *RECORD)
    assert recorded.exit_code == 0, recorded.out

    slower = Project().with_file("test_perf.py", PERF.format(gold=0.03))
    run = slower.run(tmp_path, "--perf-noise=trust", "--perf-settle=off", "--perf-json=found.json")

    assert run.exit_code == 1, run.out
    assert "RegressionFailure" in run.failure("test_mixed")
    (result,) = run.json("found.json")["results"]
    verdicts = {one["metric"]: one["outcome"] for one in result["verdicts"] if one["against"] == "baseline"}
    assert verdicts["rtm[gold]"] == "fail"
    assert {one["name"]: one["failed"] for one in result["classes"]} == {"gold": 0, "bulk": 0}
    assert any(note.startswith("gold (closed(1, think_time=20ms)): ") for note in result["notes"])
