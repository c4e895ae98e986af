"""What a generator process asks of the system at its start: priority, as far as it may have it."""

import os
import sys

import pytest

from pytest_mlpatterns.loadgen.process import raise_priority


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
