"""Notes of several clones: pushes and pulls keep every line, also beside other pushes and after a compaction."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.history_lines import numbered_line
from support.repository import Repository, settings

from pytest_mlpatterns.errors import HistoryError, SettingError
from pytest_mlpatterns.history import notes
from pytest_mlpatterns.history.notes import NotesHistory
from pytest_mlpatterns.records.history import Transfer
from pytest_mlpatterns.system.git import Git

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.processes
REF = "refs/notes/perf"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git's settings for the package's own calls, and no pauses."""
    for name, value in settings().items():
        if name.startswith("GIT_CONFIG"):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(notes, "_PAUSE_MS", 1)


@pytest.fixture
def origin(tmp_path: Path) -> Repository:
    made = Repository.made(tmp_path / "origin")
    for number in range(2):
        made.commit({"model.py": f"SPEED = {number}\n"})
    return made


@pytest.fixture
def one(origin: Repository, tmp_path: Path) -> NotesHistory:
    return NotesHistory("perf", Repository.cloned(origin, tmp_path / "one").top)


@pytest.fixture
def other(origin: Repository, tmp_path: Path) -> NotesHistory:
    """A shallow clone, as CI makes it."""
    return NotesHistory("perf", Repository.cloned(origin, tmp_path / "other", "--depth=1").top)


def head(history: NotesHistory) -> str:
    return Git(history.directory).run("rev-parse", "HEAD").strip()


def add(history: NotesHistory, *numbers: int) -> None:
    history.append([numbered_line(number, head(history)) for number in numbers])


def numbers(history: NotesHistory) -> list[int]:
    return sorted(int(line.setup) for line in history.read().lines)


def in_origin(origin: Repository) -> list[int]:
    return numbers(NotesHistory("perf", origin.top))


def test_a_push_sends_notes_and_a_pull_fetches_them(origin: Repository, one: NotesHistory, other: NotesHistory) -> None:
    assert one.pull("origin") == Transfer()
    assert one.push("origin") == Transfer()
    add(one, 1)
    assert one.push("origin") == Transfer(sent=1)
    assert one.push("origin") == Transfer()
    assert in_origin(origin) == [1]
    assert other.pull("origin") == Transfer(received=1)
    assert other.pull(origin.top.as_uri()) == Transfer()
    assert numbers(other) == [1]
    add(one, 2)
    assert one.push(str(origin.top)) == Transfer(sent=1)
    assert other.pull("origin") == Transfer(received=1)
    assert numbers(other) == [1, 2]


def test_clones_that_began_apart_are_merged(origin: Repository, one: NotesHistory, other: NotesHistory) -> None:
    add(one, 1, 2)
    add(other, 2, 3)
    assert one.push("origin") == Transfer(sent=1)
    assert other.push("origin") == Transfer(received=1, sent=1)
    assert numbers(other) == in_origin(origin) == [1, 2, 3]
    assert one.pull("origin") == Transfer(received=1)
    assert numbers(one) == [1, 2, 3]
    assert one.read().warnings == ()


def test_a_merge_of_lines_that_are_here_already_changes_no_note(
    origin: Repository, one: NotesHistory, other: NotesHistory
) -> None:
    add(one, 1, 2)
    add(other, 2)
    other.push("origin")
    assert one.push("origin") == Transfer(sent=1)
    assert in_origin(origin) == [1, 2]


def test_notes_on_different_commits_are_merged(origin: Repository, one: NotesHistory, other: NotesHistory) -> None:
    first, last = origin.git("log", "--reverse", "--format=%H").split()
    one.append([numbered_line(1, first), numbered_line(2, last)])
    one.push("origin")
    other.pull("origin")
    one.append([numbered_line(3, first)])
    add(other, 4)
    assert other.push("origin") == Transfer(sent=1)
    assert one.push("origin") == Transfer(received=1, sent=1)
    assert other.pull("origin") == Transfer(received=1)
    assert numbers(one) == numbers(other) == in_origin(origin) == [1, 2, 3, 4]


