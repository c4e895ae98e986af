"""The fixed work that shows how fast the machine is: it takes as long each time, and longer if there is more of it."""

import pytest

from pytest_mlpatterns.system import machine
from pytest_mlpatterns.system.machine import sorting_time_ns


def test_disturbed_rounds_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourth of fifteen rounds counts: one that a clock cut short, and those beside neighbours do not."""
    rounds = [9, 9, 1, 5, 9, 6, 9, 9, 7, 9, 9, 9, 9, 9, 9]
    clock = iter([at for number, length in enumerate(rounds) for at in (100 * number, 100 * number + length)])
    monkeypatch.setattr(machine, "thread_time_ns", lambda: next(clock))
    assert sorting_time_ns() == 7.0


def test_sorting_takes_a_hundredth_of_a_second_and_is_measured() -> None:
    first, second = sorting_time_ns(), sorting_time_ns()
    assert 1e4 < first < 1e8
    assert 0.05 < first / second < 20  # a busy machine may be some times as slow from one moment to the next
