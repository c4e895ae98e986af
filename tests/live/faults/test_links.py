"""Another user of the machine takes names that this user's runs come back to: links, directories, locks and caches.

root plays another user by giving it what the test makes. A user without that right plays itself, so the links are its
own; who owns what is then tested by declared user ids in tests/unit/system/test_owned_files.py.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.history_lines import history_line
from support.project import READ_ONLY, run_here
from support.repository import Repository
from support.synthetic import SETUP

from pytest_mlpatterns.baseline.file import read_baselines, write_baselines
from pytest_mlpatterns.errors import BaselineFileError
from pytest_mlpatterns.history.file import History
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.revision import environment
from pytest_mlpatterns.revision.commits import Revision
from pytest_mlpatterns.revision.environment import RevisionEnvironment, revision_environment
from pytest_mlpatterns.revision.worktree import Worktree, checkout, remove_stale
from pytest_mlpatterns.system.files import ForeignLockError, replace_file
from pytest_mlpatterns.system.scratch_directory import ScratchDirectory

pytestmark = pytest.mark.processes

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
"""Whether files can be given to another user."""
PASSES = "def test_app(perf): perf.assert_rtm_below('60s')"
BASE = "mlpatterns-against-1-abcdefgh"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files that all users share; pytest's own can be entered by this user alone."""
    directory = Path(tempfile.mkdtemp(prefix="shared-")).resolve()
    directory.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def projects(temporary: Path) -> Path:
    """A directory with a repository and another file of this user."""
    directory = temporary / "projects"
    (directory / "other").mkdir(parents=True)
    (directory / "other" / "thesis.txt").write_text("years", encoding="utf-8")
    (directory / "other").chmod(0o2775)
    return directory


@pytest.fixture
def repository(projects: Path) -> Repository:
    """A repository in it, with one commit."""
    made = Repository.made(projects / "app")
    made.commit({"app.py": "", "test_app.py": f"import pytest\n\n@pytest.mark.perf\n{PASSES}\n"})
    return made


@pytest.fixture
def said() -> list[str]:
    """Takes what the user is shown."""
    return []


def assert_untouched(projects: Path) -> None:
    assert (projects / "other" / "thesis.txt").read_text(encoding="utf-8") == "years"
    assert (projects / "other").stat().st_mode & 0o7777 == 0o2775
    assert (projects / "app" / ".git" / "HEAD").is_file()
    assert (projects / "app" / "app.py").is_file()


def give_away(*paths: Path) -> None:
    """Let them belong to another user, if this one is root."""
    for path in paths:
        if IS_ROOT:
            os.lchown(path, NOBODY, NOBODY)


def become_another_user() -> None:
    """Runs in a new process before its program: the process belongs to another user, if this one is root."""
    if IS_ROOT:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def killed_run(repository: Repository, temporary: Path) -> Path:
    """Let git know the worktree of a run that was killed, and whose files the system has removed since."""
    root = temporary / BASE / "app"
    repository.git("worktree", "add", "--quiet", "--detach", str(root))
    shutil.rmtree(root.parent)
    return root


# --- the worktree of a revision --------------------------------------------------------------------------------------


def test_a_link_in_place_of_the_directory_of_a_killed_run_is_not_followed(
    repository: Repository, temporary: Path, projects: Path, said: list[str]
) -> None:
    base = killed_run(repository, temporary).parent
    base.symlink_to(projects)
    give_away(base)
    assert remove_stale(repository.top, said.append) == []
    assert_untouched(projects)
    assert base.is_symlink()
    assert repository.worktrees() == [repository.top]
    assert said == [
        f"{base}, where a run that was killed had laid out a revision, is left as it is: It is a link; git forgets the "
        "worktree there"
    ]
    assert remove_stale(repository.top, said.append) == []
    assert len(said) == 1


def test_a_link_in_another_users_directory_is_not_followed(
    repository: Repository, temporary: Path, projects: Path, said: list[str]
) -> None:
    """The system's protection of links in shared directories does not cover this one: the directory is the other's."""
    root = killed_run(repository, temporary)
    root.parent.mkdir()
    root.symlink_to(projects / "other")
    give_away(root.parent, root)
    assert remove_stale(repository.top, said.append) == []
    assert_untouched(projects)
    assert root.is_symlink()
    assert len(said) == 1
    if IS_ROOT:
        assert f"It belongs to another user, of id {NOBODY}; git forgets" in said[0]
        assert repository.worktrees() == [repository.top]


def test_a_lock_in_another_users_directory_makes_it_no_directory_of_ours(
    repository: Repository, temporary: Path, projects: Path
) -> None:
    """It looks as that of a killed run in all but its owner; without root it is one, and its link goes unfollowed."""
    root = killed_run(repository, temporary)
    root.parent.mkdir()
    (root.parent / "owner").touch()
    root.symlink_to(projects / "other")
    give_away(root.parent, root.parent / "owner", root)
    remove_stale(repository.top)
    assert_untouched(projects)
    assert root.is_symlink() is IS_ROOT
    assert repository.worktrees() == [repository.top]


