"""``python -m pytest_mlpatterns plan`` of a quick model, measured by real processes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.project import Project
from support.repository import Repository

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.history import trial_runs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

MODEL = """
import time

import pytest


@pytest.fixture
def perf_model():
    return lambda batch: [time.sleep(0.004) or value for value in batch]


@pytest.fixture
def perf_payload():
    return [1.0, 2.0]


@pytest.mark.perf(duration="200ms", warmup="0s", budget="4s", launches=3, tolerance=0.5)
def test_quick(perf):
    pass
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Project().with_file("test_quick.py", MODEL).write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_test_is_measured_and_planned(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_runs, "_MOST_RUNS", 1)
    repository = Repository(here)
    for arguments in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "first")):
        repository.git(*arguments)
    assert main(["plan", "test_quick.py", "--at-most", "10min", "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    (plan,) = found["tests"]
    assert plan["test"] == "test_quick.py::test_quick"
    assert plan["launches"] >= 2
    assert plan["pairs"] >= 2
    assert plan["budget_s"] == 4.0
    assert {one["metric"] for one in plan["metrics"]} >= {"rtm", "throughput"}
    assert {one["metric"]: one["tolerance"] for one in plan["metrics"]}["rtm"] == 0.5
    assert "run 1 of up to 1, alone" in shown.err
    assert not (here / "perf-baseline.json").exists()


def test_without_git_a_revision_is_derived(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_runs, "_MOST_RUNS", 1)
    assert main(["plan", "--tolerance", "20%"]) == 0
    text = capsys.readouterr().out
    assert "derived from single launches" in text
    assert "since there is no git repository" in " ".join(text.split())
    assert "20 %" in text
    assert here.exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test_none.py"], "pytest measured no test: it ended with exit code 4"),
        (["-k nothing"], "pytest measured no test: it ended with exit code 5"),
        (["test_quick.py", "--at-most", "1ms"], "no test was measured in 1.00 ms"),
    ],
)
def test_tests_that_are_not_measured_are_an_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["plan", "--", *arguments] if arguments[0].startswith("-k") else ["plan", *arguments]) == 2
    assert message in capsys.readouterr().err
