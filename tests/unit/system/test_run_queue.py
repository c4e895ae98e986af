"""How long threads wait for a processor, as the system reports it."""

import sys
import threading
from pathlib import Path

import pytest

from pytest_mlpatterns.system.thread_times import RunQueueClock


def test_the_length_is_the_second_number_and_read_again_each_time(tmp_path: Path) -> None:
    path = tmp_path / "schedstat"
    path.write_text("100 2500 7\n")
    clock = RunQueueClock(str(path))
    assert clock.waited_ns() == 2500
    path.write_text("100 2600 8\n")
    assert clock.waited_ns() == 2600


def test_what_is_claimed_is_not_said_again(tmp_path: Path) -> None:
    path = tmp_path / "schedstat"
    path.write_text("100 2500 7\n")
    clock = RunQueueClock(str(path))
    clock.claim(500)
    clock.claim(100)
    assert clock.unclaimed_ns() == 1900
    assert RunQueueClock(str(tmp_path / "none")).unclaimed_ns() is None


@pytest.mark.parametrize("text", [None, "", "100", "a b c"])
def test_the_length_is_unknown_if_the_system_does_not_report_it(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "schedstat"
    if text is not None:
        path.write_text(text)
    clock = RunQueueClock(str(path))
    assert [clock.waited_ns() for _ in range(2)] == [None, None]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has schedstat")
def test_each_thread_has_its_own() -> None:
    clock, found = RunQueueClock(), []
    thread = threading.Thread(target=lambda: found.append(clock.waited_ns()))
    thread.start()
    thread.join()
    assert all(waited_ns is None or waited_ns >= 0 for waited_ns in (clock.waited_ns(), *found))


def test_waits_that_are_ignored_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "schedstat"
    path.write_text("100 2500 7\n")
    clock = RunQueueClock(str(path))
    clock.ignore()
    assert (clock.waited_ns(), clock.unclaimed_ns()) == (None, None)