def test_a_push_that_another_one_overtakes_is_made_anew(
    origin: Repository, one: NotesHistory, other: NotesHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(one, 1)
    add(other, 2)
    real, overtaken = notes._fetched, []

    def fetched(tree: object, remote: str) -> str:
        state = real(tree, remote)  # type: ignore[arg-type]
        if not overtaken:
            overtaken.append(state)
            other.push("origin")
        return state

    monkeypatch.setattr(notes, "_fetched", fetched)
    assert one.push("origin") == Transfer(received=1, sent=1)
    assert in_origin(origin) == [1, 2]


def test_a_push_that_the_remote_refuses_is_an_error(origin: Repository, one: NotesHistory) -> None:
    add(one, 1)
    hook = origin.top / ".git" / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no notes here\nexit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    with pytest.raises(HistoryError, match=r"(?s)^git:perf is not pushed: `git push` failed in .*no notes here"):
        one.push("origin")
    assert in_origin(origin) == []
    assert numbers(one) == [1]


@pytest.mark.parametrize("use", [NotesHistory.push, NotesHistory.pull], ids=["push", "pull"])
def test_a_missing_remote_is_named(
    one: NotesHistory, tmp_path: Path, use: Callable[[NotesHistory, str], Transfer]
) -> None:
    add(one, 1)
    expected = "there is no remote {} in .*, expected origin or the address of a repository"
    for remote in ("upstream", "--upload-pack=/bin/true", ""):
        with pytest.raises(SettingError, match=expected.format(f"'{remote}'")):
            use(one, remote)
    with pytest.raises(HistoryError, match=r"^git:perf is not .*: `git ls-remote` failed in .*missing"):
        use(one, str(tmp_path / "missing"))
    with pytest.raises(SettingError, match="is not in a git repository"):
        use(NotesHistory("perf", tmp_path), "origin")


def test_fetching_keeps_to_the_notes_whatever_is_configured(
    origin: Repository, one: NotesHistory, other: NotesHistory
) -> None:
    """A usual setting for notes replaces those here by those of the remote, which would lose lines."""
    add(one, 1)
    one.push("origin")
    add(other, 2)
    Git(other.directory).run("config", "--add", "remote.origin.fetch", "+refs/notes/*:refs/notes/*")
    assert other.pull("origin") == Transfer(received=1)
    assert numbers(other) == [1, 2]


def test_a_compaction_survives_a_merge_with_a_clone_that_has_the_lines(
    origin: Repository, one: NotesHistory, other: NotesHistory
) -> None:
    add(one, *range(5))
    one.append([numbered_line(number, head(one), machine=f"machine {number}") for number in (7, 7, 8)])
    one.push("origin")
    other.pull("origin")
    add(other, 9)
    one.compact("2030-01")
    compact = {line.to_text() for line in one.read().lines}
    one.push("origin")
    other.push("origin")
    one.pull("origin")
    (added,) = {line.to_text() for line in other.read().lines} - compact
    assert numbered_line(9, head(other)).to_text() == added
    assert compact < {line.to_text() for line in one.read().lines}


def test_a_note_that_a_side_removes_is_removed_unless_the_other_has_changed_it(
    origin: Repository, one: NotesHistory, other: NotesHistory
) -> None:
    first, last = origin.git("log", "--reverse", "--format=%H").split()
    one.append([numbered_line(1, first), numbered_line(2, last)])
    one.push("origin")
    other.pull("origin")
    Git(one.directory).run("-c", "user.name=A", "-c", "user.email=a@b", "notes", f"--ref={REF}", "remove", first, last)
    one.push("origin")
    add(other, 3)
    assert other.push("origin") == Transfer(received=2, sent=1)
    assert numbers(other) == in_origin(origin) == [3]


def test_pushes_of_many_clones_at_once_keep_every_line(origin: Repository, one: NotesHistory, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.history_lines import numbered_line
from pytest_mlpatterns.history.notes import NotesHistory
history = NotesHistory("perf", Path(sys.argv[2]))
history.append([numbered_line(int(sys.argv[3]), sys.argv[4])])
history.push("origin")
"""
    clones = [Repository.cloned(origin, tmp_path / f"clone {number}", "--depth=1") for number in range(6)]
    tests = str(Path(__file__).parents[1])
    started = [
        subprocess.Popen([sys.executable, "-c", script, tests, str(clone.top), str(number), head(one)])
        for number, clone in enumerate(clones)
    ]
    assert [process.wait() for process in started] == [0] * 6
    assert in_origin(origin) == list(range(6))
