"""``python -m pytest_mlpatterns bisect`` in real repositories with a model that takes declared times."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.old_commits import BROKEN, TEST, repository_of
from support.project import clean_environment
from support.repository import Repository
from support.services.processes import our_children

from pytest_mlpatterns.cli import main

pytestmark = pytest.mark.processes


def bisect(
    repository: Repository, commits: str, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_mlpatterns", "bisect", TEST, commits, "--budget", "3s", *arguments]
    done = subprocess.run(
        command,
        cwd=repository.top,
        env={**clean_environment(), **(environment or {})},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert len(repository.worktrees()) == 1
    assert our_children() == set()
    return done


def test_the_commit_of_a_doubled_time_is_found_and_its_function_named(tmp_path: Path) -> None:
    repository, shas = repository_of(tmp_path / "shop", *[0.02] * 3, *[0.06] * 2)
    repository.write({"src/shop/model.py": "the working tree is not touched"})
    done = bisect(repository, f"{shas[0]}..main", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["end"], found["first"]["sha"], found["before"]["sha"]) == ("found", shas[3], shas[2])
    assert 1.0 < found["step"][0] < 3.0
    assert "Model.work (src/shop/model.py:17)" in found["cause"] or "no profile" in found["cause"]
    assert "4 left" in done.stderr
    assert not (repository.top / ".git" / "mlpatterns-bisect.json").exists()


def test_commits_that_do_not_import_leave_a_range(tmp_path: Path) -> None:
    repository, shas = repository_of(tmp_path / "shop", 0.01, BROKEN, 0.06)
    done = bisect(repository, f"{shas[0]}..main")
    assert done.returncode == 3, done.stderr
    assert f"after {shas[0][:7]} and up to {shas[2][:7]} (Commit 2)" in done.stdout
    assert f"  {shas[1][:7]}  import error: ImportError: this commit is broken" in done.stdout


def test_an_interrupted_search_leaves_nothing_and_goes_on(tmp_path: Path) -> None:
    repository, shas = repository_of(tmp_path / "shop", 0.01, 0.01, 0.06)
    command = [sys.executable, "-m", "pytest_mlpatterns", "bisect", TEST, f"{shas[0]}..main", "--budget", "3s"]
    with subprocess.Popen(
        command, cwd=repository.top, env=clean_environment(), stdout=subprocess.PIPE, encoding="utf-8"
    ) as running:
        assert running.stdout is not None
        assert any("2 left" in line for line in running.stdout)
        os.kill(running.pid, signal.SIGTERM)
        rest = running.stdout.read()
    assert running.returncode == 130
    assert "interrupted; the same command goes on" in rest
    assert len(repository.worktrees()) == 1
    assert our_children() == set()
    state = repository.top / ".git" / "mlpatterns-bisect.json"
    assert len(json.loads(state.read_text(encoding="utf-8"))["events"]) == 1
    done = bisect(repository, f"{shas[0]}..main", "--smallest", "2%", "--at-most", "3000.001ms")
    assert done.returncode == 3
    assert "the state file is of another search" in done.stdout
    done = bisect(repository, f"{shas[0]}..main", "--at-most", "3000.001ms")
    assert done.returncode == 3
    assert "the search goes on after 1 measurement" in done.stdout
    assert "the same command goes on where it ended" in done.stdout


def test_an_end_that_does_not_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, _ = repository_of(tmp_path / "shop", 0.01, BROKEN)
    monkeypatch.chdir(repository.top)
    assert main(["bisect", TEST, "HEAD~1..main", "--state", str(tmp_path / "state")]) == 2
    assert "cannot be compared with HEAD~1" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
