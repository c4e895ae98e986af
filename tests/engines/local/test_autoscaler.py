"""The launcher's side of autoscaling: replicas start, end, die and fail as their gateway hears."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.services.deploy import make_start_options

from pytest_mlpatterns.engines.local.autoscaler import Autoscaler, ScaledReplica
from pytest_mlpatterns.engines.local.messages import (
    EndReplica,
    ReplicaDied,
    ReplicaEnded,
    ReplicaFailed,
    ReplicaStarted,
    StartReplicas,
)
from pytest_mlpatterns.engines.local.processes import MAX_REPLACEMENTS
from pytest_mlpatterns.errors import ChildError, DeploymentError, ModelLoadError
from pytest_mlpatterns.serving.processes import LoadFailed, Ready

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

PATIENCE_S = 15


class Child:
    """A process that says what the test lets it say."""

    def __init__(self) -> None:
        self.messages: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def receive(self, timeout_s: float) -> Any:
        message = self.messages.get(timeout=PATIENCE_S)
        if isinstance(message, Exception):
            raise message
        return message

    def send(self, message: object) -> None:
        self.messages.put(message)

    def log_tail(self) -> str:
        return "its last words"


class Worker:
    """A worker process of the test."""

    def __init__(self) -> None:
        self.role = "replica"
        self.child = Child()
        self.is_starting = True
        self.steps: list[str] = []
        self.has_ended = threading.Event()
        self.on_end: Callable[[], None] | None = None

    def when_ended(self, call: Callable[[], None]) -> None:
        self.on_end = call

    def retire(self, *, keep_facts: bool = False) -> None:
        self.steps.append("retired with facts" if keep_facts else "retired")

    def close_channel(self) -> None:
        self.steps.append("closed")

    def end_retired(self) -> None:
        self.steps.append("ended")
        self.has_ended.set()


class Scene:
    """An autoscaler whose gateway and replicas are the test."""

    def __init__(self, directory: Path, first: int = 0) -> None:
        self.workers: list[Worker] = []
        self.first = first
        self.begun = threading.Semaphore(0)
        self.settled: list[Sequence[Any]] = []
        self.error: OSError | None = None
        self.gateway: Any = Worker()
        options = make_start_options(directory)
        self.scaler = Autoscaler(7, self.start, self.settled.append, model="iris", options=options)
        self.addresses = self.scaler.start_first(first)
        self.scaler.serve(self.gateway)

    def start(self) -> ScaledReplica:
        if self.error is not None:
            raise self.error
        worker: Any = Worker()
        self.workers.append(worker)
        if len(self.workers) > self.first:
            self.begun.release()
        return ScaledReplica(("127.0.0.1", len(self.workers)), [worker])

    def begin(self) -> None:
        """Ask for one more replica, and wait until it has begun to load."""
        self.scaler.take(StartReplicas(7, 1))
        assert self.begun.acquire(timeout=PATIENCE_S)

    def heard(self) -> Any:
        return self.gateway.child.receive(PATIENCE_S)

    def bring(self, message: object) -> Any:
        """Ask for one more replica, which says this while it loads; returns the news."""
        self.begin()
        self.workers[-1].child.messages.put(message)
        return self.heard()


def test_a_replica_is_reported_when_it_is_ready_and_again_when_it_has_ended(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert scene.bring(Ready()) == ReplicaStarted(7, ("127.0.0.1", 1))
    (worker,) = scene.workers
    assert not worker.is_starting
    assert scene.settled == [[worker]]
    scene.scaler.take(EndReplica(7, ("127.0.0.1", 1)))
    assert scene.heard() == ReplicaEnded(7, ("127.0.0.1", 1))
    assert worker.steps == ["retired with facts", "closed", "ended"]
    assert scene.bring(Ready()) == ReplicaStarted(7, ("127.0.0.1", 2))
    scene.scaler.take(EndReplica(7, ("127.0.0.1", 2)))
    assert scene.heard() == ReplicaEnded(7, ("127.0.0.1", 2))
    assert scene.workers[1].steps[0] == "retired"
    scene.scaler.check()
    assert scene.scaler.died == 0


def test_replicas_of_the_start_are_known_and_ready_when_the_gateway_serves(tmp_path: Path) -> None:
    scene = Scene(tmp_path, first=2)
    assert scene.addresses == (("127.0.0.1", 1), ("127.0.0.1", 2))
    assert [worker.is_starting for worker in scene.workers] == [False, False]
    other: Any = Worker()
    scene.scaler.serve(other)  # a second report that all are ready
    scene.scaler.take(EndReplica(7, ("127.0.0.1", 2)))
    assert scene.heard() == ReplicaEnded(7, ("127.0.0.1", 2))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (LoadFailed("Traceback: no such file"), "no such file"),
        (ChildError("process 5 ended with signal SIGKILL"), "SIGKILL"),
    ],
)
def test_a_replica_that_cannot_load_is_the_error_of_the_deployment(tmp_path: Path, message: object, words: str) -> None:
    scene = Scene(tmp_path)
    news = scene.bring(message)
    assert isinstance(news, ReplicaFailed)
    assert words in news.reason
    with pytest.raises(ModelLoadError, match=words):
        scene.scaler.check()
    assert scene.workers[0].steps[-1] == "ended"
    scene.scaler.take(StartReplicas(7, 1))
    assert words in scene.heard().reason  # no other one is tried
    assert len(scene.workers) == 1


def test_a_process_that_the_system_refuses_is_the_error_of_the_deployment(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.error = OSError("no more processes")
    scene.scaler.take(StartReplicas(7, 1))
    assert scene.heard() == ReplicaFailed(7, "no more processes")
    with pytest.raises(DeploymentError, match="no more processes"):
        scene.scaler.check()


def test_a_replica_that_dies_is_reported_and_too_many_are_an_error(tmp_path: Path) -> None:
    scene = Scene(tmp_path, first=MAX_REPLACEMENTS + 1)
    for number, worker in enumerate(scene.workers, 1):
        scene.scaler.check()
        assert worker.on_end is not None
        worker.on_end()
        worker.on_end()  # its second process
        assert scene.heard() == ReplicaDied(7, ("127.0.0.1", number))
        assert worker.has_ended.wait(PATIENCE_S)
        assert scene.scaler.died == number
    with pytest.raises(
        DeploymentError, match=r"4 processes of replicas that follow the load died(.|\n)*its last words"
    ):
        scene.scaler.check()


def test_the_end_of_a_replica_that_leaves_is_no_death(tmp_path: Path) -> None:
    scene = Scene(tmp_path, first=1)
    scene.scaler.take(EndReplica(7, ("127.0.0.1", 1)))
    assert scene.heard() == ReplicaEnded(7, ("127.0.0.1", 1))
    assert scene.workers[0].on_end is not None
    scene.workers[0].on_end()
    scene.scaler.take(EndReplica(7, ("127.0.0.1", 1)))  # it is not known any more
    scene.scaler.close()
    scene.scaler.join()
    assert scene.scaler.died == 0
    assert scene.gateway.child.messages.empty()


def test_after_the_end_has_begun_nothing_starts_and_nothing_is_reported(tmp_path: Path) -> None:
    scene = Scene(tmp_path, first=1)
    scene.begin()
    scene.scaler.close()
    scene.workers[1].child.messages.put(ChildError("ended"))
    scene.scaler.join()
    scene.scaler.take(StartReplicas(7, 1))
    assert scene.workers[0].on_end is not None
    scene.workers[0].on_end()
    scene.scaler.check()
    assert len(scene.workers) == 2
    assert scene.gateway.child.messages.empty()


def test_a_replica_that_is_ready_after_the_end_has_begun_is_left_to_the_launcher(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.begin()
    scene.scaler.close()
    scene.workers[0].child.messages.put(Ready())
    scene.scaler.join()
    assert scene.settled == []


def test_a_gateway_that_has_ended_hears_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, first=1)

    def fail(_message: object) -> None:
        raise ChildError("it has ended")

    scene.gateway.child.send = fail
    scene.scaler.take(EndReplica(7, ("127.0.0.1", 1)))
    scene.scaler.join()
    assert scene.workers[0].steps[-1] == "ended"
