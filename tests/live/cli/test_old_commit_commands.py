"""``bisect``: what is refused before anything is measured."""

from pathlib import Path

import pytest
from support.repository import Repository

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.history import commit_runs

pytestmark = pytest.mark.processes  # git

BISECT = ("bisect", "test_perf.py::test_digits", "HEAD~1..HEAD")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two commits, of which none may be measured."""
    repository = Repository.made(tmp_path / "project")
    for number in range(2):
        repository.commit({"test_perf.py": f"# {number}\n"}, f"commit {number}")
    monkeypatch.chdir(repository.top)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a commit is measured")

    monkeypatch.setattr(commit_runs.CommitRuns, "of", lambda *_: refuse)
    return repository.top


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bisect", "test_perf.py::test_digits", "main..main"), "are the same commit"),
        ((*BISECT, "--metric", "rtn"), "--metric is 'rtn', did you mean rtm? expected one of"),
        ((*BISECT, "--smallest", "0%"), "--smallest is '0%', expected a share above 0"),
        ((*BISECT, "--budget", "0s"), "--budget is '0s', expected a time above zero"),
        ((*BISECT, "--at-most", "soon"), "--at-most"),
        ((*BISECT, "--at-most", "3s"), "--at-most is '3s', expected more than the 30s of one measurement"),
        ((*BISECT, "--at-most", "30s"), "write a longer --at-most, or a shorter --budget"),
        ((*BISECT, "--smallest", "100%"), "--smallest is '100%', expected a share above 0 and below 100 %; write 1%"),
        ((*BISECT, "--state", "."), "is a directory, expected a file; name another file with --state"),
        ((*BISECT, "--state", "absent/state.json"), "which does not exist; name another file with --state"),
        ((*BISECT, "--state", "test_perf.py"), "is not what a search wrote, and would be lost"),
        ((*BISECT, "--state", ""), "--state is '', expected the path of a file"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_measurement(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_an_id_from_the_top_of_the_repository_is_answered_with_the_one_from_here(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    assert main(BISECT) == 2
    said = capsys.readouterr().err
    assert "test_perf.py is not in this directory, expected pytest's id from here; write ../test_perf.py::" in said


def test_another_history_is_named_by_the_commands_option(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "notes.txt").write_text("not a history\n", encoding="utf-8")
    assert main(["history", "--from", "notes.txt"]) == 2
    assert "; name another file with --from, or move this one away" in capsys.readouterr().err
