"""Processes that hide from the process that started them."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from support.each_row import each_row

from pytest_mlpatterns.system import orphans
from pytest_mlpatterns.system.orphans import Stopped, describe_exit, describe_killed


class FakeProcess:
    """A process that ends by a signal, or by none."""

    def __init__(self, name: str, ends_by: signal.Signals | None) -> None:
        self.pid = 2**22 + 1
        self.is_gone = False
        self._name = name
        self._ends_by = ends_by

    def name(self) -> str:
        return self._name

    def is_running(self) -> bool:
        return not self.is_gone

    def status(self) -> str:
        return psutil.STATUS_SLEEPING

    def terminate(self) -> None:
        self.is_gone |= self._ends_by is signal.SIGTERM

    def resume(self) -> None:
        """It runs."""

    def kill(self) -> None:
        self.is_gone |= self._ends_by is signal.SIGKILL


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_KILL_S", 0.01)
    monkeypatch.setattr(
        psutil, "wait_procs", lambda processes, _timeout: ([], [one for one in processes if not one.is_gone])
    )


@each_row(
    ("ends_by", "expected"),
    (signal.SIGTERM, Stopped()),
    (signal.SIGKILL, Stopped(("model-daemon",))),
    (None, Stopped(("model-daemon",), ("model-daemon (4194305)",))),
)
@pytest.mark.usefixtures("no_waiting")
def test_what_does_not_end_after_sigterm_is_killed_and_named(ends_by: signal.Signals | None, expected: Stopped) -> None:
    process: Any = FakeProcess("model-daemon", ends_by)
    orphans.terminate([process])
    assert orphans.end_remaining(lambda: orphans.alive([process]), 0.0) == expected


@pytest.mark.usefixtures("no_waiting")
def test_what_is_started_meanwhile_is_killed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_KILL_S", 10.0)  # it ends when nothing is left
    first: Any = FakeProcess("first", signal.SIGKILL)
    second: Any = FakeProcess("second", signal.SIGKILL)
    looks = iter([{first}, {first, second}])
    orphans.end_remaining(lambda: orphans.alive(next(looks, set())), 0.0)
    assert first.is_gone
    assert second.is_gone


def test_a_process_that_is_gone_has_a_name_all_the_same() -> None:
    def gone(*_: object) -> str:
        raise psutil.NoSuchProcess(1)

    process: Any = SimpleNamespace(name=gone, is_running=gone, environ=gone, pid=1)
    assert orphans._name(process) == "a process that has ended"
    assert orphans.alive([process]) == set()
    assert orphans._mark_of(process) == ""
    assert orphans.below(2**22 + 1) == orphans.with_ids([2**22 + 1]) == set()


@each_row(
    ("code", "expected"),
    (0, "exit code 0"),
    (3, "exit code 3"),
    (-9, "signal SIGKILL"),
    (-40, "signal 40"),  # a real-time signal has no name
    (-500, "signal 500"),
)
def test_how_a_process_ended_reads_in_words(code: int, expected: str) -> None:
    assert describe_exit(code) == expected


def test_killed_processes_are_counted_by_name() -> None:
    assert describe_killed(["python", "worker", "python"]) == "python ×2, worker"


@pytest.mark.parametrize("call", [orphans.adopt_orphans, orphans.end_with_creator])
def test_other_systems_have_no_such_calls(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert call() is None


@contextlib.contextmanager
def running(mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with this mark, in a session of its own; it is killed whatever happens."""
    environment = {**os.environ, orphans.MARK: mark}
    code = "import signal; signal.pause()"
    with subprocess.Popen([sys.executable, "-S", "-c", code], env=environment, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.processes
def test_a_process_is_found_by_its_mark_its_session_and_its_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("run")
    mark = str(directory / "worker.log")
    with running(mark) as process:
        (found,) = orphans.related(mark, ())
        assert found.pid == process.pid
        assert orphans.related("", {process.pid}) >= {found}
        assert orphans.related("", {process.pid}) == orphans.of_runs_in(str(directory)) == {found}
        assert orphans.of_runs_in(str(directory.parent)) == set()


LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


@pytest.fixture
def next_pid() -> Iterator[Callable[[int], None]]:
    """Chooses the id of the next process, where the system lets this user."""

    def choose(pid: int) -> None:
        try:
            LAST_PID.write_text(str(pid - 1), encoding="utf-8")
        except OSError as error:
            pytest.skip(f"the id of the next process cannot be chosen here: {error}")

    before = int(LAST_PID.read_text(encoding="utf-8")) if LAST_PID.exists() else 0
    yield choose
    choose(before + 1)


@pytest.mark.processes
def test_a_process_with_the_id_of_one_seen_before_is_found(tmp_path: Path, next_pid: Callable[[int], None]) -> None:
    with running("") as first:
        (seen,) = orphans.related("", {first.pid})
        started = seen.create_time()
    mark = str(tmp_path / "worker.log")
    for _ in range(100):  # others start processes too
        next_pid(first.pid)
        with running(mark) as second:
            (found,) = orphans.related(mark, ())
            assert found.pid == second.pid
            if second.pid == first.pid and found.create_time() > started:  # the clock of starts has ticks of 10 ms
                return
    pytest.fail(f"no second process had the id {first.pid}")


@pytest.mark.processes
def test_children_that_have_ended_do_not_count() -> None:
    code = """if True:
        import subprocess, sys
        from pytest_mlpatterns.system.orphans import has_children
        assert not has_children()
        one = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
        assert has_children()
        one.kill()
        while has_children():
            pass
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says so")
def test_a_process_that_has_ended_is_ending_and_a_running_one_is_not() -> None:
    assert not orphans.is_ending(os.getpid())
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended and waits for its parent
        assert orphans.is_ending(process.pid)
    assert orphans.is_ending(process.pid)


def test_other_systems_do_not_say_whether_a_process_is_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not orphans.is_ending(2**22 + 1)
