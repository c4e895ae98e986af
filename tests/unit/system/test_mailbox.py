"""Values for a thread that waits: in order, in time, and without an end to the wait that no value would bring."""

import signal
import threading

import pytest

from pytest_mlpatterns.system.child import Mailbox


def test_values_come_in_order_and_a_wait_without_one_ends() -> None:
    box: Mailbox[int] = Mailbox()
    for value in (1, 2, 3):
        box.put(value)
    assert [box.get(), box.get(10), box.get(threading.TIMEOUT_MAX)] == [1, 2, 3]
    for timeout_s in (0.0, -1.0, 0.001):
        with pytest.raises(TimeoutError):
            box.get(timeout_s)


def test_a_wait_ends_although_its_time_is_over_before_it_begins() -> None:
    """SimpleQueue of Python 3.11 and 3.12 waits for ever then: each try has a small chance of that."""
    ended = threading.Event()

    def wait() -> None:
        for _ in range(100_000):
            with pytest.raises(TimeoutError):
                Mailbox[int]().get(1e-9)
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    assert ended.wait(120)


def test_a_value_of_another_thread_and_of_a_signal_handler_ends_the_wait() -> None:
    box: Mailbox[str] = Mailbox()
    threading.Timer(0.01, box.put, ["thread"]).start()
    assert box.get(60) == "thread"
    before = signal.signal(signal.SIGUSR1, lambda *_: box.put("handler"))
    try:
        threading.Timer(0.01, signal.pthread_kill, [threading.main_thread().ident, signal.SIGUSR1]).start()
        assert box.get(60) == "handler"
    finally:
        signal.signal(signal.SIGUSR1, before)
