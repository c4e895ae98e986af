"""A history in git notes: what is appended is read, here and in other clones, whoever appends, pushes and compacts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from support.history_lines import history_line, numbered_line
from support.repository import Repository, settings

from pytest_mlpatterns.errors import HistoryError, SettingError
from pytest_mlpatterns.history import note_tree
from pytest_mlpatterns.history.notes import NotesHistory
from pytest_mlpatterns.history.place import open_history
from pytest_mlpatterns.records.history import CommitPosition
from pytest_mlpatterns.system.git import Git

if TYPE_CHECKING:
    from pytest_mlpatterns.records.history import HistoryLine

pytestmark = pytest.mark.processes
TESTS = Path(__file__).parents[1]
REF = "refs/notes/perf"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git's settings for the package's own calls."""
    for name, value in settings().items():
        if name.startswith("GIT_CONFIG"):
            monkeypatch.setenv(name, value)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository.made(tmp_path / "repository")
    for number in range(3):
        made.commit({"model.py": f"SPEED = {number}\n"})
    return made


def history_of(repository: Repository) -> NotesHistory:
    history = open_history("git:perf", root=repository.top, invoked_in=Path("/nowhere"))
    assert isinstance(history, NotesHistory)
    return history


def commits(repository: Repository) -> list[str]:
    """Short hashes of the commits, the oldest first."""
    return repository.git("log", "--reverse", "--format=%h", "--abbrev=12").split()


def lines_at(repository: Repository, *numbers: int) -> list[HistoryLine]:
    """Lines of the last commit."""
    return [numbered_line(number, commits(repository)[-1]) for number in numbers]


def numbers(history: NotesHistory) -> list[int]:
    return sorted(int(line.setup) for line in history.read().lines)


def test_lines_stand_in_the_note_on_their_commit(repository: Repository) -> None:
    history, names = history_of(repository), commits(repository)
    first, second, third = (
        replace(history_line(number, commit=names[number]), date=f"2026-0{9 - number}-01T00:00:00Z")
        for number in range(3)
    )
    assert history.read().lines == ()
    assert history.append([]) == ()
    (offer,) = history.append([first, second])
    assert offer == (
        "git:perf is new. Git sends and fetches its notes only on request: "
        "python -m pytest_mlpatterns history push --from git:perf, and history pull --from git:perf"
    )
    assert history.append([third]) == ()
    assert history.append([replace(first, machine="other")]) == ()

    read = history.read()
    assert [line.to_text() for line in read.lines] == [
        line.to_text() for line in sorted((first, replace(first, machine="other"), second, third), key=lambda x: x.date)
    ]
    assert (read.warnings, read.skipped) == ((), 0)
    assert repository.git("notes", "--ref=perf", "show", names[1]) == second.to_text()
    assert repository.git("log", "-1", "--format=%an %s%n%b", REF).split("\n") == [
        "Ada Add what a run has measured",
        "1 note",
    ]


def test_a_commit_may_have_a_name_of_any_length(repository: Repository) -> None:
    history, (*_, last) = history_of(repository), commits(repository)
    full = repository.git("rev-parse", last)
    history.append([numbered_line(1, last), numbered_line(2, full), numbered_line(3, full[:8])])
    assert numbers(history) == [1, 2, 3]
    assert len(repository.git("notes", "--ref=perf", "list").splitlines()) == 1


def test_notes_of_many_commits_are_written_and_read_at_once(tmp_path: Path) -> None:
    """Git sorts notes into directories when there are many."""
    repository = Repository.made(tmp_path / "many")
    script = [
        f"commit refs/heads/main\ncommitter A <a@b> {1_700_000_000 + number} +0000\ndata 1\nx\n"
        for number in range(600)
    ]
    Git(repository.top).run("fast-import", "--quiet", stdin="".join(script).encode())
    history, names = history_of(repository), commits(repository)
    assert len(names) == 600
    history.append([numbered_line(number, name) for number, name in enumerate(names[:400])])
    history.append([numbered_line(number, name) for number, name in enumerate(names) if number >= 200])
    history.append([numbered_line(600, names[0]), numbered_line(601, names[-1])])
    assert numbers(history) == list(range(602))
    assert "/" in repository.git("ls-tree", "-r", "--name-only", REF)
    repository.git("notes", "--ref=perf", "append", "--message", numbered_line(602).to_text(), names[1])
    history.append([numbered_line(603, name) for name in (names[0], names[1], names[-1])])
    assert [numbers(history)[-3:], numbers(history).count(603)] == [[603, 603, 603], 3]
    assert len(repository.git("notes", "--ref=perf", "list").splitlines()) == 600
    assert repository.git("notes", "--ref=perf", "show", names[-1]).count("\n") == 2


