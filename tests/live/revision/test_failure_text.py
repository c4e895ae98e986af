"""What is said of a test that fails at a revision."""

from pathlib import Path

import pytest
from support.each_row import each_row
from support.repository import Repository

from pytest_mlpatterns.revision.client import error_line, hint_at_files, without_markers
from pytest_mlpatterns.revision.commits import resolve_revision
from pytest_mlpatterns.revision.worktree import Worktree

TRACEBACK = """test_shop.py:12: in perf_model
    return Model(open("w.json"))
                 ^^^^^^^^^^^^^^
E   FileNotFoundError: [Errno 2] No such file or directory: 'w.json'"""


@each_row(
    ("text", "line"),
    (TRACEBACK, "FileNotFoundError: [Errno 2] No such file or directory: 'w.json'"),
    ("Skipped: needs a GPU", "Skipped: needs a GPU"),
    (
        "ImportError while importing test module\nE   ModuleNotFoundError: No module named 'a'\n",
        "ModuleNotFoundError: No module named 'a'",
    ),
    ("the first\nthe last\n", "the last"),
    ("E   ChildError: it printed last:\nE   | KeyError: 'no'\nE   |   ^^^^^", "KeyError: 'no'"),
    ("| RuntimeError: it ended", "RuntimeError: it ended"),
    ("", ""),
)
def test_the_line_that_names_the_error_comes_first(text: str, line: str) -> None:
    assert error_line(text) == line


def test_rows_of_markers_are_left_out() -> None:
    assert "^" not in without_markers(TRACEBACK)
    assert len(without_markers(TRACEBACK).splitlines()) == 3
    assert without_markers("2 ^ 3\n|     ^^^\nE   |   ~^~") == "2 ^ 3"
    assert without_markers("2 ^ 3\n   ~~^~~\nE       ^^^") == "2 ^ 3"


@pytest.fixture
def worktree(tmp_path: Path) -> Worktree:
    """A revision of a repository whose project lies in a folder."""
    repository = Repository.made(tmp_path / "top")
    repository.commit({"project/test_shop.py": "", "project/here.txt": ""})
    root = tmp_path / "elsewhere" / "top"
    (root / "project").mkdir(parents=True)
    (root / "project" / "here.txt").touch()
    revision = resolve_revision(repository.top, "main")
    return Worktree(revision, root, root / "project", repository.top, ())


@pytest.mark.processes
@pytest.mark.parametrize(
    ("named", "file"),
    [
        ("'data/w.json'", "data/w.json"),
        ('"../shared.csv"', "../shared.csv"),
        ("{root}/project/data/w.json", "data/w.json"),
        ("No module named 'settings_local'", "settings_local.py"),
        ("No module named 'shop.local'", "src/shop/local.py"),
    ],
)
def test_a_file_that_only_the_working_tree_has_is_named(worktree: Worktree, named: str, file: str) -> None:
    path = worktree.present_root / "project" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    text = f"Error: no {named.format(root=worktree.root)}"
    assert hint_at_files(text, "test_shop.py::test_shop", worktree) == (
        f"{file} exists here, but git does not track it, so main runs without it; take it along: "
        f'--perf-against-files "{file}"'
    )


@pytest.mark.processes
def test_files_of_both_or_of_neither_tree_are_not_named(worktree: Worktree) -> None:
    (worktree.present_root / "project" / "here.txt").touch()
    text = f"'here.txt' 'nowhere.txt' '/etc/passwd' '' '.' '{'long ' * 59}' 'a\0b' '..' '../..'"
    assert hint_at_files(text, "test_shop.py::test_shop", worktree) == ""
