"""Which commits a range names: along first parents, with names for people."""

from pathlib import Path

import pytest
from support.repository import Repository

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.history.checkout import commit_names, read_range

pytestmark = pytest.mark.processes  # git


@pytest.fixture
def merged(tmp_path: Path) -> tuple[Repository, dict[str, str]]:
    """A branch ``main`` with commits a, b, a merge m of the branch ``side`` with s and t, and c."""
    repository = Repository.made(tmp_path / "top")
    found = {"a": repository.commit({"a": "1"}, "A"), "b": repository.commit({"b": "1"}, "B")}
    repository.git("switch", "--quiet", "--create", "side")
    found |= {"s": repository.commit({"s": "1"}, "S"), "t": repository.commit({"t": "1"}, "T")}
    repository.git("switch", "--quiet", "main")
    found["x"] = repository.commit({"x": "1"}, "X")
    repository.git("merge", "--quiet", "--no-ff", "--message", "M", "side")
    found["m"] = repository.git("rev-parse", "HEAD")
    found["c"] = repository.commit({"c": "1"}, "C: ü ")
    return repository, found


def test_a_merged_branch_counts_as_one_commit(merged: tuple[Repository, dict[str, str]]) -> None:
    repository, shas = merged
    commits = read_range(repository.top, f"{shas['a']}..main")
    assert commits.shas == tuple(shas[name] for name in "abxmc")
    assert (commits.good.sha, commits.bad.name) == (shas["a"], "main")
    assert commits.revision(0) == commits.good
    assert commits.revision(4) == commits.bad
    assert commits.revision(2).name == shas["x"][:12]
    assert read_range(repository.top, f"{shas['m']}..").shas == (shas["m"], shas["c"])


def test_commits_have_names(merged: tuple[Repository, dict[str, str]]) -> None:
    repository, shas = merged
    names = commit_names(repository.top, (shas["c"], shas["a"]))
    assert names[shas["c"]].subject == "C: ü"
    assert names[shas["a"]].author == "Ada"
    assert shas["a"].startswith(names[shas["a"]].short)


def test_a_commit_of_a_merged_branch_is_no_start(merged: tuple[Repository, dict[str, str]]) -> None:
    repository, shas = merged
    with pytest.raises(SettingError, match=r"side is not on the line of first parents of main"):
        read_range(repository.top, "side..main")
    with pytest.raises(SettingError, match=rf"main~2 is not on the line .* write {shas['b'][:12]}\.\.side"):
        read_range(repository.top, "main~2..side")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("main", "is no range of commits, expected GOOD..BAD"),
        ("..main", "is no range of commits"),
        ("main...side", "is no range of commits"),
        ("main..main", "are the same commit, expected GOOD before BAD"),
        ("main..side", "has no commit: side comes before main"),
        ("absent..main", "'absent' is no revision"),
    ],
)
def test_what_is_no_range_is_an_error(merged: tuple[Repository, dict[str, str]], text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read_range(merged[0].top, text)
