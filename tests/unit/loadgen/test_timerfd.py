"""The alarm of the event loop, over the timer functions of ``os`` and over those of the C library."""

import ctypes
import errno
import os
import selectors
import sys
from collections.abc import Iterator
from time import perf_counter_ns

import pytest

from pytest_mlpatterns.loadgen import event_loop
from pytest_mlpatterns.loadgen.event_loop import Alarm


@pytest.fixture(params=["os", "C library"])
def functions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which functions the alarm calls. Before Python 3.13, ``os`` gets stand-ins with the signatures of 3.13."""
    if request.param == "C library":
        monkeypatch.delattr(os, "timerfd_create", raising=False)
        monkeypatch.delattr(os, "timerfd_settime_ns", raising=False)
    elif not hasattr(os, "timerfd_create"):

        def create(clock: int, /, *, flags: int) -> int:
            return event_loop._checked("timerfd_create", clock, flags)

        def set_time(descriptor: int, /, *, flags: int, initial: int) -> None:
            at = event_loop._Itimerspec((0, 0), divmod(initial, 1_000_000_000))
            event_loop._checked("timerfd_settime", descriptor, flags, ctypes.byref(at), None)

        monkeypatch.setattr(os, "timerfd_create", create, raising=False)
        monkeypatch.setattr(os, "timerfd_settime_ns", set_time, raising=False)
    return str(request.param)


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no timer descriptors")
@pytest.mark.usefixtures("functions")
class TestAlarm:
    def test_wakes_the_selector_at_the_due_time_and_not_before(self, selector: selectors.BaseSelector) -> None:
        alarm = Alarm(selector)
        for delay_ns in (300_000, 20_000_000):
            due_ns = perf_counter_ns() + delay_ns
            alarm.set(due_ns)
            ((key, mask),) = selector.select(10)
            assert perf_counter_ns() >= due_ns
            key.data(mask)
            assert selector.select(0) == []
        alarm.close()

    def test_a_time_that_is_past_wakes_the_selector_at_once(self, selector: selectors.BaseSelector) -> None:
        alarm = Alarm(selector)
        alarm.set(1)
        assert len(selector.select(10)) == 1
        alarm.close()

    def test_a_later_time_replaces_an_earlier_one(self, selector: selectors.BaseSelector) -> None:
        alarm = Alarm(selector)
        alarm.set(perf_counter_ns() + 5_000_000)
        alarm.set(due_ns := perf_counter_ns() + 30_000_000)
        assert len(selector.select(10)) == 1
        assert perf_counter_ns() >= due_ns
        alarm.close()

    def test_closing_twice_closes_one_descriptor(self, selector: selectors.BaseSelector) -> None:
        alarm = Alarm(selector)
        (descriptor,) = selector.get_map()
        alarm.close()
        alarm.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        alarm.set(perf_counter_ns())  # has no effect

    def test_a_failing_system_call_is_an_error(self, selector: selectors.BaseSelector) -> None:
        alarm = Alarm(selector)
        (descriptor,) = selector.get_map()
        os.close(descriptor)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is checked
            alarm.set(perf_counter_ns())
        assert caught.value.errno == errno.EBADF


def test_another_system_s_alarm_does_nothing(selector: selectors.BaseSelector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    alarm = Alarm(selector)
    alarm.set(perf_counter_ns())
    assert not selector.get_map()
    alarm.close()
