"""``python -m pytest_mlpatterns plan``: what it refuses and prints, and a history without measuring."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from support.synthetic import changed, result

from pytest_mlpatterns.baseline.file import write_baselines
from pytest_mlpatterns.cli import main
from pytest_mlpatterns.history import place, trial_runs
from pytest_mlpatterns.history.trial_runs import Trials
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, HistoryRead
from pytest_mlpatterns.records.launch import LaunchValue, Noise
from pytest_mlpatterns.records.verdict import Kind
from pytest_mlpatterns.system.environment import environment

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at-most", "0s"], "--at-most is '0s', expected more than 0; write 30s"),
        (["--at-most", "soon"], "--at-most is 'soon'"),
        (["--tolerance", "much"], "--tolerance"),
        (["--baseline-file", "none.json"], "none.json does not exist"),
    ],
)
def test_options_that_cannot_be_read_are_an_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["plan", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_what_a_reader_should_know_of_trial_runs_is_printed(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = {"rtm": ((4e6, 0.01), (4.1e6, 0.01), (4.05e6, 0.01))}
    measured = changed(result("test_quick.py::test_quick"), launches=launches, noise=(Noise("others used a core"),))
    write_baselines(here / "own.json", {})
    for trials, expected in (
        (Trials(((measured,),), (), "there is no commit"), "derived from single launches, since there is no commit"),
        (Trials(((measured,),), ((measured,),)), "a test then sees what a revision shows"),
        (Trials(((measured,),), (), is_cut=True), "The time was over before all tests were measured"),
        (Trials(((measured,),), ()), "and sees more when it is: others used a core."),
    ):
        monkeypatch.setattr(trial_runs, "measure_trials", lambda *_, found=trials, **__: found)
        assert main(["plan", "--baseline-file", "own.json"]) == 0
        assert expected in " ".join(capsys.readouterr().out.split())


# --- a history --------------------------------------------------------------------------------------------------------


def lines(*, machine: str, launches: int = 4) -> tuple[HistoryLine, ...]:
    return tuple(
        HistoryLine(
            test="test_quick.py::test_quick",
            machine=machine,
            date=f"2026-11-{day:02d}T08:00:00Z",
            at=CommitPosition("1a2b3c4d5e6f", day),
            clean=True,
            setup="0123456789",
            facts="",
            kind=Kind.UNDECIDED if day % 3 == 0 else Kind.PASSED,
            values={
                "rtm": tuple(LaunchValue(4e6 * (1 + 0.01 * ((day * number) % 5)), 0.01) for number in range(launches))
            },
        )
        for day in range(1, 13)
    )


def test_a_history_is_planned_without_measuring(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = HistoryRead(lines(machine=environment().machine), ("a line was left out",))
    asked = []

    def opened(text: str, *, root: Path, invoked_in: Path) -> object:
        asked.append((text, root, invoked_in))
        return SimpleNamespace(name=text, read=lambda: read)

    monkeypatch.setattr(place, "open_history", opened)
    assert main(["plan", "--from", "git:perf"]) == 0
    assert asked == [("git:perf", here, here)]
    text = " ".join(capsys.readouterr().out.split())
    assert "test_quick.py::test_quick: 48 launches in 12 runs" in text
    assert "Often undecided: test_quick.py::test_quick (4 of 12 runs)" in text
    assert "a line was left out" in text


def test_a_history_with_single_launches_is_an_error(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = HistoryRead(lines(machine=environment().machine, launches=1))
    monkeypatch.setattr(place, "open_history", lambda *_, **__: SimpleNamespace(read=lambda: read))
    assert main(["plan", "--from", str(here / "history.jsonl")]) == 2
    said = capsys.readouterr().err
    assert "no test has two launches in lines of one run; those of a compaction have none, expected as many" in said
    assert "leave --from out to measure here" in said


@pytest.mark.parametrize("name", ["./test_quick.py", "../{0}/test_quick.py", "{1}/test_quick.py::test_quick", "."])
def test_tests_of_a_history_are_named_as_for_pytest(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    read = HistoryRead(lines(machine=environment().machine))
    monkeypatch.setattr(place, "open_history", lambda *_, **__: SimpleNamespace(name="h", read=lambda: read))
    assert main(["plan", "--from", "git:perf", name.format(here.name, here)]) == 0
    capsys.readouterr()
    assert main(["plan", "--from", "git:perf", "test_quik.py"]) == 2
    assert "expected a test of it: test_quick.py::test_quick" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_a_history_that_does_not_exist_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--from", "absent.jsonl"]) == 2
    assert "the history absent.jsonl does not exist" in capsys.readouterr().err


def test_another_baseline_file_is_named_by_the_option_of_the_command(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "other.json").write_text("{}", encoding="utf-8")
    assert main(["plan", "--baseline-file", "other.json"]) == 2
    assert "name another one with --baseline-file, or move" in capsys.readouterr().err
    assert main(["baseline", "merge", "other.json"]) == 2
    assert "; name another one, or move this one away" in capsys.readouterr().err
