"""One test file on the local engine and on Ray: the same regression is caught, against the baseline and a revision."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from support.nightly import rarer
from support.project import RECORD, Run, run_here
from support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import ThreeNodes

MODEL = """
import asyncio


class Model:
    async def __call__(self, batch):
        await asyncio.sleep({seconds})
        return batch
"""
"""It needs no processor, so that several requests at once give enough of them in a short time on a busy machine.

The slow one answers three times in a window, so that a machine that stalls for most of it still has a figure.
"""
TESTS = """
import pytest

from shop.model import Model


@pytest.fixture
def perf_model():
    return Model


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


@pytest.mark.perf(concurrency=8, duration="1500ms", warmup="100ms", launches=3, budget="15s")
def test_shop(perf):
    pass
"""


def files(seconds: float) -> dict[str, str]:
    return {
        "pytest.ini": "[pytest]\npythonpath = src\n",
        "src/shop/__init__.py": "",
        "src/shop/model.py": MODEL.format(seconds=seconds),
        "test_shop.py": TESTS,
    }


@pytest.fixture(scope="module", params=["ray", *rarer("local")])
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What is different between the two engines: the options of the run."""
    if request.param == "local":
        return ("--perf-engine=local",)
    three_nodes: ThreeNodes = request.getfixturevalue("three_nodes")
    return ("--perf-engine=ray", f"--perf-ray-address={three_nodes.address}")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, options: tuple[str, ...]) -> Repository:
    """A repository whose committed model takes 50 ms, with a baseline; the model in its working tree takes 400 ms."""
    repository = Repository.made(tmp_path_factory.mktemp("same") / "shop")
    repository.commit(files(0.05))
    recorded = run(repository.top, *options, *RECORD)
    assert recorded.exit_code == 0
    assert "new, median latency" in recorded.out
    repository.write(files(0.4))
    return repository


def run(top: Path, *arguments: str) -> Run:
    return run_here(top, *arguments, environment={"RAY_AUTH_MODE": "disabled"})


@pytest.mark.parametrize(
    ("reference", "against"), [("baseline=check", "the baseline's commit ("), *rarer(("against=main", "main ("))]
)
def test_a_slower_model_is_caught(shop: Repository, options: tuple[str, ...], reference: str, against: str) -> None:
    found = run(shop.top, *options, f"--perf-{reference}", "--perf-json=results.json")
    assert found.exit_code == 1
    judged = "((mean|median) latency|throughput)"  # which of them is known better or sure first, the machine decides
    assert re.search(f"RegressionFailure: {judged} ", found.out)
    assert found.facts("test_shop")["against"].startswith(against)
    (result,) = found.json("results.json")["results"]
    engine = options[0].partition("=")[2]
    assert result["setup"]["engine"] == ("" if engine == "local" else engine)
    assert bool(result["cluster"]) is bool(result["nodes"]) is (engine == "ray")
    assert len(shop.worktrees()) == 1


def test_a_baseline_of_the_cluster_is_an_entry_of_its_own(shop: Repository, options: tuple[str, ...]) -> None:
    stored = json.loads((shop.top / "perf-baseline.json").read_text(encoding="utf-8"))
    (machines,) = stored["tests"].values()
    (machine,) = machines
    assert machine.startswith("Ray cluster of 3 × ") is (options[0] == "--perf-engine=ray")
