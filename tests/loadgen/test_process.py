"""What a generator process asks of the system at its start: open files and priority, as far as it may have them."""

from __future__ import annotations

import os
import resource
import sys

import pytest

from pytest_mlpatterns.loadgen.process import raise_file_limit, raise_priority


class Limits:
    """The system's limits on open files, with a highest soft limit that it takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, *, takes: int) -> None:
        self.soft, self.hard, self._takes = soft, hard, takes
        monkeypatch.setattr(resource, "getrlimit", lambda _kind: (self.soft, self.hard))
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, _kind: int, wanted: tuple[int, int]) -> None:
        soft = wanted[0]
        if soft == resource.RLIM_INFINITY or soft > self._takes:
            raise ValueError("current limit exceeds maximum limit")
        self.soft = soft


@pytest.mark.parametrize(
    ("soft", "hard", "takes", "expected"),
    [
        (256, resource.RLIM_INFINITY, 1_048_576, 1_048_576),
        (256, resource.RLIM_INFINITY, 92_160, 65_536),
        (256, resource.RLIM_INFINITY, 10_240, 10_240),
        (256, resource.RLIM_INFINITY, 256, 256),
        (1_024, 4_096, 4_096, 4_096),
        (20_480, resource.RLIM_INFINITY, 10_240, 20_480),
    ],
)
def test_the_limit_on_open_files_is_the_highest_that_the_system_takes(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, takes: int, expected: int
) -> None:
    limits = Limits(monkeypatch, soft, hard, takes=takes)

    raise_file_limit()

    assert limits.soft == expected


class Scheduler:
    """A scheduler that permits real-time, a lowest nice value, or neither."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, real_time: bool, lowest_nice: int) -> None:
        self.real_time, self.nice = False, 0
        self._real_time, self._lowest_nice = real_time, lowest_nice
        monkeypatch.setattr(os, "sched_setscheduler", self._set_scheduler)
        monkeypatch.setattr(os, "setpriority", self._set_priority)

    def _set_scheduler(self, _pid: int, _policy: int, _parameters: object) -> None:
        if not self._real_time:
            raise PermissionError("not permitted")
        self.real_time = True

    def _set_priority(self, _which: int, _who: int, niceness: int) -> None:
        if niceness < self._lowest_nice:
            raise PermissionError("not permitted")
        self.nice = niceness


@pytest.mark.skipif(sys.platform != "linux", reason="real-time priority is Linux's")
@pytest.mark.parametrize(
    ("real_time", "lowest_nice", "expected"),
    [(True, -20, (True, 0)), (False, -20, (False, -20)), (False, -12, (False, -10)), (False, 0, (False, 0))],
)
def test_the_priority_is_the_highest_that_is_permitted(
    monkeypatch: pytest.MonkeyPatch, real_time: bool, lowest_nice: int, expected: tuple[bool, int]
) -> None:
    scheduler = Scheduler(monkeypatch, real_time=real_time, lowest_nice=lowest_nice)

    raise_priority()

    assert (scheduler.real_time, scheduler.nice) == expected
