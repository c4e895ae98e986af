"""A change that a team accepts, through the real plugin: from the first red to the day on which it has landed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from support.project import Run, run_here
from support.repository import Repository

from pytest_mlpatterns.cli import main

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

MODEL = """
import time


class Model:
    def __call__(self, batch):
        time.sleep({seconds})
        return batch
"""
TESTS = """
import pytest

from shop import Model


@pytest.fixture
def perf_model():
    return Model


@pytest.mark.perf(duration="200ms", warmup="100ms", tolerance=0.5, budget="5s", payload=[1], compare=("rtm",){more})
def test_shop(perf):
    pass
"""
TEST = "test_shop.py::test_shop"
JSON = "--perf-json=results.json"


def files(seconds: float, more: str = "") -> dict[str, str]:
    return {"shop.py": MODEL.format(seconds=seconds), "test_shop.py": TESTS.format(more=more)}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    repository = Repository.made(tmp_path / "shop")
    ignored = "results.json\n__pycache__\n.pytest_cache\n"
    repository.commit({"pytest.ini": "[pytest]\npythonpath = .\n", ".gitignore": ignored, **files(0.01)})
    monkeypatch.chdir(repository.top)
    return repository


def state(run: Run) -> tuple[int, str]:
    """The exit code, and the acceptance that the verdict owes its pass."""
    (result,) = run.json("results.json")["results"]
    return run.exit_code, next((one["accepted"] for one in result["verdicts"] if one["metric"] == "rtm"), "")


def test_a_change_is_accepted_lands_and_ends(shop: Repository) -> None:
    shop.write(files(0.03))
    red = run_here(shop.top, "--perf-against=main", JSON)
    assert state(red) == (1, "")
    assert f"python -m pytest_mlpatterns accept results.json {TEST} --reason WHY" in red.out

    assert main(["accept", "results.json", TEST, "--reason", "larger model", "--ceiling", "900%"]) == 0
    green = run_here(shop.top, "--perf-against=main", JSON, environment={"GITHUB_ACTIONS": "true"})
    assert state(green) == (0, "rtm +900 %: larger model")
    assert re.search(r"(mean latency|RTM) .* → .*; accepted is rtm \+900 %: larger model", green.out)
    assert "::notice file=test_shop.py" in green.out

    shop.write(files(0.5))
    beyond = run_here(shop.top, "--perf-against=main", JSON)
    assert state(beyond) == (1, "")
    assert "accepted was rtm +900 %: larger model" in beyond.out

    shop.git("add", "--all")
    shop.git("commit", "--quiet", "--message", "A larger model, and what it costs")
    shop.write(files(2.0))
    again = run_here(shop.top, "--perf-against=main", JSON)
    assert state(again) == (1, "")
    assert "main has it already, so remove it" in again.out
    assert main(["accept", "results.json", "--prune"]) == 0
    assert "accepted" not in (shop.top / "perf-accepted.toml").read_text(encoding="utf-8")


def test_a_marker_accepts_until_the_baseline_has_the_change(shop: Repository) -> None:
    assert run_here(shop.top, "--perf-baseline=update", "--perf-settle=off").exit_code == 0
    accepted = ', accept="rtm +900 %: larger model, #1"'
    shop.write(files(0.03, accepted))
    options = ("--perf-settle=off", JSON)
    green = run_here(shop.top, *options)
    assert state(green) == (0, "rtm +900 %: larger model, #1")
    assert run_here(shop.top, "--perf-baseline=update", "--perf-settle=off").exit_code == 0
    shop.write(files(0.5, accepted))
    again = run_here(shop.top, *options)
    assert state(again) == (1, "")
    assert "the baseline was recorded with it, so remove it" in again.out
    shop.write(files(0.03, accepted.replace("#1", "until 2026-01-31")))
    over = run_here(shop.top, *options)
    assert "that day is over, so remove it" in over.out


def test_a_mistake_in_the_file_ends_the_run_before_anything_is_measured(shop: Repository) -> None:
    shop.write({"perf-accepted.toml": "[[accepted]]\nmetric = 'rtm'\n"})
    run = run_here(shop.top)
    assert run.exit_code == 4
    assert "perf-accepted.toml, table 1 has no test, expected text" in run.err
