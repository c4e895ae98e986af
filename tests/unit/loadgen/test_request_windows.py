"""Loads of slow services: warmed up by answers, in windows that end by their requests. The clock is declared."""

from array import array
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.services.jobs import MS, a_job

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.load_run import TICK_NS, LoadRun
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, PoissonRate, Schedule
from pytest_mlpatterns.workload.window_plan import RequestWindow, WindowPlan

S = 1000 * MS
PLAN = WindowPlan(budget_ns=30 * S, launches=8, start_ns=1500 * MS, round=5, callers=2, window_ns=700 * MS)


START_NS = 10**9


def run_declared(job: LoadJob, latency_ns: Callable[[int, int], int], outcome: int = 200) -> LoadResult:
    """Run a job to its end, in the order of the generator's own loop.

    ``latency_ns`` has the time to answer a request, by its index and how many were sent before it.
    """
    now = START_NS
    flying: list[tuple[int, int, int, int]] = []
    sent = 0

    def send(request: int, due_ns: int | None) -> None:
        nonlocal sent
        heappush(flying, (now + latency_ns(request, sent), sent, now if due_ns is None else due_ns, request))
        sent += 1

    run = LoadRun(job, send, lambda _event: None)
    run.start(now)
    next_tick = now + run.first_tick_ns
    while not run.draining or flying:
        done = flying[0][0] if flying else NEVER_NS
        now = max(now, min(done, next_tick, run.next_due_ns))
        again = 0
        while flying and flying[0][0] <= now:
            done_ns, number, due_ns, request = heappop(flying)
            run.recording.add(due_ns, done_ns - latency_ns(request, number), done_ns, outcome, request, 0, 1)
            again += run.answered(due_ns, done_ns, failed=outcome < 0)
        for _ in range(again):
            send(run.next_request(), None)
        if now >= run.next_due_ns:
            run.send_due(now)
        if now >= next_tick:
            next_tick = now + TICK_NS
            run.tick(now, 1, limit_reached=False)
    return run.result()


def a_slow_job(schedule: Schedule | None = None, **changes: Any) -> LoadJob:
    facts: dict[str, Any] = {"duration_ns": 700 * MS, "warmup_ns": None, "window": PLAN}
    return a_job([("127.0.0.1", 1)], schedule or ClosedLoop(2), **{**facts, **changes})


def given(requests: int) -> RequestWindow:
    """A window of so many requests, as the marker gives it."""
    return RequestWindow(requests, is_given=True)


def steadily(latency_ns: int) -> Callable[[int, int], int]:
    return lambda _request, _number: latency_ns


def inputs_in(result: LoadResult) -> list[int]:
    """The inputs of the window, in the order in which they were due."""
    samples = samples_of(result)
    inside = samples.due_in(result.window)
    return list(samples.request[inside][np.argsort(samples.due_ns[inside], kind="stable")])


