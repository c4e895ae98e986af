"""A change that is accepted, beside a baseline and below the top of a repository; a revision: test_whole_life.py."""

from pathlib import Path

import pytest
from support.project import Run, run_here
from support.repository import Repository
from support.sleeping import MODEL

pytestmark = pytest.mark.processes

TESTS = """
import pytest

from shop import Model

@pytest.mark.perf(model=Model, payload=[1], compare=("rtm",){more})
@pytest.mark.perf(duration="200ms", warmup="100ms", tolerance=0.5, budget="5s")
def test_shop(perf):
    pass
"""


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


def test_a_marker_accepts_until_the_baseline_has_the_change(shop: Repository) -> None:
    assert run_here(shop.top, "--perf-baseline=update", "--perf-settle=off").exit_code == 0
    accepted = ', accept="rtm +900 %: larger model, #1"'
    shop.write(files(0.05, accepted))
    options = ("--perf-settle=off", "--perf-json=results.json")
    green = run_here(shop.top, *options)
    assert state(green) == (0, "rtm +900 %: larger model, #1")
    assert run_here(shop.top, "--perf-baseline=update", "--perf-settle=off").exit_code == 0
    shop.write(files(0.5, accepted))
    again = run_here(shop.top, *options)
    assert state(again) == (1, "")
    assert "the baseline was recorded with it, so remove it" in again.out
    shop.write(files(0.05, accepted.replace("#1", "until 2026-01-31")))
    over = run_here(shop.top, *options)
    assert "that day is over, so remove it" in over.out


def test_a_mistake_in_the_file_ends_the_run_before_anything_is_measured(shop: Repository) -> None:
    shop.write({"perf-accepted.toml": "[[accepted]]\nmetric = 'rtm'\n"})
    run = run_here(shop.top)
    assert run.exit_code == 4
    assert "perf-accepted.toml, table 1 has no test, expected text" in run.err
