"""Git itself: it ends with whoever runs it, and with its limit, whatever a remote or a filter does."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.repository import Repository

from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.system import git
from pytest_mlpatterns.system.git import Git

pytestmark = pytest.mark.processes

FETCH = (
    "import sys; from pathlib import Path; from pytest_mlpatterns.system.git import Git; Git(Path()).run(*sys.argv[1:])"
)
LIMIT_S = 60


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.made(tmp_path / "project")


@pytest.fixture
def remote() -> Iterator[socket.socket]:
    """It takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(LIMIT_S)
        yield listening


def url_of(remote: socket.socket) -> str:
    return f"http://127.0.0.1:{remote.getsockname()[1]}/x.git"


def test_git_is_started_by_the_popen_of_now_which_gevent_may_have_replaced(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    class Replaced(subprocess.Popen[bytes]):
        def __init__(self, words: Any, **options: Any) -> None:
            started.append(words)
            super().__init__(words, **options)

    monkeypatch.setattr(subprocess, "Popen", Replaced)
    assert Git(repository.top).run("rev-parse", "--git-dir")
    assert len(started) == 1


def has_ended(peer: socket.socket) -> bool:
    """Whether the process at the other end ends; what it sends before is read."""
    try:
        while peer.recv(65536):
            pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_git_and_its_helpers_end_with_the_process_that_asked(
    repository: Repository, remote: socket.socket, number: signal.Signals
) -> None:
    asking = subprocess.Popen([sys.executable, "-c", FETCH, "fetch", url_of(remote)], cwd=repository.top, stderr=-3)
    helper, _ = remote.accept()
    with helper:
        helper.settimeout(20)
        asking.send_signal(number)
        assert asking.wait(LIMIT_S) != 0
        assert has_ended(helper)


def test_a_remote_that_says_nothing_is_given_up(
    repository: Repository, remote: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [Git(repository.top).run("config", f"http.lowSpeed{name}").strip() for name in ("Limit", "Time")] == [
        "1000",
        "30",
    ]
    monkeypatch.setitem(git._LIMITS_S, "fetch", 0.5)
    with pytest.raises(
        DeploymentError, match=r"^`git fetch` was stopped after 0.5 s in .*, expected an end before; run"
    ):
        Git(repository.top).run("fetch", url_of(remote))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ssh was called with; it fails."""
    program, seen = tmp_path / "bin" / "ssh", tmp_path / "seen"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > "{seen}"\nexit 1\n', encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return seen


@pytest.mark.parametrize("own", ["", "GIT_SSH_COMMAND", "core.sshCommand"])
def test_ssh_has_limits_unless_the_user_names_a_program(
    repository: Repository, asked: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    if own.startswith("GIT"):
        monkeypatch.setenv(own, "ssh -v")
    elif own:
        repository.git("config", own, "ssh -v")
    assert not Git(repository.top).succeeds("fetch", "ssh://box.example/x.git")
    assert ("-o ConnectTimeout=30 -o ServerAliveInterval=10" in asked.read_text("ascii")) is not bool(own)
    assert ("-v" in asked.read_text("ascii").split()) is bool(own)


def test_git_asks_for_the_files_that_a_partial_clone_left_out_with_the_same_limits(
    repository: Repository, asked: Path, tmp_path: Path
) -> None:
    repository.git("config", "uploadpack.allowFilter", "true")
    repository.commit({"a.txt": "two"})
    clone = Repository.cloned(repository, tmp_path / "clone", "--filter=blob:none", "--no-checkout")
    clone.git("remote", "set-url", "origin", "ssh://box.example/x.git")
    assert not Git(clone.top).succeeds("worktree", "add", "--detach", str(tmp_path / "laid out"), "HEAD")
    assert "-o ConnectTimeout=30" in asked.read_text("ascii")
