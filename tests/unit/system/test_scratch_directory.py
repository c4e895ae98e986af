"""The temporary directory of a run: gone at its end, or at the start of the next one if the run was killed."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system import scratch_directory
from pytest_mlpatterns.system.scratch_directory import ScratchDirectory

KILLED = """
import os, signal, tempfile, sys
tempfile.tempdir = sys.argv[1]
from pytest_mlpatterns.system import scratch_directory
from pytest_mlpatterns.system.scratch_directory import ScratchDirectory
print((ScratchDirectory().path / "log").write_text("left"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_directory_is_gone_after_its_removal(tmp_path: Path) -> None:
    scratch = ScratchDirectory()
    (scratch.path / "generator.log").write_text("x")
    assert [one.name for one in tmp_path.iterdir()] == [scratch.path.name]
    scratch.remove()
    scratch.remove()
    assert list(tmp_path.iterdir()) == []


def test_only_this_user_can_enter_the_directory() -> None:
    scratch = ScratchDirectory()
    status = scratch.path.stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o700, os.geteuid())
    scratch.remove()


def test_directories_in_use_or_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "pytest-mlpatterns-against-1").mkdir()
    (tmp_path / "other").mkdir()
    first, second = ScratchDirectory(), ScratchDirectory()
    assert first.path.is_dir()
    assert len(list(tmp_path.iterdir())) == 4
    first.remove()
    second.remove()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.processes
def test_directory_of_a_killed_run_goes_with_the_next(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, stdout=subprocess.DEVNULL)
    (left,) = tmp_path.iterdir()
    scratch = ScratchDirectory()
    assert [one.name for one in tmp_path.iterdir()] == [scratch.path.name]
    assert not left.exists()
    scratch.remove()


def test_a_directory_that_was_never_locked_goes_once_it_is_old(tmp_path: Path) -> None:
    """A run that was killed between two lines left it; a run that starts just now needs it."""
    for name, age_s in (("young", 0.0), ("old", 3600.0)):
        directory = tmp_path / f"new-pytest-mlpatterns-{name}"
        directory.mkdir()
        os.utime(directory, (time.time() - age_s,) * 2)
    scratch = ScratchDirectory()
    scratch.remove()
    assert [one.name for one in tmp_path.iterdir()] == ["new-pytest-mlpatterns-young"]


def test_directories_of_other_users_and_links_to_them_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / "pytest-mlpatterns-foreign"
    foreign.mkdir()
    (foreign / "in-use").touch()
    (link := tmp_path / "pytest-mlpatterns-link").symlink_to(foreign)
    scratch_directory._remove_if_unused(link)
    monkeypatch.setattr(os, "geteuid", lambda: foreign.stat().st_uid + 1)
    scratch_directory._remove_if_unused(foreign)
    assert (foreign / "in-use").exists()
    assert (tmp_path / "pytest-mlpatterns-link").is_symlink()


def test_a_file_system_that_changes_owners_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, a directory on NFS with root_squash belongs to the user nobody."""
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(SettingError) as refused:
        ScratchDirectory()
    assert f"is new, and it belongs to another user, of id {user}, expected user {user + 1}:" in str(refused.value)
    assert str(refused.value).endswith("set TMPDIR to a directory on a local disk")


@pytest.mark.processes
def test_a_process_that_did_not_notice_the_end_of_its_run_ends_with_the_next(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, stdout=subprocess.DEVNULL)
    (left,) = tmp_path.iterdir()
    environment = {**os.environ, "PYTEST_MLPATTERNS_CHILD": str(left / "worker.log")}
    with subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"], env=environment) as process:
        os.kill(process.pid, signal.SIGSTOP)
        ScratchDirectory().remove()
        process.wait(15)
    assert not left.exists()
