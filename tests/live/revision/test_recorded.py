"""The commit that a baseline entry was recorded at, in the histories that people make."""

import json
import socket
from pathlib import Path

import pytest
from support.repository import Repository

from pytest_mlpatterns.records.baseline_entry import EntryKey
from pytest_mlpatterns.revision.commits import RecordedRevision, RecordedRevisions, UnknownRevisionError
from pytest_mlpatterns.system import git
from pytest_mlpatterns.system.git import tree_digest

pytestmark = pytest.mark.processes

TEST, MACHINE = "test_perf.py::test_it", "a laptop"
FILE = "perf-baseline.json"


def baseline(ms: float, *, other: float = 1.0, commit: str | None = None, tree: str = "") -> str:
    """A baseline file whose entry says this, beside one of another test."""
    entry = {"metrics": {"rtm": [[ms, 0.01]]}, "commit": commit, "tree": tree}
    data = {"tests": {TEST: {MACHINE: entry}, "test_other.py::test_it": {MACHINE: {"metrics": other}}}}
    return json.dumps(data, indent=1)


def find(
    repository: Repository, *, file: str = FILE, commit: str | None = None, tree: str = "", fetch: bool = False
) -> RecordedRevision:
    recorded = RecordedRevisions(repository.top, repository.top / file, fetch=fetch)
    return recorded.find(EntryKey(TEST, MACHINE, commit, tree))


