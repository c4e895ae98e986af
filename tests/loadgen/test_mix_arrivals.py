"""Who makes the requests of a mix due: every class by its own schedule, told the time by the test."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from support.services.jobs import MESSAGES, MS, a_job

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.loadgen.load_limits import check_connections, known_rows
from pytest_mlpatterns.loadgen.load_run import LoadRun
from pytest_mlpatterns.loadgen.messages import ClassShare, LoadJob
from pytest_mlpatterns.workload.mix import Mix
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, PoissonRate, Stages

ADDRESS = [("127.0.0.1", 1)]


def share(*numbers: int) -> ClassShare:
    return ClassShare(min(numbers), max(numbers) + 1, array("I", numbers).tobytes())


def mixed_job(mix: Mix, **changes: Any) -> LoadJob:
    """Requests 0 and 1 are of the first class, 2, 3 and 4 of the second."""
    return a_job(ADDRESS, mix, classes=(share(1, 0), share(2, 3, 4)), **changes)


def started(mix: Mix, **changes: Any) -> tuple[LoadRun, list[tuple[int, int | None]]]:
    sent: list[tuple[int, int | None]] = []
    run = LoadRun(
        mixed_job(mix, **changes), lambda request, due_ns: sent.append((request, due_ns)), lambda _event: None
    )
    run.start(0)
    return run, sent


def answer(run: LoadRun, request: int, now_ns: int, *, failed: bool = False) -> int | None:
    """Note the answer to a request; the one that follows it at once, if one does."""
    run.recording.add(now_ns - MS, now_ns - MS, now_ns, -1 if failed else 200, request, 0, 10)
    return run.next_request() if run.answered(now_ns - MS, now_ns, failed=failed) else None


def test_each_class_has_its_schedule_and_its_order() -> None:
    run, sent = started(Mix({"gold": ConstantRate(100), "bulk": ClosedLoop(2)}))
    assert sent == [(2, None), (3, None)]
    run.send_due(25 * MS)
    assert sent[2:] == [(1, 0), (0, 10 * MS), (1, 20 * MS)]
    assert run.next_due_ns == 30 * MS
    assert answer(run, 1, 26 * MS) is None
    assert answer(run, 3, 27 * MS) == 4
    assert answer(run, 2, 28 * MS) == 2


def test_answers_of_several_classes_are_followed_by_requests_of_the_same_classes() -> None:
    run, sent = started(Mix({"gold": ClosedLoop(1), "bulk": ClosedLoop(1)}))
    assert sent == [(1, None), (2, None)]
    for request in (2, 1):  # both are noted before the loop asks for what follows
        run.recording.add(0, 0, 5 * MS, 200, request, 0, 10)
        assert run.answered(MS, 5 * MS, failed=False)
    assert [run.next_request(), run.next_request()] == [3, 0]


def test_a_caller_that_failed_rests_and_goes_on_with_its_class() -> None:
    run, sent = started(Mix({"gold": ClosedLoop(1), "bulk": ClosedLoop(1)}))
    assert answer(run, 2, 5 * MS, failed=True) is None
    run.tick(50 * MS, 2, limit_reached=False)
    assert sent[2:] == [(3, None)]


def test_a_mix_with_a_length_begins_with_its_window() -> None:
    staged = Mix({"gold": ConstantRate(100), "bulk": Stages([("40ms", 100)], start=100)})
    run, sent = started(staged, warmup_ns=20 * MS, duration_ns=40 * MS)
    assert sent == [(0, None)]  # the caller of the warm-up
    run.tick(25 * MS, 1, limit_reached=False)
    run.send_due(46 * MS)
    assert [one for one in sent[1:] if one[0] < 2] == [(1, 25 * MS), (0, 35 * MS), (1, 45 * MS)]
    assert [one for one in sent[1:] if one[0] >= 2] == [(2, 25 * MS), (3, 35 * MS), (4, 45 * MS)]
    run.tick(80 * MS, 1, limit_reached=False)
    sent.clear()
    run.send_due(200 * MS)
    assert sent == []


def test_the_samples_of_open_classes_are_known_before_and_those_of_callers_are_not() -> None:
    open_mix = Mix({"a": ConstantRate(1000), "b": PoissonRate(500)})
    assert known_rows(mixed_job(open_mix, duration_ns=60_000 * MS)) == 90_000
    assert known_rows(mixed_job(Mix({"a": ConstantRate(1000), "b": ClosedLoop(4)}))) is None


def test_every_caller_of_a_class_needs_a_connection() -> None:
    mix = Mix({"a": ConstantRate(1000), "b": ClosedLoop(400), "c": ClosedLoop(200)})
    job = a_job(ADDRESS, mix, classes=(share(0), share(1), share(2)))
    check_connections(job, 1, 600)
    with pytest.raises(SettingError, match="600 requests in flight need as many connections"):
        check_connections(job, 1, 599)
    assert len(MESSAGES) == 5
