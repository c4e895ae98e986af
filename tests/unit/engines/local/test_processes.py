"""A local deployment: what its workers counted, its end, and which processes of the model had to be killed."""

from typing import Any

import pytest

from pytest_mlpatterns import DeploymentError, LeftoverWarning
from pytest_mlpatterns.engines.local.processes import LocalProcesses
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.serving.processes import WorkerStats
from pytest_mlpatterns.system.orphans import Stopped


class EndingWorker:
    """A worker whose processes end in a given way."""

    def __init__(self, *killed: str, survivors: tuple[str, ...] = ()) -> None:
        self.stopped = Stopped(killed, survivors)
        self.is_closed = False

    def close_channel(self) -> None:
        self.is_closed = True

    def stop(self) -> Stopped:
        assert self.is_closed
        return self.stopped


class AnsweringWorker:
    """A worker that knows its environment."""

    def __init__(self, position: int, role: str, **facts: str) -> None:
        self.position, self.role = position, role
        self._facts: dict[str, str] | None = facts

    def facts(self) -> dict[str, str]:
        found, self._facts = self._facts, None
        assert found is not None, "one that serves the same was asked already"
        return found


def processes(*workers: EndingWorker) -> LocalProcesses:
    ending: Any = workers
    return LocalProcesses(ending, (), "iris")


def test_processes_that_had_to_be_killed_are_named_with_the_model() -> None:
    expected = r"perf_model iris: processes that it started and .* after SIGTERM were killed: ray ×2, java$"
    with pytest.warns(LeftoverWarning, match=expected):
        processes(EndingWorker("ray"), EndingWorker("ray", "java")).stop()


def test_processes_that_end_by_themselves_are_not_worth_a_word() -> None:
    processes(EndingWorker(), EndingWorker()).stop()


def test_a_process_that_survives_is_reported() -> None:
    with pytest.raises(DeploymentError, match=r"these processes survived SIGKILL: stuck \(12\); end them by hand"):
        processes(EndingWorker("ray"), EndingWorker(survivors=("stuck (12)",))).stop()


def test_of_workers_that_serve_the_same_one_is_asked_for_its_environment() -> None:
    workers: Any = [
        AnsweringWorker(1, "model", kernel="Linux 6.1", OMP_NUM_THREADS="4"),
        AnsweringWorker(1, "model", kernel="of the second"),
        AnsweringWorker(0, "gateway", kernel="Linux 6.1", OMP_NUM_THREADS="1"),
    ]
    assert LocalProcesses(workers).facts() == {"kernel": "Linux 6.1", "OMP_NUM_THREADS": "1, 4"}


class CountingWorker:
    """A worker that has counted some requests."""

    def __init__(self, position: int, requests: int) -> None:
        self.position, self.role = position, "service"
        self.replaced = 0
        self.child = self
        self.pid = 100 + requests
        self._requests = requests

    def log_tail(self) -> str:
        return f"log {self._requests}"

    def stats(self) -> WorkerStats:
        return WorkerStats(1, self._requests, (), (LayerStats(self.position, "cached", {"hits": self._requests}),))


def test_workers_add_their_counts_and_the_outermost_group_of_several_are_the_replicas() -> None:
    workers: Any = [CountingWorker(-1, 9), CountingWorker(0, 4), CountingWorker(0, 5)]
    of_all = LocalProcesses(workers, (), "iris")
    stats = of_all.stats()
    assert stats.replica_requests == (4, 5)
    assert stats.replaced == 0
    assert [(layer.position, layer.counters["hits"]) for layer in stats.layers] == [(-1, 9), (0, 9)]
    assert of_all.pids == (109, 104, 105)
    assert of_all.log_tail() == "log 9\nlog 4\nlog 5"