def sha_of(found: RecordedRevision) -> str:
    assert found.revision is not None
    return found.revision.sha


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Code, then test and baseline together, then other changes of both code and file."""
    made = Repository.made(tmp_path / "project")
    made.commit({"model.py": "1\n"}, "Model")
    return made


def test_the_commit_that_brought_the_entry_s_content_is_found(repository: Repository) -> None:
    recorded = repository.commit({"model.py": "2\n", FILE: baseline(1.0)}, "Recorded")
    repository.commit({"model.py": "3\n"})
    repository.commit({FILE: baseline(1.0, other=2.0)}, "Another test's entry")
    found = find(repository)
    assert sha_of(found) == recorded
    assert not found.is_present
    assert found.revision is not None
    assert found.revision.name == "the baseline's commit"


def test_a_new_record_counts_from_its_own_commit_and_a_revert_from_the_revert(repository: Repository) -> None:
    repository.commit({FILE: baseline(1.0)})
    second = repository.commit({"model.py": "2\n", FILE: baseline(2.0)})
    assert sha_of(find(repository)) == second
    repository.git("revert", "--no-edit", "HEAD")
    repository.commit({"model.py": "4\n"})
    assert sha_of(find(repository)) == repository.git("rev-parse", "HEAD~1")


def test_a_damaged_version_of_the_file_has_no_entry(repository: Repository) -> None:
    repository.commit({FILE: "[" * 100_000})
    recorded = repository.commit({FILE: baseline(1.0)})
    assert sha_of(find(repository)) == recorded


def test_a_file_that_was_moved_keeps_its_history(repository: Repository) -> None:
    recorded = repository.commit({FILE: baseline(1.0), "model.py": "2\n"})
    (repository.top / "perf").mkdir()
    repository.git("mv", FILE, "perf/base.json")
    repository.commit({"model.py": "3\n"}, "Moved")
    assert sha_of(find(repository, file="perf/base.json")) == recorded


@pytest.mark.parametrize("how", ["--no-ff", "--squash"])
def test_a_branch_counts_from_where_its_baseline_came_into_this_history(repository: Repository, how: str) -> None:
    repository.git("checkout", "--quiet", "-b", "feature")
    on_branch = repository.commit({FILE: baseline(1.0), "model.py": "2\n"})
    repository.git("checkout", "--quiet", "main")
    repository.commit({"other.py": "1\n"}, "Meanwhile")
    repository.git("merge", "--quiet", how, "feature")
    squashed = repository.commit({}, "Squashed") if how == "--squash" else ""
    repository.commit({"model.py": "3\n"}, "Later")
    assert sha_of(find(repository)) == (squashed or on_branch)


def test_an_entry_that_is_not_committed_is_of_the_commit_that_it_names(repository: Repository) -> None:
    head = repository.git("rev-parse", "HEAD")
    repository.write({FILE: baseline(1.0, commit=head[:12])})
    repository.commit({"model.py": "2\n"}, "Meanwhile")
    assert sha_of(find(repository, commit=head[:12])) == head


@pytest.mark.parametrize(
    ("commit", "says"),
    [
        ("0123456789ab+", "is not committed, and was recorded in a tree with changes"),
        (None, "is not committed, and was recorded in a tree with changes"),
        ("0123456789ab", "was recorded at 0123456789ab, which is not in this clone"),
    ],
)
def test_an_entry_of_a_lost_tree_says_what_to_do(repository: Repository, commit: str | None, says: str) -> None:
    repository.write({FILE: baseline(1.0)})
    with pytest.raises(UnknownRevisionError, match=says) as error:
        find(repository, commit=commit)
    assert "commit it together with" in str(error.value)


def test_the_tree_that_was_measured_is_known_again_although_no_commit_holds_it_yet(repository: Repository) -> None:
    repository.write({"model.py": "2\n", "new.py": "x\n"})
    tree = tree_digest(repository.top, [repository.top / FILE])
    repository.write({FILE: baseline(1.0, tree=tree)})
    found = find(repository, tree=tree)
    assert found.is_present
    assert found.revision is None


def test_the_present_tree_is_known_to_be_the_recorded_one(repository: Repository) -> None:
    tree = tree_digest(repository.top)
    repository.commit({FILE: baseline(1.0, tree=tree)})
    assert find(repository).is_present
    repository.write({"model.py": "2\n"})
    assert not find(repository).is_present


def test_a_commit_with_other_files_than_were_measured_is_said(repository: Repository) -> None:
    repository.commit({FILE: baseline(1.0, tree="0" * 20)})
    repository.commit({"model.py": "2\n"})
    found = find(repository, tree="0" * 20)
    assert found.note == "whose files differ from those that perf-baseline.json was recorded from"
    assert find(repository).note == ""  # an older entry does not know its tree


def test_the_clean_commit_that_was_measured_wins_over_the_one_that_brought_the_entry(repository: Repository) -> None:
    """Recorded at a clean commit, and committed later together with slower code."""
    measured = repository.git("rev-parse", "HEAD")
    tree = tree_digest(repository.top)
    repository.commit({"model.py": "slower\n", FILE: baseline(1.0, commit=measured[:12], tree=tree)})
    found = find(repository, commit=measured[:12], tree=tree)
    assert sha_of(found) == measured
    assert not found.is_present
    assert found.note == ""


def test_a_detached_head_is_no_hindrance(repository: Repository) -> None:
    recorded = repository.commit({FILE: baseline(1.0)})
    repository.commit({"model.py": "2\n"})
    repository.git("checkout", "--quiet", "--detach")
    assert sha_of(find(repository)) == recorded


def test_a_remote_that_does_not_answer_in_time_settles_nothing(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({FILE: baseline(1.0)})
    clone = Repository.cloned(repository, tmp_path / "clone", "--depth=1")
    monkeypatch.setitem(git._LIMITS_S, "fetch", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as remote:
        clone.git("remote", "set-url", "origin", f"http://127.0.0.1:{remote.getsockname()[1]}/x.git")
        with pytest.raises(UnknownRevisionError, match=r"^`git fetch` was stopped after 0.5 s in "):
            find(clone, fetch=True)


def test_a_shallow_clone_that_reaches_far_enough_is_enough(repository: Repository, tmp_path: Path) -> None:
    repository.commit({"model.py": "2\n"})
    recorded = repository.commit({FILE: baseline(1.0)})
    repository.commit({"model.py": "3\n"})
    clone = Repository.cloned(repository, tmp_path / "clone", "--depth=3")
    assert sha_of(find(clone)) == recorded


def test_in_a_repository_without_a_commit_an_entry_says_what_to_do(tmp_path: Path) -> None:
    empty = Repository.made(tmp_path / "new")
    (empty.top / FILE).write_text(baseline(1.0), encoding="utf-8")
    with pytest.raises(UnknownRevisionError, match="is not committed, and was recorded in a tree with changes"):
        find(empty)


def test_without_git_it_is_unknown(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(baseline(1.0), encoding="utf-8")
    with pytest.raises(UnknownRevisionError, match="is not in a git repository"):
        RecordedRevisions(tmp_path, tmp_path / FILE).find(EntryKey(TEST, MACHINE, None))


def test_a_baseline_outside_the_repository_is_unknown(repository: Repository, tmp_path: Path) -> None:
    outside = tmp_path / FILE
    outside.write_text(baseline(1.0), encoding="utf-8")
    with pytest.raises(UnknownRevisionError, match="is not in the repository"):
        RecordedRevisions(repository.top, outside).find(EntryKey(TEST, MACHINE, None))
