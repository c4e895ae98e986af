"""The end of a local deployment: which processes of the model had to be killed, and which could not be."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_mlpatterns import DeploymentError, LeftoverWarning
from pytest_mlpatterns.engines.local.processes import LocalProcesses
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

    knows_environment = True

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
