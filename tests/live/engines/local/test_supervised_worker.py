"""A process of a deployment: replaced when it dies, as often as may be, with what it knew, and ended for good."""

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import TESTS
from support.services.processes import our_children, survivors

from pytest_mlpatterns import ChildError, DeploymentError
from pytest_mlpatterns.engines.local.processes import MAX_REPLACEMENTS, SupervisedWorker
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.serving.processes import Ready, WorkerStats
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.sockets import listening_socket

pytestmark = pytest.mark.processes

PATIENCE_S = 30


@pytest.fixture(autouse=True)
def _no_process_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    before = our_children()
    yield
    assert our_children() <= before


class Starter:
    """Starts processes that count as they are told, and keeps them and their gates.

    A gate is a file that the next process waits for while it loads; None, and where there is no more: nothing. Starting
    waits for ``held``.
    """

    def __init__(self, directory: Path) -> None:
        self.gates: list[str | None] = []
        self.held = threading.Event()
        self.held.set()
        self.starting = threading.Event()
        self.on_ends: list[Callable[[], None]] = []
        self.children: queue.Queue[Child] = queue.Queue()
        self._directory = directory

    def __call__(self, on_end: Callable[[], None]) -> Child:
        self.on_ends.append(on_end)
        self.starting.set()
        assert self.held.wait(PATIENCE_S)
        child = Child("support.services.counting", log=self._directory / f"{len(self.on_ends)}.log", on_end=on_end)
        try:
            child.send(self.gates.pop(0) if self.gates else None)
        except ChildError:
            child.stop()
            raise
        self.children.put(child)
        return child

    def next(self) -> Child:
        """The process that was started next, once it is started."""
        return self.children.get(timeout=PATIENCE_S)


@pytest.fixture
def starter(tmp_path: Path) -> Starter:
    return Starter(tmp_path)


@pytest.fixture
def member(starter: Starter) -> Iterator[SupervisedWorker]:
    """A process that serves, and is not guarded yet."""
    member = SupervisedWorker(starter, role="worker", position=1)
    assert isinstance(starter.next().receive(PATIENCE_S), Ready)
    yield member
    starter.held.set()
    member.stop()


def kill(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)


def told(member: SupervisedWorker, requests: int, traceback: str) -> WorkerStats:
    """The statistics after the present process was told this; messages keep their order."""
    member.child.send((requests, traceback))
    return member.stats()


def ask_until(member: SupervisedWorker, enough: Callable[[], bool]) -> None:
    """Ask for statistics again and again; one that still loads has nothing to tell."""
    deadline = time.monotonic() + PATIENCE_S
    while not enough():
        member.stats()
        assert time.monotonic() < deadline


def replaced(member: SupervisedWorker, starter: Starter) -> Child:
    """Kill the process, and await the next until it serves."""
    kill(member.child)
    child = starter.next()
    ask_until(member, lambda: not member._loading)
    return child


