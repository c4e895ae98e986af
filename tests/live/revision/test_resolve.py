"""Which commit is meant, in real repositories of every state, and what is said where there is none."""

import os
import shutil
from pathlib import Path

import pytest
from support.repository import Repository

from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.revision.commits import Revision, resolve_revision

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Two commits on main with a tag on the first, and a branch from the first with one commit, checked out."""
    made = Repository.made(tmp_path_factory.mktemp("template") / "project")
    made.commit({"model.py": "1"}, "First model\n\nWith more words")
    made.git("tag", "--annotate", "--message=first", "v1.0")
    made.git("branch", "faster-model")
    made.commit({"model.py": "2"}, "Größeres Modell")
    made.git("switch", "--quiet", "faster-model")
    made.commit({"pkg/model.py": "3"}, "Faster model")
    return made


@pytest.fixture
def repository(template: Repository, tmp_path: Path) -> Repository:
    """A copy of it, for one test."""
    return template.copied(tmp_path / "project")


@pytest.mark.parametrize(
    ("ref", "commit", "subject"),
    [
        ("main", "main", "Größeres Modell"),
        ("faster-model", "HEAD", "Faster model"),
        ("v1.0", "main~1", "First model"),
        ("HEAD~1", "main~1", "First model"),
        ("@{-1}", "main", "Größeres Modell"),
        ("merge-base:main", "main~1", "First model"),
        ("merge-base:v1.0", "main~1", "First model"),
        ("merge-base:HEAD", "HEAD", "Faster model"),
    ],
)
def test_a_revision_is_found_by_any_name(repository: Repository, ref: str, commit: str, subject: str) -> None:
    sha = repository.git("rev-parse", commit)
    expected = Revision(sha, ref, subject, repository.git("rev-parse", "--short", sha))
    assert resolve_revision(repository.top, ref) == expected


@pytest.mark.parametrize("length", [7, 40])
def test_a_revision_is_found_by_its_hash(repository: Repository, length: int) -> None:
    sha = repository.git("rev-parse", "main")
    revision = resolve_revision(repository.top, sha[:length])
    assert (revision.sha, revision.name) == (sha, sha[:length])


def test_a_revision_is_found_from_below_the_top_a_detached_head_and_a_worktree(repository: Repository) -> None:
    expected = resolve_revision(repository.top, "main")
    assert resolve_revision(repository.top / "pkg", "main") == expected
    repository.git("worktree", "add", "--quiet", "--detach", "../another")
    assert resolve_revision(repository.top.parent / "another" / "pkg", "main") == expected
    repository.git("switch", "--quiet", "--detach")
    assert resolve_revision(repository.top, "main") == expected
    assert resolve_revision(repository.top, "merge-base:main").sha == repository.git("rev-parse", "main~1")


def test_a_subject_that_is_no_text_can_be_printed(repository: Repository) -> None:
    message = repository.top / "message"
    message.write_bytes(b"caf\xe9 model\n")
    repository.git("-c", "i18n.commitEncoding=unheard-of", "commit", "--quiet", "--allow-empty", "--file", str(message))
    assert resolve_revision(repository.top, "HEAD").subject == "caf� model"


def test_a_branch_of_the_only_remote_that_has_it_needs_no_remote(repository: Repository, tmp_path: Path) -> None:
    clone = Repository.cloned(repository, tmp_path / "clone")
    revision = resolve_revision(clone.top, "main")
    assert (revision.name, revision.sha) == ("origin/main", repository.git("rev-parse", "main"))
    base = resolve_revision(clone.top, "merge-base:main")
    assert (base.name, base.sha) == ("merge-base:origin/main", repository.git("rev-parse", "main~1"))
    clone.git("remote", "add", "--fetch", "fork", repository.top.as_uri())
    with pytest.raises(SettingError, match=r"'main' is no revision of .*clone.* such as fork/main, origin/main$"):
        resolve_revision(clone.top, "main")


def test_an_unknown_revision_brings_those_that_sound_like_it(repository: Repository) -> None:
    with pytest.raises(SettingError) as raised:
        resolve_revision(repository.top, "faster-modl")
    assert str(raised.value) == (
        f"'faster-modl' is no revision of {repository.top}, expected a branch, tag or commit such as faster-model"
    )
    with pytest.raises(SettingError, match=r"such as faster-model, main, v1\.0$"):
        resolve_revision(repository.top, "0123456789")


@pytest.mark.parametrize("ref", ["", "-h", "--all", "^main", "*", "main..v1.0", "HEAD:model.py", "merge-base:", "a b"])
def test_what_names_no_commit_is_refused(repository: Repository, ref: str) -> None:
    with pytest.raises(SettingError, match="is no revision of"):
        resolve_revision(repository.top, ref)


def test_without_a_commit_that_is_said(tmp_path: Path) -> None:
    empty = Repository.made(tmp_path / "project")
    for ref in ("main", "HEAD", "merge-base:main"):
        with pytest.raises(SettingError, match=f"no commit yet in {empty.top}.*; commit first"):
            resolve_revision(empty.top, ref)


def test_outside_a_repository_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=f"{tmp_path} is not in a git repository"):
        resolve_revision(tmp_path, "main")


def test_without_git_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeploymentError, match=r"no `git` on PATH.*install git"):
        resolve_revision(tmp_path, "main")


def test_a_repository_of_somebody_else_brings_what_git_says(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    with pytest.raises(DeploymentError, match=r"dubious ownership(.|\n)*--add safe.directory"):
        resolve_revision(repository.top, "main")


def test_a_bare_repository_brings_what_git_says(repository: Repository, tmp_path: Path) -> None:
    bare = Repository.cloned(repository, tmp_path / "bare", "--bare")
    with pytest.raises(DeploymentError, match="must be run in a work tree"):
        resolve_revision(bare.top, "main")


@pytest.mark.parametrize("ref", ["main", "v1.0", "HEAD~1"])
def test_a_shallow_clone_is_said_where_a_revision_is_missing(repository: Repository, tmp_path: Path, ref: str) -> None:
    clone = Repository.cloned(repository, tmp_path / "clone", "--depth=1")
    with pytest.raises(SettingError, match=r"shallow.*`git fetch --unshallow`.*`fetch-depth: 0`"):
        resolve_revision(clone.top, ref)
    assert resolve_revision(clone.top, "HEAD").subject == "Faster model"


def test_a_shallow_clone_is_said_where_the_merge_base_is_missing(repository: Repository, tmp_path: Path) -> None:
    clone = Repository.cloned(repository, tmp_path / "clone", "--depth=1", "--no-single-branch")
    assert resolve_revision(clone.top, "main").subject == "Größeres Modell"
    with pytest.raises(SettingError, match=r"^merge-base:main: HEAD and origin/main have no common commit.*shallow"):
        resolve_revision(clone.top, "merge-base:main")
    clone.git("fetch", "--quiet", "--unshallow")
    assert resolve_revision(clone.top, "merge-base:main").subject == "First model"


def test_branches_without_a_common_commit_are_said(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--orphan", "new")
    repository.commit({"model.py": "4"})
    with pytest.raises(SettingError, match=r"HEAD and main have no common commit in .*, expected at least one$"):
        resolve_revision(repository.top, "merge-base:main")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GIT_DIR", "{}/.git"),
        ("GIT_WORK_TREE", "{}"),
        ("GIT_COMMON_DIR", "{}/.git"),
        ("GIT_NAMESPACE", "other"),
        ("GIT_OBJECT_DIRECTORY", "{}/.git/objects"),
        ("GIT_CEILING_DIRECTORIES", "{}"),
    ],
)
def test_the_environment_of_a_hook_does_not_lead_astray(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    expected = resolve_revision(repository.top, "main")
    other = Repository.made(tmp_path / "other")
    other.commit({"model.py": "another"})
    monkeypatch.setenv(name, value.format(other.top))
    assert resolve_revision(repository.top, "main") == expected
