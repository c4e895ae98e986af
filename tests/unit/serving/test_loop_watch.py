"""What the thread of a server waited for a processor, taken out of the times that can contain it."""

from typing import Any

from support.each_row import each_row

from pytest_mlpatterns.patterns.request_clock import RequestClock
from pytest_mlpatterns.serving.clocks import LoopWatch

MS = 1_000_000


class Thread:
    """The waits of a thread for a processor, as the test has them."""

    def __init__(self) -> None:
        self.waited_ns: int | None = 100 * MS

    def unclaimed_ns(self) -> int | None:
        return self.waited_ns


def watched(thread: Any, total_ms: int, parts_ms: dict[str, int], *, waits_ms: int) -> dict[str, int]:
    """The parts in milliseconds of a request that is watched and meets such waits."""
    watch = LoopWatch(thread)
    assert watch.begin() is None
    watch.end(RequestClock(), MS, None)  # a long one
    begun = watch.begin()
    clock = RequestClock()
    clock.take({key: value * MS for key, value in parts_ms.items()})
    if thread.waited_ns is not None:
        thread.waited_ns += waits_ms * MS
    watch.end(clock, total_ms * MS, begun)
    return {key: round(value / MS) for key, value in clock.parts.items()}


@each_row(
    ("total_ms", "parts_ms", "waits_ms", "expected"),
    (10, {"model_cpu": 4}, 5, {"model_cpu": 4, "run_queue": 5}),  # the server's own time is what is left
    (10, {"model_cpu": 4}, 50, {"model_cpu": 4, "run_queue": 6}),
    (10, {"wire": 4, "a/hop": 2}, 5, {"wire": 2, "a/hop": 1, "run_queue": 5}),
    (10, {"wire": 4, "queue_wait": 4}, 5, {"wire": 2, "queue_wait": 4, "run_queue": 3}),  # also for other requests
    (10, {"model_cpu": 4}, 0, {"model_cpu": 4}),
    (10, {"model_cpu": 4}, -3, {"model_cpu": 4}),  # other requests have claimed what they waited before
    (10, {"model_cpu": 12}, 3, {"model_cpu": 12}),
)
def test_a_wait_is_taken_out_of_what_the_thread_did_itself(
    total_ms: int, parts_ms: dict[str, int], waits_ms: int, expected: dict[str, int]
) -> None:
    assert watched(Thread(), total_ms, parts_ms, waits_ms=waits_ms) == expected


def test_where_the_system_does_not_tell_it_all_stays_as_it_is() -> None:
    thread = Thread()
    thread.waited_ns = None
    assert watched(thread, 10, {"wire": 4}, waits_ms=5) == {"wire": 4}


def test_requests_that_take_the_server_no_time_are_not_watched() -> None:
    thread = Thread()
    watch = LoopWatch(thread)  # type: ignore[arg-type]
    for _ in range(3):
        assert watch.begin() is None
        watch.end(RequestClock(), MS // 10, None)
    watch.end(RequestClock(), MS, None)
    assert [watch.begin() for _ in range(17)] == [100 * MS] * 16 + [None]


def test_a_process_behind_another_reports_how_long_it_took_to_run_once_it_was_late() -> None:
    thread: Any = Thread()
    watch = LoopWatch(thread)
    found = []
    for number in range(20):
        thread.waited_ns += 2 * MS if number < 18 else 0
        clock = RequestClock()
        watch.end_for_gateway(clock, MS // 10, watch.begin())
        found.append(clock.parts)
    assert found == [{}] * 16 + [{"woken": 2 * MS}] * 2 + [{}] * 2  # it looks after 16 requests
