"""What a run does with a history: a line for each test, and new changes in all that it writes."""

import json
import random
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.project import APART, RECORD, Project, run_here
from support.repository import Repository

from pytest_mlpatterns.history.file import History
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind

pytestmark = pytest.mark.processes

TEST = "test_perf.py::test_a"
PROJECT = Project().with_tests("def test_a(perf): pass\n")
HISTORY = ("--perf-history", "runs.jsonl")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository.made(tmp_path / "project")
    PROJECT.write(made.top)
    made.git("add", "--all")
    made.commit({})
    return made


def lines(repository: Repository) -> tuple[HistoryLine, ...]:
    return History(repository.top / "runs.jsonl", "runs.jsonl").read().lines


def written(repository: Repository) -> dict[str, Any]:
    """The member of the result file."""
    found: dict[str, Any] = json.loads((repository.top / "out.json").read_text(encoding="utf-8"))["history"]
    return found


def with_earlier_runs(repository: Repository, *factors: float, metrics: Sequence[str] = ("rtm",)) -> None:
    """Replace the one line of the history by lines of new commits, with multiples of its values that scatter by 1 %."""
    (line,) = lines(repository)
    draw = random.Random(5)
    seeded = []
    for number, factor in enumerate(factors, 2):
        at = CommitPosition(repository.commit({}), number)
        values = {
            name: tuple(LaunchValue(line.values[name][0].value * factor * draw.gauss(1, 0.01), 0.01) for _ in "ab")
            for name in metrics
        }
        seeded.append(replace(line, at=at, kind=Kind.PASSED, values=values))
    repository.commit({})
    (repository.top / "runs.jsonl").unlink()
    History(repository.top / "runs.jsonl", "runs.jsonl").append(seeded)


@pytest.mark.parametrize("how", [(), APART])
def test_a_run_adds_a_line_for_each_test_that_it_measured(repository: Repository, how: tuple[str, ...]) -> None:
    repository.commit(
        {"test_perf.py": (repository.top / "test_perf.py").read_text() + "\n\ndef test_b(perf): assert 0\n"}
    )
    run = run_here(repository.top, *HISTORY, "--perf-json", "out.json", *how)
    assert "history runs.jsonl: 1 line added" in run.out.splitlines()
    (line,) = lines(repository)
    assert (line.test, line.clean, line.kind) == (TEST, True, Kind.NOT_COMPARED)
    assert line.at == CommitPosition(repository.git("rev-parse", "HEAD"), 2)
    assert "rtm" in line.values
    assert written(repository) == {"place": "runs.jsonl", "added": 1, "position": 2, "clean": True, "changes": []}


def test_a_change_is_reported_once_and_fails_the_run_that_confirms_it(repository: Repository) -> None:
    run_here(repository.top, *HISTORY)
    with_earlier_runs(repository, *[0.001] * 12, *[1.0] * 4)
    summary = repository.top.parent / "summary.md"
    github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_WORKSPACE": str(repository.top)}
    options = (*HISTORY, "--perf-history-fail", "new", "--perf-json", "out.json")
    run = run_here(repository.top, *options, environment=github)
    assert run.exit_code == pytest.ExitCode.TESTS_FAILED
    assert run.outcomes == {"passed": 1}
    (change,) = written(repository)["changes"]
    old, new = (repository.git("rev-parse", f"HEAD~{back}") for back in (5, 4))
    assert (change["old"]["commit"], change["new"]["commit"], change["is_worse"]) == (old, new, True)
    assert f"  {change['sentence']}" in run.out.splitlines()
    command = f"python -m pytest_mlpatterns bisect {TEST} {old[:12]}..{new[:12]}"
    assert f"  which commit it was: {command}" in run.out.splitlines()
    (annotation,) = [text for text in run.out.splitlines() if text.startswith("::")]
    assert annotation.startswith("::error file=test_perf.py,line=")
    assert annotation.endswith(command)
    assert "changed in the history: median latency +" in summary.read_text(encoding="utf-8").replace("\\", "")
    again = run_here(repository.top, *options)
    assert (again.exit_code, written(repository)["changes"]) == (0, [])


def test_the_commands_of_a_run_in_a_sub_directory_run_there(repository: Repository) -> None:
    (repository.top / "sub").mkdir()
    repository.git("mv", "test_perf.py", "sub/test_perf.py")
    repository.commit({})
    history = ("--perf-history", "../runs.jsonl")
    run_here(repository.top / "sub", *history)
    with_earlier_runs(repository, *[0.001] * 12, *[1.0] * 4)
    run = run_here(repository.top / "sub", *history, "-c", "../pytest.ini", "--perf-json", "out.json")
    assert f"  which commit it was: python -m pytest_mlpatterns bisect {TEST} " in run.out
    assert run.exit_code == 0, "nothing asks that a change fails the run"
    (result,) = json.loads((repository.top / "sub/out.json").read_text(encoding="utf-8"))["results"]
    assert result["test"] == f"sub/{TEST}"
    assert result["command"] == f"pytest -c ../pytest.ini {TEST}"
    again = run_here(repository.top / "sub", *shlex.split(result["command"])[1:], "--collect-only")
    assert again.exit_code == 0


