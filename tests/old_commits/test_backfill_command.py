"""``python -m pytest_mlpatterns history backfill`` in a real repository with a model that takes declared times."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import pytest
from support.old_commits import BROKEN, TEST, repository_of
from support.services.processes import our_children

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.history.place import open_history

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.records.history import HistoryLine

pytestmark = pytest.mark.processes


def lines_of(top: Path) -> tuple[HistoryLine, ...]:
    return open_history("history.jsonl", root=top, invoked_in=top).read().lines


def test_old_commits_become_lines_and_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, shas = repository_of(tmp_path / "shop", 0.01, 0.01, BROKEN, 0.05)
    monkeypatch.chdir(repository.top)
    command = ["history", "backfill", f"{shas[0]}..main", "--from", "history.jsonl", "--budget", "3s"]
    assert main([*command, "--test", TEST]) == 1  # a commit is broken
    out = capsys.readouterr().out
    assert f"    2 left  {shas[3][:12]}  {TEST}: added" in out
    assert f"{shas[2][:12]}  {TEST}: no line: import error: ImportError: this commit is broken" in out
    assert "history.jsonl has 2 new lines, 1 could not be measured" in out
    found = {line.at.commit: line for line in lines_of(repository.top)}
    assert set(found) == {shas[1], shas[3]}
    assert (found[shas[3]].at.position, found[shas[3]].reference.commit) == (4, shas[0])  # type: ignore[union-attr]
    levels = {sha: statistics.fmean(one.log_ratio for one in found[sha].ratios["rtm"]) for sha in found}
    assert levels[shas[3]] - levels[shas[1]] > 0.5
    assert len(repository.worktrees()) == 1
    assert our_children() == set()
    assert main([*command, "--at-most", "3000.001ms"]) == 3
    assert "0 new lines, 2 known before, 1 are left; the same command goes on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--every", "0", "--test", TEST), "--every is 0, expected at least 1"),
        ((), "history.jsonl has no line that names a test; name tests with --test ID"),
        (("--test", TEST, "--against", "absent"), "'absent' is no revision"),
        (("--test", TEST, "--budget", "0s"), "--budget is '0s', expected more than 0"),
    ],
)
def test_wrong_arguments_are_errors_of_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    repository, _ = repository_of(tmp_path / "shop", 0.01, 0.01)
    monkeypatch.chdir(repository.top)
    assert main(["history", "backfill", "HEAD~1..main", *arguments]) == 2
    assert message in capsys.readouterr().err