class TestWarmup:
    @each_row(
        ("callers", "latency_ns", "answers"),
        (1, 2 * S, 1),  # a second one would end after three seconds
        (1, 500 * MS, 4),  # two cycles of two answers
        (2, 500 * MS, 4),
        (2, 100 * MS, 4),
        (16, 800 * MS, 32),
    )
    def test_a_warm_up_ends_with_an_answer_once_two_cycles_of_the_callers_agree(
        self, callers: int, latency_ns: int, answers: int
    ) -> None:
        warmup = run_declared(a_slow_job(ClosedLoop(callers)), steadily(latency_ns)).warmup
        assert (warmup.requests, warmup.duration_ns) == (answers, latency_ns * answers // callers)
        assert warmup.steady is (answers > 1)

    def test_a_cold_first_answer_is_not_the_second_cycle(self) -> None:
        warmup = run_declared(a_slow_job(), lambda _, number: 900 * MS if number < 2 else 300 * MS).warmup
        assert warmup.duration_ns == 1500 * MS
        assert warmup.steady

    def test_eight_answers_are_enough_for_a_service_of_two_modes(self) -> None:
        warmup = run_declared(a_slow_job(ClosedLoop(1)), lambda _, n: (100, 300, 350, 120, 110)[n % 5] * MS).warmup
        assert warmup.requests == 8
        assert warmup.steady is False

    def test_the_even_answers_of_an_open_loop_show_no_steady_service(self) -> None:
        """They come at the pace of the load, however long each takes."""
        warmup = run_declared(a_slow_job(ConstantRate(4)), steadily(90 * MS)).warmup
        assert (warmup.requests, warmup.steady) == (8, False)

    def test_a_service_without_an_answer_in_three_seconds_is_waited_for(self) -> None:
        result = run_declared(a_slow_job(), steadily(4 * S))
        assert result.warmup.duration_ns == 4 * S
        assert len(inputs_in(result)) == 2

    def test_quick_answers_end_no_warm_up_by_their_number(self) -> None:
        result = run_declared(a_slow_job(), lambda _, number: 300 * MS if number < 2 else 5 * MS)
        assert result.warmup.duration_ns >= 400 * MS  # three windows of a tenth of a second that agree
        assert result.planned is None


class TestWindow:
    def test_a_window_has_whole_rounds_of_the_inputs_from_the_first_one(self) -> None:
        result = run_declared(a_slow_job(), steadily(500 * MS))
        assert result.planned == RequestWindow(10, 700 * MS, 7500 * MS)
        assert inputs_in(result) == [0, 1, 2, 3, 4] * 2
        assert result.window.duration_ns == 5 * 500 * MS

    @each_row(
        ("schedule", "latency"),
        *((ClosedLoop(2), lambda request, _, scale=scale: scale * (100 + 50 * request) * MS) for scale in (1, 3)),
        (ClosedLoop(2, think_time="130ms"), steadily(370 * MS)),
        (ConstantRate(4), steadily(90 * MS)),
        (PoissonRate(4, seed=3), steadily(90 * MS)),
    )
    def test_each_launch_has_the_same_inputs(self, schedule: Schedule, latency: Callable[[int, int], int]) -> None:
        result = run_declared(a_slow_job(schedule, window=RequestWindow(10, 0, 30 * S)), latency)
        assert inputs_in(result) == [0, 1, 2, 3, 4] * 2

    def test_callers_that_rest_after_failures_have_them_too(self) -> None:
        job = a_slow_job(window=RequestWindow(10, 0, 30 * S))
        assert len(inputs_in(run_declared(job, steadily(370 * MS), outcome=-1))) == 10

    def test_a_window_ends_by_its_longest_time(self) -> None:
        result = run_declared(a_slow_job(window=RequestWindow(10, 0, S)), steadily(400 * MS))
        assert result.window.duration_ns <= S + 50 * MS
        assert len(inputs_in(result)) == 6

    def test_a_window_lasts_its_least_time(self) -> None:
        """If the first answers alone were slow, the service is measured for as long as any other."""
        result = run_declared(a_slow_job(window=RequestWindow(10, 700 * MS, S)), steadily(50 * MS))
        assert result.window.duration_ns == 700 * MS
        assert len(inputs_in(result)) == 28

    def test_without_a_warm_up_its_first_requests_count(self) -> None:
        result = run_declared(a_slow_job(window=RequestWindow(4, 0, 30 * S), warmup_ns=0), steadily(500 * MS))
        assert inputs_in(result) == [0, 1, 2, 3]
        assert samples_of(result).outcome.size == 4

    @each_row("warmup_ns", [None, 0, S, 5 * S])
    @each_row("callers", [1, 2, 4])
    @each_row("latency_ns", [2 * S, 4400 * MS, 9 * S])
    @each_row("given", [False, True])
    def test_a_request_longer_than_it_is_due_in_it(
        self, warmup_ns: int | None, callers: int, latency_ns: int, given: bool
    ) -> None:
        """Whether warm-up and window have fixed lengths, shorter than a request, or not."""
        plan = replace(PLAN, callers=callers, window_ns=3 * S if given else 700 * MS, is_given=given)
        job = a_slow_job(ClosedLoop(callers), duration_ns=plan.window_ns, warmup_ns=warmup_ns, window=plan)
        result = run_declared(job, steadily(latency_ns))
        assert len(inputs_in(result)) >= callers
        if latency_ns > plan.window_ns:
            assert latency_ns <= result.window.duration_ns <= 5 * latency_ns

    def test_a_warm_up_of_fixed_length_waits_for_the_callers_and_no_longer(self) -> None:
        waits = run_declared(a_slow_job(warmup_ns=S), steadily(2 * S)).warmup
        assert (waits.duration_ns, waits.requests, waits.steady) == (2 * S, 2, None)
        assert run_declared(a_slow_job(warmup_ns=S), steadily(300 * MS)).warmup.duration_ns == S
        assert run_declared(a_slow_job(ConstantRate(4), warmup_ns=S), steadily(2 * S)).warmup.duration_ns == S
        assert run_declared(a_slow_job(warmup_ns=S, window=None), steadily(2 * S)).warmup.duration_ns == S

    def test_a_service_that_answers_nothing_has_a_window_of_time(self) -> None:
        result = run_declared(a_slow_job(), steadily(400 * MS), outcome=503)
        assert result.planned is None
        assert 700 * MS <= result.window.duration_ns <= 750 * MS


class TestGivenRequests:
    """``requests=`` of the marker: the service is idle before the first one, and the last one is answered."""

    @each_row("warmup", [{"warmup_ns": 0}, {"warmup_ns": S}, {"warmup_ns": None}, {"warmup_requests": 6}])
    @each_row(
        "schedule",
        [ClosedLoop(2), ClosedLoop(40), ClosedLoop(2, think_time=("10ms", "2s")), ConstantRate(7), PoissonRate(20)],
    )
    def test_a_window_has_exactly_them_and_all_their_answers(self, schedule: Schedule, warmup: dict[str, Any]) -> None:
        job = a_slow_job(schedule, **{"window": given(12), **warmup})
        result = run_declared(job, lambda _, number: (90 + 17 * (number % 5)) * MS)
        samples = samples_of(result)
        before = samples.due_ns < result.window.start_ns
        assert sorted(inputs_in(result)) == sorted([*range(5), *range(5), 0, 1])
        assert samples.done_ns[before].max(initial=0) <= result.window.start_ns, "the warm-up is answered"
        assert samples.done_ns.max() <= result.window.end_ns <= samples.done_ns.max() + 50 * MS
        assert result.generator.completed == 12

    def test_callers_that_rest_after_failures_send_them_too(self) -> None:
        result = run_declared(a_slow_job(window=given(12)), steadily(370 * MS), outcome=-1)
        assert len(inputs_in(result)) == 12

    def test_a_service_that_answers_nothing_for_two_time_outs_ends_it(self) -> None:
        job = a_slow_job(window=given(10_000), timeout_ns=S)
        result = run_declared(job, lambda _, number: S if number > 30 else 5 * MS, outcome=-1)
        assert 1 <= len(inputs_in(result)) < 20

    def test_conversations_are_sent_to_their_end(self) -> None:
        """Requests 0, 1 and 2 are one, 3 and 4 another; all are sent twice."""
        parts = {"think_ns": array("q", [S, 0, -1, S, -1]).tobytes(), "order": array("I", [0, 3]).tobytes()}
        for schedule in (ClosedLoop(3), ConstantRate(2)):
            result = run_declared(a_slow_job(schedule, window=given(4), warmup_requests=3, **parts), steadily(90 * MS))
            assert sorted(inputs_in(result)) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
            assert samples_of(result).done_ns.max() <= result.window.end_ns


@pytest.mark.parametrize("window", [None, PLAN])
@pytest.mark.parametrize("latency_ns", [2 * MS, 300 * MS])
def test_a_warm_up_of_requests_ends_with_the_answer_to_the_last_one(latency_ns: int, window: WindowPlan | None) -> None:
    warmup = run_declared(a_slow_job(warmup_requests=50, window=window), steadily(latency_ns)).warmup
    assert (warmup.requests, warmup.duration_ns, warmup.steady) == (50, 25 * latency_ns, None)


def test_a_warm_up_of_requests_sends_no_more_before_given_ones() -> None:
    result = run_declared(a_slow_job(warmup_requests=50, window=given(4)), steadily(20 * MS))
    assert (result.warmup.requests, samples_of(result).outcome.size) == (50, 54)
