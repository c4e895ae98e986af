"""Tests with several reports: subtests, and attempts that pytest-rerunfailures repeats."""

from pathlib import Path

import pytest
from support.project import Project

pytestmark = pytest.mark.processes

EMPTY = Project()

SUBTESTS = """
def test_it(perf, subtests):
    with subtests.test("first"):
        assert perf.predict(1) == 2
    with subtests.test("second"):
        assert perf.predict(1) == 3
"""


@pytest.mark.parametrize("workers", [[], ["-n1"]], ids=["serial", "distributed"])
def test_a_test_with_a_failed_subtest_failed_and_gives_one_result(tmp_path: Path, workers: list[str]) -> None:
    run = EMPTY.with_tests(SUBTESTS).run(
        tmp_path, "--perf-json=results.json", "--perf-baseline=update", *workers, environment={"GITHUB_ACTIONS": "1"}
    )
    assert run.exit_code == 1
    (result,) = run.json("results.json")["results"]
    assert result["passed"] is False
    assert "baseline not updated: no perf test passed" in run.out
    assert not (tmp_path / "perf-baseline.json").exists()
    (annotation,) = [line for line in run.out.splitlines() if line.startswith("::error")]
    assert "a subtest failed" in annotation


RERUN = """
import pathlib

ATTEMPTS = pathlib.Path(__file__).with_name("attempts")

class Hiccups:
    def __init__(self):
        ATTEMPTS.touch()
        if len(ATTEMPTS.read_text()) == 0:
            ATTEMPTS.write_text("x")
            raise OSError("the disk was not there yet")

    def __call__(self, batch):
        return [2 * value for value in batch]

@pytest.mark.perf(model=Hiccups)
def test_it(perf):
    assert perf.predict(1) == 2
    attempt = len(ATTEMPTS.read_text())
    ATTEMPTS.write_text("x" * (attempt + 1))
    assert perf.metrics.requests >= 1
    assert attempt == 2
"""


def test_an_attempt_that_is_rerun_leaves_no_row_no_annotation_and_no_error(tmp_path: Path) -> None:
    """The first attempt cannot start the model, the second one fails after it was measured, the third one passes."""
    run = EMPTY.with_tests(RERUN).run(
        tmp_path,
        "-ppytest_rerunfailures",
        "--reruns=3",
        "--perf-json=results.json",
        "--junit-xml=junit.xml",
        environment={"GITHUB_ACTIONS": "1"},
    )
    assert run.exit_code == 0
    assert run.outcomes["rerun"] == 2
    (result,) = run.json("results.json")["results"]
    assert result["passed"] is True
    assert "::error" not in run.out
    attempts = (tmp_path / "junit.xml").read_text(encoding="utf-8").split("<testcase")[1:]
    assert [attempt.count('name="perf_rtm_ns"') for attempt in attempts] == [0, 1, 1]
