"""What is checked out: its place along first parents, and the files that differ from it."""

from pathlib import Path

import pytest
from support.repository import Repository

from pytest_mlpatterns.history.checkout import Checkout, checkout_of, first_parents, position_in
from pytest_mlpatterns.records.history import CommitPosition

pytestmark = pytest.mark.processes


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Two commits, a merged branch of two, and one commit after it: four along first parents."""
    made = Repository.made(tmp_path / "project")
    made.commit({"model.py": "1\n", ".gitignore": "*.log\n"})
    made.commit({"model.py": "2\n"})
    made.git("checkout", "--quiet", "-b", "feature")
    made.commit({"other.py": "1\n"})
    made.commit({"other.py": "2\n"})
    made.git("checkout", "--quiet", "main")
    made.git("merge", "--quiet", "--no-ff", "feature")
    made.commit({"model.py": "3\n"})
    return made


def test_a_commit_stands_where_first_parents_count_it(repository: Repository) -> None:
    head = repository.git("rev-parse", "HEAD")
    assert checkout_of(repository.top) == Checkout(CommitPosition(head, 4))
    order = first_parents(repository.top)
    assert (len(order), order[-1]) == (4, head)
    assert [position_in(repository.top, sha).position for sha in order] == [1, 2, 3, 4]
    feature = position_in(repository.top, "feature")
    assert (feature.position, feature.commit in order) == (4, False)


def test_files_that_differ_are_named_and_results_do_not_count(repository: Repository) -> None:
    (repository.top / "src").mkdir()
    repository.write(
        {"model.py": "4\n", "new file.py": "1\n", "a.log": "", "src/__pycache__/a.pyc": "", "runs.jsonl": ""}
    )
    found = checkout_of(repository.top / "src", [repository.top / "runs.jsonl"])
    assert (sorted(found.changed), found.clean) == (["model.py", "new file.py"], False)
    assert sorted(checkout_of(repository.top, [repository.top / "model.py"]).changed) == ["new file.py", "runs.jsonl"]


def test_a_file_that_was_moved_differs_twice(repository: Repository) -> None:
    repository.git("mv", "model.py", "moved.py")
    assert sorted(checkout_of(repository.top).changed) == ["model.py", "moved.py"]


def test_a_shallow_clone_knows_no_position(repository: Repository, tmp_path: Path) -> None:
    clone = Repository.cloned(repository, tmp_path / "clone", "--depth=1")
    found = checkout_of(clone.top)
    assert found == Checkout(CommitPosition(repository.git("rev-parse", "HEAD"), 0))
    assert first_parents(clone.top) == ()


def test_a_commit_that_is_not_here_keeps_its_name(repository: Repository) -> None:
    assert position_in(repository.top, "f" * 40) == CommitPosition("f" * 40, 0)


def test_outside_of_git_there_is_no_commit(tmp_path: Path) -> None:
    assert checkout_of(tmp_path) == Checkout(CommitPosition())
    assert checkout_of(tmp_path).clean
    assert (first_parents(tmp_path), position_in(tmp_path, "HEAD")) == ((), CommitPosition("HEAD"))


def test_before_the_first_commit_there_is_none(tmp_path: Path) -> None:
    made = Repository.made(tmp_path / "project")
    made.write({"model.py": "1\n"})
    assert checkout_of(made.top) == Checkout(CommitPosition())