def test_a_worktree_that_another_users_git_has_noted_stays_known(
    repository: Repository, temporary: Path, said: list[str]
) -> None:
    """Two users compare in one repository; the other's run goes on."""
    root = temporary / BASE / "app"
    repository.git("worktree", "add", "--quiet", "--detach", str(root))
    (root.parent / "owner").touch()
    give_away(root.parent, repository.top / ".git" / "worktrees" / "app")
    removed = remove_stale(repository.top, said.append)
    assert (removed, said) == ([] if IS_ROOT else [root], [])
    assert repository.worktrees() == [repository.top, *([root] if IS_ROOT else [])]


def test_a_directory_that_was_exchanged_during_the_run_is_left_and_said(
    repository: Repository, temporary: Path, projects: Path, said: list[str]
) -> None:
    revision = Revision(repository.git("rev-parse", "HEAD"), "main", "", "0000000")
    with checkout(repository.top, revision, say=said.append) as worktree:
        base = worktree.root.parent
        base.rename(temporary / "moved")
        base.symlink_to(projects)
        give_away(base)
    assert_untouched(projects)
    assert base.is_symlink()
    assert repository.worktrees() == [repository.top]
    assert said == [f"{base}, where the revision was laid out, is left: Another file has taken its name"]


def test_a_run_says_that_git_forgets_a_worktree(repository: Repository, temporary: Path, projects: Path) -> None:
    base = killed_run(repository, temporary).parent
    base.symlink_to(projects)
    give_away(base)
    repository.write({"conftest.py": READ_ONLY})
    run = run_here(repository.top, "--perf-against=main", "-q")
    assert run.exit_code == pytest.ExitCode.OK
    assert f"{base}, where a run that was killed had laid out a revision, is left as it is: It is a link" in run.out
    assert_untouched(projects)


# --- directories of runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["pytest-mlpatterns-", "new-pytest-mlpatterns-"])
def test_links_in_place_of_directories_of_runs_are_not_followed(temporary: Path, projects: Path, prefix: str) -> None:
    (projects / "app" / ".git").mkdir(parents=True)
    for name in ("app/app.py", "app/.git/HEAD", "in-use"):
        (projects / name).touch()
    os.utime(projects, (0, 0))
    (link := temporary / f"{prefix}taken").symlink_to(projects)
    (directory := temporary / f"{prefix}theirs").mkdir()
    (directory / "in-use").symlink_to(projects / "in-use")
    os.utime(directory, (0, 0))
    give_away(link, directory, directory / "in-use")
    scratch = ScratchDirectory()
    (scratch.path / "link").symlink_to(projects)
    scratch.remove()
    assert_untouched(projects)
    assert link.is_symlink()
    assert directory.exists() or not IS_ROOT
    assert not scratch.path.exists()


# --- locks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def baseline(temporary: Path) -> Path:
    """A baseline file that all users can read and this user alone can replace."""
    directory = temporary / "project"
    directory.mkdir()
    directory.chmod(0o755)
    path = directory / "perf-baseline.json"
    write_baselines(path, {})
    path.chmod(0o644)
    return path


def locked_by_a_reader(path: Path) -> subprocess.Popen[bytes]:
    """A process of another user that has opened a path for reading and locked it; it ends with its input."""

    def lock() -> None:
        become_another_user()
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.set_inheritable(descriptor, True)

    # The program begins after the lock is held, and inherits it. No other thread of this process holds a lock then.
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE, preexec_fn=lock, close_fds=False)  # noqa: PLW1509


@pytest.mark.parametrize("name", ["", "perf-baseline.json"], ids=["directory", "file"])
def test_a_lock_of_a_user_who_can_only_read_holds_up_no_update(baseline: Path, name: str) -> None:
    entry = Entry(SETUP, {"rtm": (LaunchValue(4_120_000.0, 0.012),)}, {}, None, "2026-11-24")
    reader = locked_by_a_reader(baseline.parent / name)
    try:
        write_baselines(baseline, {"t": {"box": entry}}, timeout_s=0)
    finally:
        reader.communicate()
    assert set(read_baselines(baseline)) == {"t"}
    assert os.listdir(baseline.parent) == [baseline.name]


def test_a_lock_of_a_user_who_can_only_read_holds_up_no_line_of_a_history(baseline: Path) -> None:
    path = baseline.with_name("perf-history.jsonl")
    history = History(path, path.name)
    history.append([history_line()])
    path.chmod(0o644)
    reader = locked_by_a_reader(path)
    try:
        history.append([history_line(1)])
    finally:
        reader.communicate()
    assert len(history.read().lines) == 2
    assert set(os.listdir(path.parent)) == {baseline.name, path.name}


