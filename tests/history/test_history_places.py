"""What an option may name as the place of a history."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.history.file import FileHistory
from pytest_mlpatterns.history.notes import NotesHistory
from pytest_mlpatterns.history.place import open_history

ROOT, HERE = Path("/project"), Path("/project/tests")


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("perf-history.jsonl", "/project/tests/perf-history.jsonl"),
        ("../history.jsonl", "/project/tests/../history.jsonl"),
        ("/data/history.jsonl", "/data/history.jsonl"),
        ("./git:perf", "/project/tests/git:perf"),
        ("digit:5", "/project/tests/digit:5"),
    ],
)
def test_a_path_is_a_file(given: str, path: str) -> None:
    history = open_history(given, root=ROOT, invoked_in=HERE)
    assert history == FileHistory(Path(path), given)
    assert history.name == given


@pytest.mark.parametrize("name", ["perf", "p", "perf-2", "a.b_c", "n" * 100])
def test_git_and_a_name_are_notes(name: str) -> None:
    history = open_history(f"git:{name}", root=ROOT, invoked_in=HERE)
    assert history == NotesHistory(name, ROOT)
    assert history.name == f"git:{name}"


@pytest.mark.parametrize(
    "given",
    [
        "git:",
        "git:a b",
        "git:-x",
        "git:a/b",
        "git:../x",
        "git:a..b",
        "git:x.lock",
        "git:.x",
        "git:x.",
        "git:ä",
        "git:a\nb",
    ],
)
def test_other_names_of_notes_are_refused(given: str) -> None:
    with pytest.raises(
        SettingError, match=r"the history is .*, expected git: and a name of .*, such as git:perf; for a"
    ):
        open_history(given, root=ROOT, invoked_in=HERE)


def test_notes_of_people_and_no_place_are_refused() -> None:
    with pytest.raises(SettingError, match="whose notes are those that people write; write git:perf"):
        open_history("git:commits", root=ROOT, invoked_in=HERE)
    for given in ("", "  "):
        with pytest.raises(SettingError, match="the history is empty text, expected a path, or git:NAME"):
            open_history(given, root=ROOT, invoked_in=HERE)