@pytest.mark.covered_processes
class TestKnowing:
    def test_worker_has_the_state_of_its_process(self, member: SupervisedWorker) -> None:
        assert (member.role, member.position, member.replaced) == ("worker", 1, 0)
        assert told(member, 3, "one").predict_requests == 3
        found = told(member, 2, "two")
        assert found.predict_requests == 5
        assert found.tracebacks == ("one", "two")
        assert found.layers == (LayerStats(1, "hop", {"calls": 5}, {"hop_ns": {5: 5}}),)

    def test_its_environment_is_what_it_answers_to_the_last_question(self, member: SupervisedWorker) -> None:
        assert member.facts() == {"kernel": "Linux 6.1", "packages": "loaded"}
        assert told(member, 3, "one").predict_requests == 3

    def test_the_environment_of_one_that_loads_is_not_known_yet(
        self, member: SupervisedWorker, starter: Starter, tmp_path: Path
    ) -> None:
        starter.gates = [str(tmp_path / "gate")]
        member.guard()
        kill(member.child)
        starter.next()
        assert member.facts() == {}
        (tmp_path / "gate").touch()
        ask_until(member, lambda: not member._loading)
        assert member.facts() == {"kernel": "Linux 6.1", "packages": "loaded"}

    def test_the_environment_of_one_that_is_gone_is_not_known(self, member: SupervisedWorker) -> None:
        kill(member.child)
        assert member.facts() == {}

    def test_an_unguarded_process_is_gone_when_it_dies(self, member: SupervisedWorker, starter: Starter) -> None:
        kill(member.child)
        with pytest.raises(DeploymentError, match=rf"^worker: process {member.child.pid} ended with signal SIGKILL"):
            member.stats()
        assert len(starter.on_ends) == 1
        assert member.replaced == 0

    def test_a_silent_process_is_named(self, member: SupervisedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(member, "_answer_timeout_s", 0.05)
        os.kill(member.child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, member.child.pid, os.WSTOPPED)  # until then it may still answer
        try:
            with pytest.raises(DeploymentError, match=rf"^worker: process {member.child.pid} does not respond; does"):
                member.stats()
        finally:
            os.kill(member.child.pid, signal.SIGCONT)
        monkeypatch.setattr(member, "_answer_timeout_s", PATIENCE_S)
        assert told(member, 3, "").predict_requests == 3  # and not what the question before was answered


class TestReplacement:
    @pytest.mark.covered_processes
    def test_a_guarded_process_is_replaced_when_it_dies(self, member: SupervisedWorker, starter: Starter) -> None:
        first = member.child
        member.guard()
        kill(first)
        second = starter.next()
        assert member.stats().predict_requests == 0
        assert member.child is second
        assert member.child.pid != first.pid
        assert member.replaced == 1
        assert survivors([first.pid], 0) == set()

    def test_one_that_was_dead_before_it_is_replaced_too(self, member: SupervisedWorker, starter: Starter) -> None:
        first = member.child
        kill(first)
        with pytest.raises(ChildError):
            first.receive(PATIENCE_S)
        member.guard()
        assert member.child is starter.next() is not first
        starter.on_ends[0]()  # its end is told late, and is none of the second's
        assert member.replaced == 1
        assert starter.children.empty()

    def test_last_statistics_of_a_dead_process_are_kept(self, member: SupervisedWorker, starter: Starter) -> None:
        member.guard()
        told(member, 3, "one")
        replaced(member, starter)
        assert told(member, 4, "two").predict_requests == 7
        replaced(member, starter)
        found = told(member, 1, "three")
        assert found.predict_requests == 8
        assert found.tracebacks == ("one", "two", "three")
        assert found.layers == (LayerStats(1, "hop", {"calls": 8}, {"hop_ns": {5: 8}}),)
        assert member.replaced == 2

    def test_while_its_replacement_loads_it_knows_what_it_knew(
        self, member: SupervisedWorker, starter: Starter, tmp_path: Path
    ) -> None:
        starter.gates = [str(tmp_path / "gate")]
        member.guard()
        told(member, 3, "one")
        kill(member.child)
        second = starter.next()
        for _ in range(3):  # not waited for: the questions would not be heard
            assert member.stats() == WorkerStats(
                0, 3, ("one",), (LayerStats(1, "hop", {"calls": 3}, {"hop_ns": {5: 3}}),)
            )
        assert member.child is second
        (tmp_path / "gate").touch()
        ask_until(member, lambda: not member._loading)
        assert told(member, 2, "two").predict_requests == 5

    def test_connection_during_a_replacement_waits(self, member: SupervisedWorker, starter: Starter) -> None:
        told(member, 3, "")
        member.guard()
        starter.held.clear()
        starter.starting.clear()
        kill(member.child)
        assert starter.starting.wait(PATIENCE_S)
        found: queue.Queue[WorkerStats] = queue.Queue()
        asking = threading.Thread(target=lambda: found.put(member.stats()))
        asking.start()
        with pytest.raises(queue.Empty):
            found.get(timeout=0.05)
        starter.held.set()
        assert found.get(timeout=PATIENCE_S).predict_requests == 3
        asking.join()
        assert member.replaced == 1


class TestLimit:
    def test_a_process_that_dies_again_and_again_is_given_up(self, member: SupervisedWorker, starter: Starter) -> None:
        assert MAX_REPLACEMENTS == 3
        member.guard()
        for _ in range(3):
            last = replaced(member, starter)
        kill(last)
        for _ in range(2):
            with pytest.raises(DeploymentError) as caught:
                member.stats()
            assert str(caught.value).startswith(
                f"worker (replacement 3 of 3): process {last.pid} ended with signal SIGKILL"
            )
        assert member.child is last
        assert member.replaced == 3
        assert len(starter.on_ends) == 4

    def test_one_whose_replacements_cannot_load_is_given_up(self, member: SupervisedWorker, starter: Starter) -> None:
        starter.gates = ["fails"] * 3
        member.guard()
        kill(member.child)
        for _ in range(3):
            starter.next()
        with pytest.raises(DeploymentError, match=r"^worker \(replacement 3 of 3\): process \d+ ended with exit code"):
            ask_until(member, lambda: False)
        assert len(starter.on_ends) == 4

    def test_one_whose_replacements_end_before_they_have_their_job_is_given_up(
        self, member: SupervisedWorker, starter: Starter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        member.guard()

        def send(child: Child, message: object) -> None:
            kill(child)
            with pytest.raises(ChildError):
                child.receive(PATIENCE_S)
            original(child, message)

        original = Child.send
        dead = member.child
        with monkeypatch.context() as patch:
            patch.setattr(Child, "send", send)
            with pytest.raises(DeploymentError, match=r"^worker \(replacement 3 of 3\): process \d+ ended with signal"):
                member.stats()
        assert member.child is dead
        assert len(starter.on_ends) == 4
        assert starter.children.empty()


class TestEnd:
    def test_stop_ends_the_process_and_closes_its_listener_and_is_safe_to_call_twice(self, starter: Starter) -> None:
        listener = listening_socket()
        member = SupervisedWorker(starter, role="worker", position=0, listener=listener)
        member.guard()
        child = starter.next()
        for _ in range(2):
            member.stop()
            assert child.has_ended
            assert listener.fileno() == -1
        assert member.replaced == 0
        assert starter.children.empty()

    def test_a_process_with_a_closed_channel_is_not_replaced(self, member: SupervisedWorker, starter: Starter) -> None:
        member.guard()
        member.close_channel()
        with pytest.raises(ChildError, match=r"^process \d+ ended with exit code 0"):
            member.child.receive(PATIENCE_S)
        starter.on_ends[0]()
        assert member.replaced == 0
        assert len(starter.on_ends) == 1

    @pytest.mark.parametrize("closing", [False, True], ids=["stop", "close the channel, then stop"])
    def test_stop_awaits_a_replacement_under_way_and_ends_it(
        self, member: SupervisedWorker, starter: Starter, closing: bool
    ) -> None:
        member.guard()
        starter.held.clear()
        starter.starting.clear()
        kill(member.child)
        assert starter.starting.wait(PATIENCE_S)
        if closing:
            member.close_channel()
        stopping = threading.Thread(target=member.stop)
        stopping.start()
        assert stopping.is_alive()
        starter.held.set()
        stopping.join(PATIENCE_S)
        assert not stopping.is_alive()
        second = starter.next()
        assert member.child is second
        assert second.has_ended
        assert member.replaced == 1
        starter.on_ends[-1]()
        assert starter.children.empty()
