"""The digest of a working tree and of a commit: equal for equal files, and different for each kind of change."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.repository import Repository

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.git import changed_files, commit, commit_digest, tree_digest

pytestmark = pytest.mark.processes

FILES = {"model.py": "WORK = 1\n", "src/a b.py": "x = 1\n", ".gitignore": "*.log\n", "perf-baseline.json": "{}\n"}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository.made(tmp_path / "project")
    made.commit(FILES)
    return made


def test_a_clean_tree_has_the_digest_of_its_commit(repository: Repository) -> None:
    head = repository.git("rev-parse", "HEAD")
    assert tree_digest(repository.top) == commit_digest(repository.top, head)
    assert tree_digest(repository.top / "src") == commit_digest(repository.top, head)  # it is of the whole repository


def test_a_tree_with_changes_has_the_digest_of_the_commit_that_then_holds_them(repository: Repository) -> None:
    before = tree_digest(repository.top)
    repository.write({"model.py": "WORK = 2\n", "new\nline.py": "y = 1\n", "src/new.py": "y = 2\n"})
    os.symlink("model.py", repository.top / "link.py")
    os.chmod(repository.top / "src/a b.py", 0o755)
    now = tree_digest(repository.top)
    repository.git("add", "--all")
    assert tree_digest(repository.top) == now != before
    repository.git("commit", "--quiet", "--message", "All")
    assert commit_digest(repository.top, "HEAD") == now == tree_digest(repository.top)
    assert repository.git("status", "--porcelain") == ""


def test_nothing_is_written_to_the_repository(repository: Repository) -> None:
    repository.write({"model.py": "WORK = 3\n", "new.py": "y = 1\n"})
    before = sorted(path for path in (repository.top / ".git").rglob("*"))
    status = repository.git("status", "--porcelain")
    tree_digest(repository.top)
    assert sorted(path for path in (repository.top / ".git").rglob("*")) == before
    assert repository.git("status", "--porcelain") == status


@pytest.mark.parametrize(
    "change",
    [
        lambda top: (top / "model.py").write_text("WORK = 4\n"),
        lambda top: (top / "model.py").unlink(),
        lambda top: (top / "model.py").chmod(0o755),
        lambda top: (top / "new.py").write_text(""),
        lambda top: (top / "model.py").rename(top / "other.py"),
    ],
    ids=["content", "deleted", "mode", "new", "renamed"],
)
def test_each_change_of_a_file_changes_it(repository: Repository, change: Callable[[Path], object]) -> None:
    before = tree_digest(repository.top)
    change(repository.top)
    assert tree_digest(repository.top) != before


@pytest.mark.parametrize("mark", ["--skip-worktree", "--assume-unchanged"])
def test_a_file_whose_changes_git_does_not_look_for_counts_as_it_is(repository: Repository, mark: str) -> None:
    head, file = commit_digest(repository.top, "HEAD"), repository.top / "src/a b.py"
    repository.git("update-index", mark, "src/a b.py")
    assert (tree_digest(repository.top), changed_files(repository.top)) == (head, ())
    file.write_text("x = 2\n")
    assert repository.git("status", "--porcelain") == ""
    assert tree_digest(repository.top) != head
    assert changed_files(repository.top) == ("src/a b.py",)
    assert changed_files(repository.top, [file]) == ()
    file.unlink()
    is_sparse = mark == "--skip-worktree"  # a sparse checkout leaves it out
    assert (tree_digest(repository.top) == head, changed_files(repository.top) == ()) == (is_sparse, is_sparse)


@pytest.mark.parametrize("name", ["run.log", "__pycache__/model.pyc", ".pytest_cache/README.md", "perf-baseline.json"])
def test_what_git_ignores_and_what_a_run_writes_does_not_count(repository: Repository, name: str) -> None:
    left_out = [repository.top / "perf-baseline.json"]
    before = tree_digest(repository.top, left_out)
    repository.write({name: "written by a run\n"})
    assert tree_digest(repository.top, left_out) == before == commit_digest(repository.top, "HEAD", left_out)


def test_a_submodule_counts_by_its_commit_and_by_its_changes(repository: Repository, tmp_path: Path) -> None:
    other = Repository.made(tmp_path / "other")
    other.commit({"weights.txt": "1\n"})
    repository.git("submodule", "--quiet", "add", other.top.as_uri(), "data")
    repository.git("commit", "--quiet", "--message", "Data")
    assert tree_digest(repository.top) == commit_digest(repository.top, "HEAD")
    (repository.top / "data/weights.txt").write_text("2\n")
    changed = tree_digest(repository.top)
    assert changed != commit_digest(repository.top, "HEAD")
    (repository.top / "data/weights.txt").write_text("3\n")
    assert tree_digest(repository.top) not in (changed, commit_digest(repository.top, "HEAD"))


def test_without_a_repository_there_is_no_digest(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="not in a git repository"):
        tree_digest(tmp_path)


def test_a_large_file_that_no_commit_holds_is_not_read(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_mlpatterns.system.git._LARGE_BYTES", 3)
    repository.write({"weights.bin": "1234", '"quoted".py': "x"})
    os.utime(repository.top / "weights.bin", ns=(10, 10))
    before = tree_digest(repository.top)
    os.utime(repository.top / "weights.bin", ns=(20, 20))
    assert tree_digest(repository.top) != before


def test_a_repository_in_it_that_has_no_commit_counts_by_its_files(repository: Repository) -> None:
    inner = Repository.made(repository.top / "data")
    empty = tree_digest(repository.top)
    inner.write({"rows.csv": "1\n"})
    one = tree_digest(repository.top)
    inner.write({"rows.csv": "2\n"})
    assert len({empty, one, tree_digest(repository.top)}) == 3


def test_the_commit_is_that_of_the_directory_also_in_a_hook_of_another_repository(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repository.made(tmp_path / "other")
    other.commit({"a.py": "a = 1\n"})
    monkeypatch.setenv("GIT_DIR", str(other.top / ".git"))
    found = commit(repository.top)
    monkeypatch.delenv("GIT_DIR")
    assert found == repository.git("rev-parse", "--short=12", "HEAD")
