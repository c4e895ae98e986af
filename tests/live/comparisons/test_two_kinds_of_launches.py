"""A service that settles at its start in one of two ways, through the real plugin and in both modes."""

from pathlib import Path

import pytest
from support.project import Project, Run, run_here

pytestmark = pytest.mark.processes

MODEL = '''
import pathlib
import time

import pytest

STARTS = pathlib.Path({starts!r})

def is_mine(path):
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

class Settles:
    """Two of four starts take 2.2 times as long for an answer, for their whole life."""

    def __init__(self):
        STARTS.mkdir(exist_ok=True)
        number = next(number for number in range(1000) if is_mine(STARTS / str(number)))
        self.seconds = {factor} * {fast} * (1, 1, 2.2, 2.2)[number % 4]

    def __call__(self, batch):
        time.sleep(self.seconds)
        return batch

@pytest.mark.perf(model=Settles, payload=[1, 2, 3], compare=("rtm", "throughput"), budget="120s")
@pytest.mark.perf(duration="600ms", warmup="100ms", tolerance=0.2, concurrency=1)
def test_it(perf):
    pass
'''
WORDS = "launches run in one of two ways: "


def text(directory: Path, factor: float = 1.0, fast: float = 0.032) -> str:
    return MODEL.format(starts=str(directory / "starts"), factor=factor, fast=fast)


def verdict(run: Run, metric: str = "rtm") -> dict[str, str]:
    (result,) = run.json("results.json")["results"]
    return next(one for one in result["verdicts"] if one["metric"] == metric)


def judged(directory: Path, factor: float) -> Run:
    """The service, with its times by this factor, against the baseline."""
    (directory / "test_perf.py").write_text(text(directory, factor), encoding="utf-8")
    return run_here(directory, "--perf-json", "results.json", "--perf-settle", "off")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("recorded")
    return Project().with_file("test_perf.py", text(directory)).run(directory, "--perf-baseline", "update")


def test_a_baseline_holds_launches_of_both_kinds_and_is_not_called_wide(recorded: Run) -> None:
    assert recorded.exit_code == pytest.ExitCode.OK
    ((entry,),) = (tests.values() for tests in recorded.json("perf-baseline.json")["tests"].values())
    times = [value for value, _ in entry["metrics"]["rtm"]]
    assert min(map(sum, ([one < 48e6 for one in times], [one > 48e6 for one in times]))) >= 2
    assert not any("wider than the tolerance" in why for why in entry.get("disturbed", ()))


def test_unchanged_each_kind_is_compared_with_itself(recorded: Run) -> None:
    found = verdict(judged(recorded.directory, 1.0))
    assert found["outcome"] in ("pass", "inconclusive")  # a busy machine may leave it open
    assert WORDS in found["reason"]


def test_slower_in_both_kinds_it_fails(recorded: Run) -> None:
    run = judged(recorded.directory, 1.6)
    found = verdict(run)
    assert (run.exit_code, found["outcome"]) == (pytest.ExitCode.TESTS_FAILED, "fail")
    assert WORDS in found["reason"]