def test_nothing_else_of_the_repository_changes(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    Git(tmp_path / "remote").run("init", "--quiet", "--bare")
    repository.git("remote", "add", "origin", str(tmp_path / "remote"))
    repository.git("notes", "add", "--message", "A remark")
    repository.write({"model.py": "SPEED = 7\n", "untracked.py": ""})

    def seen() -> tuple[object, ...]:
        top = repository.top / ".git"
        refs = [line for line in repository.git("for-each-ref").splitlines() if not line.endswith(f"\t{REF}")]
        files = {name: (top / name).read_bytes() for name in ("HEAD", "config", "index")}
        status = repository.git("--no-optional-locks", "status", "--porcelain")
        return refs, files, sorted(child.name for child in top.iterdir()), status

    before, history = seen(), history_of(repository)
    history.append(lines_at(repository, 1, 2))
    history.push("origin")
    history.pull("origin")
    history.compact("2030-01")
    assert seen() == before
    assert len(history.read().lines) == 2


def test_notes_need_no_author(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    history_of(repository).append(lines_at(repository, 1))
    assert repository.git("log", "-1", "--format=%cn", REF) == "pytest-mlpatterns"


def test_damaged_lines_of_notes_are_named_with_their_commit(repository: Repository) -> None:
    history, (*_, last) = history_of(repository), commits(repository)
    history.append(lines_at(repository, 1))
    repository.git("notes", "--ref=perf", "append", "--message", "A remark", last)
    history.append(lines_at(repository, 2))
    read = history.read()
    assert (numbers(history), read.skipped) == ([1, 2], 1)
    (warning,) = read.warnings
    assert warning.startswith(f"git:perf: 1 line is left out: note on {last}, line 3 is no JSON: ")


def test_files_that_are_no_notes_are_left_out(repository: Repository) -> None:
    tree = repository.git("rev-parse", "HEAD^{tree}")
    repository.git("update-ref", REF, repository.git("commit-tree", "-m", "Other", tree))
    history = history_of(repository)
    assert history.read().lines == ()
    history.append(lines_at(repository, 1))
    assert numbers(history) == [1]


def test_a_line_without_a_commit_or_of_an_unknown_one_is_an_error(repository: Repository, tmp_path: Path) -> None:
    history = history_of(repository)
    with pytest.raises(
        HistoryError, match=r"^the commit without a hash is not in .*; fetch it, or keep the history in a"
    ):
        history.append([replace(history_line(), at=CommitPosition())])
    with pytest.raises(
        HistoryError, match=r"^the commit 0123456789ab is not in .*, expected it there, since a note belongs"
    ):
        history.append([*lines_at(repository, 1), numbered_line(2, "0123456789ab")])
    assert history.read().lines == ()
    shallow = Repository.cloned(repository, tmp_path / "shallow", "--depth=1")
    with pytest.raises(HistoryError, match="; fetch it, for example with git fetch --unshallow, or keep"):
        history_of(shallow).append([numbered_line(2, commits(repository)[0])])
    history_of(shallow).append(lines_at(shallow, 1))
    assert numbers(history_of(shallow)) == [1]


def test_a_directory_outside_of_git_is_an_error(tmp_path: Path) -> None:
    history = open_history("git:perf", root=tmp_path, invoked_in=tmp_path)
    for use in (history.read, lambda: history.append([history_line()]), lambda: history.compact("2026-01")):
        with pytest.raises(
            SettingError, match="is not in a git repository, expected one for the history git:perf; name a"
        ):
            use()


def test_notes_beyond_the_bound_are_not_read(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    history = history_of(repository)
    history.append(lines_at(repository, 1))
    monkeypatch.setattr("pytest_mlpatterns.history.notes.MOST_BYTES", 100)
    with pytest.raises(HistoryError, match="the notes in refs/notes/perf are larger than 0 MiB; compact them"):
        history.read()


def test_an_error_of_git_is_one_of_the_history(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    history = history_of(repository)
    history.append(lines_at(repository, 1))
    tip = repository.git("rev-parse", REF)
    blob = repository.git("rev-parse", f"{REF}:{repository.git('ls-tree', '--name-only', REF)}")
    (repository.top / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(
        HistoryError, match=r"^the notes in .* cannot be read: the repository lacks the note on [0-9a-f]{40}; fetch"
    ):
        history.read()
    lock = repository.top / ".git" / f"{REF}.lock"
    lock.touch()
    monkeypatch.setattr(note_tree, "_PAUSE_MS", 1)
    with pytest.raises(HistoryError, match=r"^git:perf is unchanged: |^the notes in refs/notes/perf are unchanged: "):
        history.append([numbered_line(2, commits(repository)[0])])
    lock.unlink()
    assert repository.git("rev-parse", REF) == tip


# --- parallel processes ----------------------------------------------------------------------------------------------


def in_a_process(script: str, repository: Repository) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, which has the name of the history in ``history``."""
    begin = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from support.history_lines import codes, herd, killed_at_random, numbered_line
from pytest_mlpatterns.history.notes import NotesHistory
history = NotesHistory("perf", Path({str(repository.top)!r}))
commits = {commits(repository)!r}
"""
    command = [sys.executable, "-c", begin + dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_parallel_processes_lose_no_line_of_notes(repository: Repository) -> None:
    script = """
    def work(index):
        for number in range(10):
            history.append([numbered_line(10 * index + number, commits[number % 3])])

    assert codes(herd(work, 20)) == [0] * 20
    """
    process = in_a_process(script, repository)
    assert (process.returncode, process.stderr) == (0, "")
    history = history_of(repository)
    assert numbers(history) == list(range(200))
    assert history.read().warnings == ()


def test_a_killed_process_leaves_notes_that_others_append_to(repository: Repository) -> None:
    script = """
    done = os.open(history.directory / "done", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def work(index, begin):
        for number in range(index * 1_000, (index + 1) * 1_000):
            history.append([numbered_line(number, commits[index % 3])])
            os.write(done, b"%d\\n" % number)
            os.write(begin, b"x") if number % 1_000 == 0 else None

    killed_at_random(work, 10, most_s=0.2, seed=31)
    """
    process = in_a_process(script, repository)
    assert (process.returncode, process.stderr) == (0, "")
    history = history_of(repository)
    done = {int(number) for number in (repository.top / "done").read_text("utf-8").split()}
    assert done <= set(numbers(history))
    assert history.read().warnings == ()