def test_no_user_who_can_only_read_opens_the_lock(baseline: Path) -> None:
    opened = []

    def make() -> str:
        (lock,) = set(os.listdir(baseline.parent)) - {baseline.name}
        command = ["cat", str(baseline.parent / lock)]
        opened.append(subprocess.run(command, preexec_fn=become_another_user, check=False).returncode)
        return "text"

    replace_file(baseline, make)
    assert opened == [1 if IS_ROOT else 0]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0o755, 0o600), (0o700, 0o600), (0o775, 0o660), (0o2775, 0o660), (0o777, 0o666), (0o1777, 0o600), (0o1775, 0o600)],
    ids=oct,
)
def test_the_lock_can_be_opened_by_those_who_can_replace_the_file(baseline: Path, mode: int, expected: int) -> None:
    """In a directory with the sticky bit, files of other users cannot be replaced."""
    baseline.parent.chmod(mode)
    if IS_ROOT:
        os.chown(baseline.parent, -1, NOBODY)
    seen = []

    def make() -> str:
        (lock,) = set(os.listdir(baseline.parent)) - {baseline.name}
        status = (baseline.parent / lock).stat()
        seen.append((status.st_mode & 0o777, status.st_gid))
        return "text"

    replace_file(baseline, make)
    group = baseline.parent.stat().st_gid if expected & 0o060 else os.getegid()
    assert seen == [(expected, group)]


def test_a_link_in_place_of_the_lock_is_not_followed_and_is_named(baseline: Path, projects: Path) -> None:
    lock = baseline.with_name(f".{baseline.name}.lock")
    lock.symlink_to(projects / "other" / "thesis.txt")
    give_away(lock)
    with pytest.raises(BaselineFileError, match=rf"has held its lock {lock.name} for 0 s; .* remove that file if"):
        write_baselines(baseline, {}, timeout_s=0.05)
    assert (projects / "other" / "thesis.txt").read_text(encoding="utf-8") == "years"
    assert (projects / "other" / "thesis.txt").stat().st_mode & 0o077 == 0o044
    lock.unlink()
    lock.touch(mode=0o600)  # of an update that was killed
    write_baselines(baseline, {}, timeout_s=0)
    assert os.listdir(baseline.parent) == [baseline.name]


def test_a_lock_that_another_user_left_is_named_with_its_owner_and_not_waited_for(baseline: Path) -> None:
    lock = baseline.with_name(f".{baseline.name}.lock")
    lock.touch()
    lock.chmod(0)
    baseline.parent.chmod(0o777)
    began, user = time.monotonic(), os.geteuid()
    try:
        os.seteuid(NOBODY if IS_ROOT else user)
        with pytest.raises(ForeignLockError) as refused:
            replace_file(baseline, lambda: "text")
    finally:
        os.seteuid(user)
    assert re.search(rf"its lock {lock.name} belongs to .*user {user}\)? and cannot be opened", str(refused.value))
    assert f"remove the file {lock.name}" in str(refused.value)
    assert time.monotonic() - began < 30
    assert lock.exists()


# --- the cache of environments ---------------------------------------------------------------------------------------


@pytest.fixture
def worktree(projects: Path) -> Worktree:
    """A revision beside a place for its environment."""
    top = projects / "place" / "top"
    top.mkdir(parents=True)
    (top / "requirements.txt").touch()
    return Worktree(Revision("0" * 40, "main", "", "0000000"), top, top, top, ())


@pytest.mark.parametrize("is_link", [True, False], ids=["link", "directory"])
def test_a_cache_that_another_user_has_replaced_is_not_used(
    temporary: Path, worktree: Worktree, said: list[str], monkeypatch: pytest.MonkeyPatch, *, is_link: bool
) -> None:
    """Its environments would be run, with this user's permissions."""
    cache, theirs = temporary / "environments", temporary / "theirs"
    theirs.mkdir()
    theirs.chmod(0o755)
    if is_link:
        cache.symlink_to(theirs)
        give_away(cache)
    else:
        cache = theirs
    give_away(theirs)
    built: list[Path] = []

    def build(_: object, folder: Path) -> RevisionEnvironment:
        folder.mkdir()
        built.append(folder)
        return RevisionEnvironment(Path("python"), (), "")

    monkeypatch.setattr(environment._Installer, "build", build)
    with revision_environment(worktree, cache, said.append):
        pass
    if is_link or IS_ROOT:
        reason = "It is a link" if is_link else f"It belongs to another user, of id {NOBODY}"
        assert [folder.parent for folder in built] == [worktree.root.parent]
        assert said == [
            f"{cache} is not used: {reason}; the environment of main is built for this run alone; name a cache of "
            "your own to keep it: -o cache_dir=DIRECTORY"
        ]
    assert theirs.stat().st_mode & 0o777 == (0o755 if is_link or IS_ROOT else 0o700)
    assert os.listdir(theirs) == [] or not (is_link or IS_ROOT)
