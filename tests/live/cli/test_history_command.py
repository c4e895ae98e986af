"""``python -m pytest_mlpatterns history``: of a history in a repository of 30 commits."""

import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.repository import Repository, settings

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.history.file import History
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind

pytestmark = pytest.mark.processes

RUNS = 30
SLOWER_AT = 18
DIGITS, SUM = "test_perf.py::test_digits[single]", "test_perf.py::test_sum"
FILE = "perf-history.jsonl"


def lines_of(commits: Sequence[str]) -> list[HistoryLine]:
    """One line for each commit and test; digits are 6 % slower from a commit on, on machines of different speed."""
    draw = random.Random(3)
    lines = []
    for number, commit in enumerate(commits):
        for test in (DIGITS, SUM):
            factor = 1.06 if number >= SLOWER_AT and test == DIGITS else 1.0
            speed = math.exp(draw.gauss(0, 0.05))
            values = tuple(LaunchValue(4e6 * factor * speed * math.exp(draw.gauss(0, 0.006)), 0.004) for _ in range(3))
            ratios = tuple(PairedRatio(math.log(factor) + draw.gauss(0, 0.003), 0.003) for _ in range(3))
            lines.append(
                HistoryLine(
                    test=test,
                    machine="Xeon, 2 cores",
                    date=f"2026-{9 + number // 28:02}-{number % 28 + 1:02}T06:00:00Z",
                    at=CommitPosition(commit, number + 1),
                    clean=True,
                    setup="s1",
                    facts="e1",
                    kind=Kind.PASSED,
                    values={"rtm": values, "peak_memory": (LaunchValue(3e8, 0.001),)},
                    ratios={"rtm": ratios},
                    reference=CommitPosition(commits[0], 1),
                )
            )
    return lines


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository of 30 commits with a history in a file that is not committed."""
    repository = Repository.made(tmp_path_factory.mktemp("history") / "project")
    commits = [repository.commit({}, f"commit {number}") for number in range(RUNS)]
    History(repository.top / FILE, FILE).append(lines_of(commits))
    return repository


@pytest.fixture
def project(made: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A copy of it, as the current directory, in a terminal of 80 columns."""
    repository = made.copied(tmp_path / "project")
    monkeypatch.chdir(repository.top)
    monkeypatch.setenv("COLUMNS", "80")
    for name, value in settings().items():
        monkeypatch.setenv(name, value)
    return repository


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints; it succeeds."""
    assert main(["history", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error of a command that fails."""
    assert main(["history", *arguments]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    return found.err


@pytest.mark.usefixtures("project")
def test_the_history_is_shown_with_the_change_that_machines_cannot_hide(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys)
    assert text.startswith(f"{FILE}: 2 tests, 1 change\n")
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"median latency \+[56]\.\d % .*; beside revisions, so on any machine", " ".join(text.split()))
    assert "peak memory" not in text
    assert "2 more courses without a change; name a test or --metric to see them" in text


@pytest.mark.usefixtures("project")
def test_a_test_a_metric_a_course_and_a_machine_are_selected(capsys: pytest.CaptureFixture[str]) -> None:
    assert SUM not in shown(capsys, "digits")
    assert SUM not in shown(capsys, DIGITS)
    assert SUM not in shown(capsys, "*dig*")
    assert "peak memory" in shown(capsys, "digits")
    assert "median latency" not in shown(capsys, "--metric", "peak_memory")
    assert "Xeon" not in shown(capsys, "--course", "ratios")
    assert "ratios" not in shown(capsys, "--course", "values", "--machine", "Xeon")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test_sun",), "'test_sun' is in no test of perf-history.jsonl; it has test_perf.py::test_digits[single] and"),
        (("--metric", "rtmm"), "--metric is 'rtmm', did you mean rtm? the history has"),
        (("--machine", "Arm"), "--machine is 'Arm', expected a part of Xeon, 2 cores"),
        (("--metric", "peak_memory", "--course", "ratios"), "--course is ratios, and the history has none"),
        (("--from", "absent.jsonl"), "the history absent.jsonl does not exist, expected one with lines"),
        (("--from", "git:perf"), "--from is 'git:perf': git notes left in 0.3"),
        (("--from", ""), "--from is '', expected the path of a file"),
        (("--html", f"{FILE}/page.html"), f"{FILE} cannot be made: File exists; name another directory"),
        (("-o", "absent/text.txt"), "absent/text.txt cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(capsys, *arguments)


def test_the_place_is_that_of_the_project(project: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    (project.top / FILE).rename(project.top / "h.jsonl")
    project.write({"pytest.ini": "[pytest]\nperf_history = h.jsonl\n", "sub/x": ""})
    assert shown(capsys, "--course", "ratios").startswith("h.jsonl: 2 tests")


@pytest.mark.usefixtures("project")
def test_the_json_and_the_page_have_every_course(capsys: pytest.CaptureFixture[str], project: Repository) -> None:
    data = json.loads(shown(capsys, "--json", "--html", "page.html"))
    assert [(one["test"], one["metric"], one["course"]) for one in data["series"]] == [
        (test, metric, course)
        for test in (DIGITS, SUM)
        for metric, course in (("rtm", "values"), ("peak_memory", "values"), ("rtm", "ratios"))
    ]
    assert [one["course"] for one in data["changes"]] == ["ratios"]
    assert "<title>Performance history, perf-history.jsonl</title>" in (project.top / "page.html").read_text("utf-8")
    assert shown(capsys, "sum", "--html", "page.html") == "page.html has the history of 1 test\n"
    shown(capsys, "sum", "-o", "text.txt")
    assert SUM in (project.top / "text.txt").read_text("utf-8")


@pytest.mark.parametrize("option", [["--issue"], ["test_sum", "--issue=all"]])
def test_the_body_of_an_issue_left_and_says_what_to_do(capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(["history", *option])
    assert "history --issue left in 0.3" in capsys.readouterr().err


def test_lines_of_other_branches_are_left_out(project: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    history = History(project.top / FILE, FILE)
    (line, *_) = history.read().lines
    history.append([replace(line, at=CommitPosition("f" * 40, 31), date="2026-10-09T06:00:00Z")])
    assert main(["history", DIGITS]) == 0
    found = capsys.readouterr()
    assert "1 line left out, of commits that are no first parents of this one" in found.err
    assert "2026-10-09" not in found.out


def test_a_history_of_another_repository_is_in_the_order_of_its_own_positions(
    project: Repository, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "2 tests, 1 change" in shown(capsys, "--from", str(project.top / FILE))


def test_a_history_whose_files_were_all_changed_has_nothing_to_show(
    project: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    history = History(project.top / "dirty.jsonl", "dirty.jsonl")
    source = History(project.top / FILE, FILE)
    history.append([replace(line, clean=False) for line in source.read().lines])
    assert "has no run that can be shown" in refused(capsys, "--from", "dirty.jsonl")


def test_a_damaged_line_is_a_warning(project: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    with (project.top / FILE).open("a", encoding="utf-8") as file:
        file.write('{"v": 1, "te\n')
    assert main(["history"]) == 0
    assert "WARNING: " in capsys.readouterr().err
