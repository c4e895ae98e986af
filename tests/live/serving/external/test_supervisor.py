"""The supervisor of users' programs: they end with it, and with the process that asked for it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import SERVICES
from support.services.processes import survivors

from pytest_mlpatterns import ChildError, DeploymentError
from pytest_mlpatterns.serving.external import programs as programs_module
from pytest_mlpatterns.serving.external.programs import Ended, Program, SupervisedPrograms
from pytest_mlpatterns.system.orphans import Stopped

pytestmark = [pytest.mark.processes, pytest.mark.covered_processes]

PARENT = """
import sys
from pathlib import Path
from pytest_mlpatterns.serving.external.programs import Program, SupervisedPrograms

words = (sys.executable, {server!r}, "{{port}}", "orphans={pids}")
programs = SupervisedPrograms([Program(words, {{}}, Path.cwd(), Path("server.log"))], Path.cwd(), stop_ns=10**9)
print(*programs.pids, flush=True)
sys.stdin.read()
"""


def program(directory: Path, *words: str, **env: str) -> Program:
    return Program((sys.executable, *words), env, directory, directory / f"{len(words)}{len(env)}.log")


def waits(directory: Path) -> Program:
    """A program that does nothing until it is ended."""
    return program(directory, "-S", "-c", "import signal; signal.pause()")


def test_programs_end_when_the_asking_process_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    os.mkfifo(pids)  # opened for writing once the orphans run
    code = PARENT.format(server=str(SERVICES / "behaving.py"), pids=pids)
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    family = {int(word) for word in f"{parent.stdout.readline()} {pids.read_text()}".split()}
    supervisors = {process.pid for process in psutil.Process(parent.pid).children()}
    assert len(family) == 3
    parent.kill()
    parent.wait()
    assert survivors(family | supervisors, 15) == set()
    parent.stdout.close()
    parent.stdin.close()  # type: ignore[union-attr]


def test_programs_end_when_the_supervisor_is_asked_to_end(tmp_path: Path) -> None:
    programs = SupervisedPrograms([waits(tmp_path)], tmp_path)
    pids = programs.pids
    os.kill(psutil.Process(pids[0]).ppid(), signal.SIGTERM)
    assert survivors(pids, 15) == set()
    with pytest.raises(DeploymentError, match="the process that supervises the servers has ended"):
        programs.check(15)
    assert programs.pids == programs.family() == ()
    assert programs.stop() == Stopped()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_programs_end_though_their_supervisor_was_killed_or_stopped(tmp_path: Path, how: signal.Signals) -> None:
    ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    programs = SupervisedPrograms([program(tmp_path, "-S", "-c", ignores)], tmp_path, stop_ns=10**8)
    pids = programs.pids
    while not programs.log_tail():
        programs.check(0.01)
    os.kill(psutil.Process(pids[0]).ppid(), how)
    stopped = programs.stop()
    assert [name.startswith("python") for name in stopped.killed] == [True]
    assert survivors(pids, 0) == set()


def test_programs_that_end_are_known_by_their_last_words(tmp_path: Path) -> None:
    programs = SupervisedPrograms(
        [program(tmp_path, "-c", "print('the last words'); raise SystemExit(7)"), waits(tmp_path)], tmp_path
    )
    with pytest.raises(DeploymentError, match=r"ended with exit code 7; it printed last:\n\| the last words"):
        programs.check(30)
    assert programs.log_tail() == "| the last words"
    assert programs.stop() == Stopped((), ())
    assert programs.stop() == Stopped((), ())
    programs.check()


def test_programs_end_if_a_later_one_cannot_start(tmp_path: Path) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.raises(DeploymentError, match="nowhere cannot be started: No such file or directory"):
        SupervisedPrograms([waits(tmp_path), Program(("nowhere",), {}, tmp_path, tmp_path / "log")], tmp_path)
    left = {process.pid for process in psutil.Process().children(recursive=True)} - before
    assert survivors(left, 10) == set()


def test_a_misspelled_command_is_answered_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "serve-the-model").touch()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(DeploymentError, match=r"directory \(serve-teh-model\); did you mean serve-the-model\?$"):
        SupervisedPrograms([Program(("serve-teh-model",), {}, tmp_path, tmp_path / "log")], tmp_path)


def test_a_supervisor_that_does_not_answer_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object) -> None:
        raise TimeoutError

    with monkeypatch.context() as waiting:
        waiting.setattr(programs_module.Child, "receive", late)
        with pytest.raises(DeploymentError, match=r"it does not run after 1\.00 ns"):
            SupervisedPrograms([waits(tmp_path)], tmp_path, timeout_ns=1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(programs_module.Child, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SupervisedPrograms([waits(tmp_path)], tmp_path)


class ScriptedChild:
    """A supervisor process with scripted answers."""

    pid = 2**22  # one more than there can be

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.stopped = False

    def __call__(self, *_: object, **__: object) -> "ScriptedChild":
        return self

    def send(self, _message: object) -> None:
        """Take it."""

    def receive(self, _timeout_s: float) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def resume(self) -> None:
        """It runs."""

    def stop(self, **_: object) -> Stopped:
        self.stopped = True
        return Stopped(survivors=("stuck (13)",))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([Stopped(("a",), ("stuck (12)",))], r"these processes survived SIGKILL: stuck \(12\)"),
        ([Ended(0, 1), ChildError("exit code 1")], r"these processes survived SIGKILL: stuck \(13\)"),
        ([TimeoutError()], r"these processes survived SIGKILL: stuck \(13\)"),
    ],
)
def test_a_process_that_survives_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[Any], expected: str
) -> None:
    child = ScriptedChild(programs_module.Started(({"port": 1},), 0), *answers)
    monkeypatch.setattr(programs_module, "Child", child)
    programs = SupervisedPrograms([waits(tmp_path)], tmp_path)
    assert programs.pids == programs.family() == ()  # a process that is gone has no children
    with pytest.raises(DeploymentError, match=expected):
        programs.stop()
    assert child.stopped


def test_how_it_ended_reads_in_words() -> None:
    assert Ended(0, -9).reason == "signal SIGKILL"
    assert Ended(0, 3).reason == "exit code 3"