def test_lines_of_changed_files_are_kept_and_do_not_count(repository: Repository) -> None:
    run_here(repository.top, *HISTORY)
    with_earlier_runs(repository, *[0.001] * 12, *[1.0] * 4)
    repository.write({"model.py": "1\n", "out.json": ""})
    run = run_here(repository.top, *HISTORY, "--perf-json", "out.json")
    assert "1 line added, which no change is looked for in, since files differ from the commit: model.py" in run.out
    assert (written(repository)["changes"], lines(repository)[-1].clean) == ([], False)


def test_a_smoke_run_adds_nothing(repository: Repository) -> None:
    run = run_here(repository.top, *HISTORY, "--perf-smoke")
    assert run.exit_code == 0
    assert not (repository.top / "runs.jsonl").exists()


def test_a_run_that_is_interrupted_adds_nothing(repository: Repository) -> None:
    repository.write({"test_then.py": "def test_c(perf_model):\n    raise KeyboardInterrupt\n"})
    repository.write({"conftest.py": "import pytest\n\n@pytest.fixture\ndef perf_model():\n    return len\n"})
    run = run_here(repository.top, *HISTORY, "test_perf.py", "test_then.py")
    assert "history runs.jsonl not extended: the run was not completed" in run.out.splitlines()
    assert not (repository.top / "runs.jsonl").exists()


def test_a_test_that_was_not_measured_validly_adds_nothing(repository: Repository) -> None:
    body = 'from test_perf import *\n\n\ndef test_a(perf):\n    perf.assert_rtm_below("1h")\n    assert 0\n'
    repository.write({"test_more.py": body})
    run = run_here(repository.top, *HISTORY, "test_more.py")
    assert "history runs.jsonl not extended: no test was measured validly" in run.out.splitlines()
    assert not (repository.top / "runs.jsonl").exists()


def test_a_history_that_cannot_be_read_ends_the_run_before_it_measures(repository: Repository) -> None:
    (repository.top / "runs.jsonl").write_bytes(b"\xff\xfe")
    run = run_here(repository.top, *HISTORY)
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert "runs.jsonl is no history of pytest-mlpatterns" in run.err
    assert (repository.top / "runs.jsonl").read_bytes() == b"\xff\xfe"


def test_a_baseline_is_recorded_from_the_runs_since_the_last_change(repository: Repository) -> None:
    run_here(repository.top, *HISTORY)
    with_earlier_runs(repository, *[0.001] * 12, *[1.0] * 5)
    run = run_here(repository.top, *HISTORY, *RECORD, "--perf-baseline-from", "history")
    assert run.exit_code == 0
    assert f"  {TEST}: the level of 6 runs since " in run.out
    (entry,) = json.loads((repository.top / "perf-baseline.json").read_text(encoding="utf-8"))["tests"][TEST].values()
    launches = [launch for line in lines(repository)[-6:] for launch in line.values["rtm"]]
    assert [value for value, _ in entry["metrics"]["rtm"]] == pytest.approx([one.value for one in launches], rel=1e-3)
    assert "latency_mean" not in entry["metrics"]


@pytest.mark.parametrize(
    ("mark", "body"),
    [('@pytest.mark.perf(compare=("rtm", "asl"))', "pass"), ("", 'perf.assert_no_regression(("asl",))')],
    ids=["compare=", "assert_no_regression"],
)
def test_a_metric_that_a_test_asks_for_is_recorded_from_the_history_and_compared(
    repository: Repository, mark: str, body: str
) -> None:
    repository.commit(PROJECT.with_tests(f"{mark}\ndef test_a(perf): {body}\n").files)
    run_here(repository.top, *HISTORY)
    with_earlier_runs(repository, *[1.0] * 5, metrics=("rtm", "asl"))
    assert run_here(repository.top, *HISTORY, *RECORD, "--perf-baseline-from", "history").exit_code == 0
    run = run_here(repository.top, "--perf-settle", "off", "--perf-json", "out.json")
    assert "is not recorded yet" not in run.out
    (result,) = run.json("out.json")["results"]
    assert "asl" in [verdict["metric"] for verdict in result["verdicts"]]
