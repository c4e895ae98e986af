"""Child processes: they talk whatever they print, say how they ended, and never outlive their parent."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import TESTS
from support.services.processes import survivors

from pytest_mlpatterns import ChildError
from pytest_mlpatterns.system import child as system_child
from pytest_mlpatterns.system import log_file
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.orphans import Stopped, alive

pytestmark = pytest.mark.processes

PATIENCE_S = 15


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child processes import ``services``."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child("support.services.child", log=tmp_path / "child.log")
    yield child
    child.stop()


def ask(child: Child, name: str, argument: object = None) -> object:
    child.send((name, argument))
    return child.receive(PATIENCE_S)


class TestMessages:
    @pytest.mark.parametrize(
        "message",
        [
            None,
            0,
            "text ü",
            [1, 2.5, {"a": (b"b", None)}],
            b"",
            b"x",
            b"x" * 65_535,
            b"x" * 65_536,
            b"x" * 65_537,
            b"x" * 5_000_000,
        ],
        ids=lambda message: f"{len(message)} bytes" if isinstance(message, bytes) else repr(message),
    )
    def test_a_value_of_any_size_makes_the_round_trip(self, child: Child, message: object) -> None:
        assert ask(child, "echo", message) == message

    def test_what_is_printed_before_any_code_of_this_package_is_in_the_log(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "sitecustomize.py").write_text("print('loaded', flush=True)\n")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{TESTS}")
        child = Child("support.services.child", log=tmp_path / "child.log")
        try:
            assert ask(child, "echo", 1) == 1
            assert "loaded" in child.log_tail()
        finally:
            child.stop()

    @pytest.mark.covered_processes
    def test_values_of_several_threads_do_not_mix(self, child: Child) -> None:
        values = [bytes([number]) * 300_000 for number in range(8)]
        threads = [threading.Thread(target=child.send, args=(("echo", value),)) for value in values]
        for thread in threads:
            thread.start()
        assert sorted(child.receive(PATIENCE_S) for _ in values) == values
        for thread in threads:
            thread.join(PATIENCE_S)

    @pytest.mark.covered_processes
    @pytest.mark.parametrize("sizes", [(0,), (1,), (100_000,), (3, 0, 2_000_000, 1)], ids=str)
    def test_raw_buffers_travel_beside_the_value(self, child: Child, sizes: tuple[int, ...]) -> None:
        arrays = [array("q", range(size)) for size in sizes]
        answer = ask(child, "echo", {"buffers": [pickle.PickleBuffer(numbers) for numbers in arrays], "name": "n"})
        assert isinstance(answer, dict)
        assert answer["name"] == "n"
        assert [bytes(buffer) for buffer in answer["buffers"]] == [numbers.tobytes() for numbers in arrays]

    def test_a_value_that_cannot_be_sent_leaves_the_channel_whole(self, child: Child) -> None:
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
            child.send(("echo", threading.Lock()))
        assert ask(child, "echo", 1) == 1

    def test_waiting_in_vain_is_a_time_out_and_the_child_goes_on(self, child: Child) -> None:
        with pytest.raises(TimeoutError):
            child.receive(0.01)
        assert ask(child, "echo", 1) == 1

    @pytest.mark.covered_processes
    def test_what_a_child_prints_is_in_its_log_and_not_among_the_messages(self, child: Child) -> None:
        assert ask(child, "print", "a printed line") == "printed"
        assert child.log_tail() == "| a printed line (4 times)"
        assert ask(child, "echo", 1) == 1

    def test_a_long_log_is_limited_while_the_child_runs(
        self, child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log_file, "LIMIT_BYTES", 2**16)
        assert ask(child, "print", "x" * 100_000) == "printed"
        while (tmp_path / "child.log").stat().st_blocks * 512 > 2**16:  # it is looked at four times a second
            ask(child, "echo")
        assert "letters left out" in child.log_tail()

    def test_a_child_reads_nothing_from_its_standard_input(self, child: Child) -> None:
        assert ask(child, "read") == ""

    @pytest.mark.covered_processes
    def test_a_child_that_listens_hears_messages_in_a_thread_of_its_own(self, child: Child) -> None:
        assert ask(child, "listen") == "listening"
        child.send("hello")
        assert child.receive(PATIENCE_S) == ("heard", "hello")

    @pytest.mark.covered_processes
    def test_a_child_that_cannot_handle_a_message_ends_with_the_reason(self, child: Child) -> None:
        assert ask(child, "listen badly") == "listening"
        child.send({})
        with pytest.raises(ChildError, match=r"(?s)signal SIGKILL; it printed last:.*KeyError: 'no such key'"):
            child.receive(PATIENCE_S)

    @pytest.mark.covered_processes
    def test_descriptors_are_inherited_by_their_numbers(self, tmp_path: Path) -> None:
        reading, writing = os.pipe()
        try:
            os.write(writing, b"through the pipe")
            child = Child("support.services.child", log=tmp_path / "child.log", pass_fds=[reading])
            try:
                assert ask(child, "descriptor", reading) == b"through the pipe"
            finally:
                child.stop()
        finally:
            os.close(reading)
            os.close(writing)


class TestObituaries:
    @pytest.mark.parametrize(
        ("command", "words"),
        [
            (("exit", 3), ("exit code 3", "last words")),
            (("exit", None), ("exit code 0", "last words")),
            (("raise", "out of luck"), ("exit code 1", "RuntimeError: out of luck")),
            (("kill", "SIGKILL"), ("signal SIGKILL",)),
            (("kill", "SIGSEGV"), ("signal SIGSEGV",)),
        ],
        ids=lambda value: " ".join(map(str, value)) if isinstance(value[0], str) else "",
    )
    def test_the_error_names_how_the_child_ended_and_its_last_output(
        self, child: Child, command: tuple[str, object], words: tuple[str, ...]
    ) -> None:
        child.send(command)
        for _ in range(2):  # the end is told to whoever asks, again and again
            with pytest.raises(ChildError) as caught:
                child.receive(PATIENCE_S)
            assert str(child.pid) in str(caught.value)
            assert all(word in str(caught.value) for word in words)

    def test_messages_from_before_the_end_are_still_received(self, child: Child) -> None:
        for command in (("echo", 1), ("echo", 2), ("exit", 0)):
            child.send(command)
        assert [child.receive(PATIENCE_S), child.receive(PATIENCE_S)] == [1, 2]
        with pytest.raises(ChildError, match="exit code 0"):
            child.receive(PATIENCE_S)

    def test_sending_to_a_child_that_is_gone_says_so_too(self, child: Child) -> None:
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(ChildError):
            child.receive(PATIENCE_S)
        with pytest.raises(ChildError, match="signal SIGKILL"):
            child.send(("echo", 1))

    def test_sending_to_a_child_that_is_stopped_ends_too(self, child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_mlpatterns.system.child._PATIENCE_S", 0.1)
        assert ask(child, "echo", 1) == 1
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(ChildError, match=rf"process {child.pid} has read nothing .*; is it stopped\?"):
            child.send(("echo", b"x" * 1_000_000))
        os.kill(child.pid, signal.SIGKILL)

    def test_a_module_that_cannot_be_imported_is_told_with_its_traceback(self, tmp_path: Path) -> None:
        child = Child("support.services.no_such_module", log=tmp_path / "child.log")
        try:
            with pytest.raises(ChildError, match=r"No module named .support\.services\.no_such_module"):
                child.receive(PATIENCE_S)
        finally:
            child.stop()

    def test_a_child_that_only_hung_up_is_not_called_dead(self, child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_mlpatterns.system.child._GRACE_S", 0.1)
        child.send(("hang up", None))
        with pytest.raises(ChildError, match="still runs"):
            child.receive(PATIENCE_S)
        assert psutil.pid_exists(child.pid)
        os.kill(child.pid, signal.SIGKILL)


class TestTheEnd:
    def test_a_child_ends_when_its_channel_is_closed(self, child: Child) -> None:
        assert ask(child, "echo", 1) == 1
        child.close_channel()
        assert survivors([child.pid], PATIENCE_S) == set()

    @pytest.mark.covered_processes
    def test_a_child_that_is_done_waits_for_threads_and_keeps_its_modules(self, child: Child, tmp_path: Path) -> None:
        """Modules such as scikit-learn take a fifth of a second to take apart, at the end of each launch."""
        log = tmp_path / "end"
        assert ask(child, "await end", str(log)) == "noted"
        assert child.stop() == Stopped()
        assert log.read_text() == "thread asked "

    def test_stop_is_safe_to_call_twice_and_on_a_dead_child(self, child: Child) -> None:
        os.kill(child.pid, signal.SIGKILL)
        child.stop()
        child.stop()
        assert survivors([child.pid], 0) == set()

    def test_stop_awaits_nothing_called_at_the_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(system_child, "LOOK_S", 600.0)
        has_stopped, called = threading.Event(), []

        def on_end() -> None:  # as one that needs a lock, which the caller of stop holds
            has_stopped.wait(PATIENCE_S)
            called.append("at the end")

        child = Child("support.services.child", log=tmp_path / "child.log", on_end=on_end)
        assert ask(child, "echo", 1) == 1
        child.stop()
        assert not called
        has_stopped.set()

    @pytest.mark.parametrize("state", ["not listening", "listening"])
    def test_stop_kills_a_child_that_is_stuck_in_a_busy_loop(
        self, child: Child, state: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if state == "not listening":  # then it is ours to kill, sooner than it would itself
            monkeypatch.setattr("pytest_mlpatterns.system.child._GRACE_S", -0.9)
        assert ask(child, "busy", state) == "busy"
        child.stop()
        assert survivors([child.pid], 0) == set()

    def test_stop_ends_what_the_child_started(self, child: Child) -> None:
        grandchild = ask(child, "spawn")
        assert isinstance(grandchild, int)
        child.stop()
        assert survivors([child.pid, grandchild], PATIENCE_S) == set()

    def test_stop_ends_a_child_that_was_stopped(self, child: Child) -> None:
        assert ask(child, "echo", 1) == 1
        os.kill(child.pid, signal.SIGSTOP)
        assert child.stop() == Stopped()
        assert survivors([child.pid], 0) == set()

    @pytest.mark.parametrize("how", ["stopped", "killed"])
    def test_a_daemon_of_the_child_ends_with_it_and_is_named_if_it_does_not_end_by_itself(
        self, child: Child, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        daemons = [ask(child, "daemonize", ignored) for ignored in ("", "SIGTERM")]
        wait = psutil.wait_procs

        def wait_for_the_willing(processes: list[psutil.Process], timeout: float) -> Any:
            """First for the one that ends by itself, however long it saves what coverage measured."""
            until = time.monotonic() + PATIENCE_S
            while alive(one for one in processes if one.pid == daemons[0]) and time.monotonic() < until:
                time.sleep(0.01)
            return wait(processes, timeout)

        monkeypatch.setattr(psutil, "wait_procs", wait_for_the_willing)
        if how == "killed":
            os.kill(child.pid, signal.SIGKILL)
            with pytest.raises(ChildError, match="signal SIGKILL"):  # although the daemons hold its pipe open
                child.receive(PATIENCE_S)
        stopped = child.stop()
        assert len(stopped.killed) == 1
        assert survivors(map(int, map(str, daemons)), 0) == set()

    def test_stop_gives_every_descriptor_back(self, tmp_path: Path) -> None:
        before = psutil.Process().num_fds()
        child = Child("support.services.child", log=tmp_path / "child.log")
        assert ask(child, "echo", 1) == 1
        child.stop()
        for thread in threading.enumerate():
            if thread.name == "messages of support.services.child":
                thread.join(PATIENCE_S)
        assert psutil.Process().num_fds() == before

    @pytest.mark.parametrize("states", [("echo", "listen", "busy"), ("serve",), ("daemonize",)], ids=" ".join)
    def test_no_child_outlives_a_parent_that_is_killed_nor_what_it_started(
        self, tmp_path: Path, states: tuple[str, ...]
    ) -> None:
        pids, answers = kill_parent(tmp_path, *states)
        assert survivors([*pids, *(answers if len(states) == 1 else ())], PATIENCE_S) == set()

    def test_a_forked_parent_with_open_pipes_does_not_keep_the_child_alive(self, tmp_path: Path) -> None:
        pids, answers = kill_parent(tmp_path, "--fork", "listen")
        try:
            assert psutil.pid_exists(answers[-1])
            assert survivors(pids, PATIENCE_S) == set()
        finally:
            survivors(answers[-1:], 0)

    @pytest.mark.covered_processes
    def test_a_process_that_asks_for_it_is_interrupted_when_its_parent_is_gone(self, tmp_path: Path) -> None:
        child = """if True:
            import os, sys, threading
            from pathlib import Path
            from pytest_mlpatterns.system.child import end_with_parent
            end_with_parent()
            print(os.getpid(), flush=True)
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                Path("interrupted").touch()
        """
        parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
        with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, cwd=tmp_path) as process:
            try:
                pid = int(process.stdout.readline())
            finally:
                process.kill()
        assert survivors([pid], PATIENCE_S) == set()
        assert (tmp_path / "interrupted").exists()


def kill_parent(directory: Path, *states: str) -> tuple[list[int], list[Any]]:
    """Start a parent of children in these states, and kill it; the children's ids and their answers."""
    command = [sys.executable, "-m", "support.services.parent", str(directory), *states]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        try:
            pids, answers = json.loads(parent.stdout.readline())
            assert all(psutil.pid_exists(pid) for pid in pids)
        finally:
            parent.kill()
    return pids, answers
