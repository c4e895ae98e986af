"""Processes put on a core: where they go on, that they are free again, and what the user has set."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pytest_mlpatterns.system.cpu_share import put_on_cores

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not hasattr(os, "sched_setaffinity"), reason="this system does not say on which cores a process may run"
    ),
]


@pytest.fixture
def process() -> Iterator[int]:
    """One that waits."""
    waiting = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    yield waiting.pid
    waiting.communicate(b"\n")


class Calls:
    """Stands in the place of the system's calls: who may run where, and what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, allowed: dict[int, set[int]]) -> None:
        self.allowed = allowed
        self.asked: list[tuple[int, set[int]]] = []
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: self.allowed[process])
        monkeypatch.setattr(os, "sched_setaffinity", self.set)

    def set(self, process: int, cores: set[int]) -> None:
        if process == 99:
            raise PermissionError
        self.asked.append((process, cores))


def test_a_process_is_free_afterwards(process: int) -> None:
    before = os.sched_getaffinity(process)
    put_on_cores([process], 1)
    assert os.sched_getaffinity(process) == before


def test_processes_get_cores_in_turn_and_then_all_of_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, {11: {0, 1}, 12: {0, 1}, 13: {0, 1}})
    put_on_cores([11, 12, 13], 3)
    free = {0, 1}
    assert calls.asked == [(11, {1}), (11, free), (12, {0}), (12, free), (13, {1}), (13, free)]


def test_what_the_user_has_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, {11: {5}, 12: {4, 6}})
    put_on_cores([11, 12], 0)
    assert calls.asked == [(12, {6}), (12, {4, 6})]


def test_processes_that_are_gone_or_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, process: int) -> None:
    put_on_cores([2**22 + 1], 0)  # larger than any process id
    calls = Calls(monkeypatch, {99: {0, 1}, 11: {0, 1}})
    put_on_cores([99, 11], 0)
    assert [who for who, _ in calls.asked] == [11, 11]


def test_affinity_does_nothing_on_systems_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", asked.append)
    monkeypatch.delattr(os, "sched_setaffinity")
    put_on_cores([1], 0)
    assert not asked
