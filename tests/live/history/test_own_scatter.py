"""Which lines of a history give the scatter of a test: those of its machine and its set-up."""

import random
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.history_lines import history_line
from support.synthetic import ENVIRONMENT, SETUP, make_setup

from pytest_mlpatterns.analysis.changes.series import USUAL_SCATTER
from pytest_mlpatterns.config.run_settings import read_run_settings
from pytest_mlpatterns.history.file import History
from pytest_mlpatterns.history.stable_level import OwnScatter
from pytest_mlpatterns.records.history import HistoryLine, digest_of
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind

pytestmark = pytest.mark.processes  # a new file asks git whether it merges lines

TEST = "t.py::test_a"


def lines(sd: float, *, first: int = 0, **changes: object) -> list[HistoryLine]:
    """Twenty runs of a test on this machine."""
    draw = random.Random(8)
    own: dict[str, object] = {"test": TEST, "machine": ENVIRONMENT.machine, "setup": digest_of(SETUP.to_json())}
    return [
        history_line(
            number,
            **{
                **own,
                "values": {"rtm": tuple(LaunchValue(5e6 * draw.lognormvariate(0, sd), 0.001) for _ in range(4))},
                **changes,
            },
        )
        for number in range(first, first + 20)
    ]


def scatter(directory: Path, *found: HistoryLine, **options: object) -> OwnScatter:
    given = {"history": str(directory / "runs.jsonl"), **options}
    run = read_run_settings(given, {}, invoked_in=directory, root=directory)
    if found:
        History(directory / "runs.jsonl", "runs.jsonl").append(found)
    return OwnScatter(run, ENVIRONMENT)


def test_the_runs_of_this_test_on_this_machine_with_this_set_up_count(tmp_path: Path) -> None:
    others = [
        *lines(0.4, first=20, machine="there"),
        *lines(0.4, first=40, setup="0000000000"),
        *lines(0.4, first=60, test="t.py::test_b"),
        *lines(0.4, first=80, kind=Kind.TEST_ERROR),
    ]
    own = scatter(tmp_path, *others, *lines(0.03))
    assert own.of(TEST, SETUP).launches["rtm"] == pytest.approx(0.03, rel=0.25)
    assert own.of("t.py::test_b", SETUP).launches["rtm"] > 0.3
    assert own.of(TEST, make_setup(wire="grpc")) == own.of(TEST, SETUP, "3 × EPYC") == USUAL_SCATTER


def test_a_cluster_is_a_machine(tmp_path: Path) -> None:
    found = [replace(line, machine=ENVIRONMENT.machine_of("3 × EPYC")) for line in lines(0.03)]
    assert "rtm" in scatter(tmp_path, *found).of(TEST, SETUP, "3 × EPYC").launches


def test_without_a_history_the_scatter_is_the_usual_one(tmp_path: Path) -> None:
    assert scatter(tmp_path).of(TEST, SETUP) == USUAL_SCATTER
    assert scatter(tmp_path, *lines(0.03), smoke=True).of(TEST, SETUP) == USUAL_SCATTER
    assert scatter(tmp_path, history="").of(TEST, SETUP) == USUAL_SCATTER


def test_a_history_that_cannot_be_read_is_left_to_the_session(tmp_path: Path) -> None:
    own = scatter(tmp_path)
    (tmp_path / "runs.jsonl").write_bytes(b"\xff\xfe")
    assert own.of(TEST, SETUP) == USUAL_SCATTER
