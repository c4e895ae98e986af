"""Who makes requests due: callers and clocks, told the time by the test."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS, Arrivals, arrivals_of
from pytest_mlpatterns.loadgen.messages import Share
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, GammaRate, PoissonRate, Schedule, Stages

MS = 1_000_000
ALONE = Share()


def started(schedule: Schedule, share: Share = ALONE, at: int = 0) -> tuple[Arrivals, list[int | None]]:
    """A source that has started, and the due times of what it sent."""
    sent: list[int | None] = []
    arrivals = arrivals_of(schedule, sent.append, share)
    arrivals.start(at)
    return arrivals, sent


def test_each_caller_sends_at_once_and_is_to_send_again_when_it_is_answered() -> None:
    arrivals, sent = started(ClosedLoop(3))
    assert sent == [None] * 3
    assert arrivals.answered(5 * MS, failed=False)
    assert arrivals.next_due_ns == NEVER_NS


def test_staggered_callers_begin_one_after_the_other_and_are_due_when_they_should_have() -> None:
    sent: list[int | None] = []
    arrivals = arrivals_of(ClosedLoop(3), sent.append, ALONE, stagger_ns=60 * MS)
    arrivals.start(1000 * MS)
    assert sent == [None]
    assert arrivals.next_due_ns == 1060 * MS
    arrivals.tick(1050 * MS)
    arrivals.send_due(1061 * MS)
    assert arrivals.answered(1100 * MS, failed=False)  # the first one sends again at once
    arrivals.send_due(1130 * MS)
    assert sent == [None, 1060 * MS, 1120 * MS]
    assert arrivals.next_due_ns == NEVER_NS


def test_callers_that_think_begin_at_once() -> None:
    sent: list[int | None] = []
    arrivals_of(ClosedLoop(2, think_time="20ms"), sent.append, ALONE, stagger_ns=60 * MS).start(0)
    assert sent == [None, None]


def test_callers_of_random_pauses_send_in_the_order_in_which_these_end() -> None:
    loop = ClosedLoop(3, think_time=("10ms", "90ms"))
    arrivals, sent = started(loop)
    for _ in range(3):
        assert not arrivals.answered(5 * MS, failed=False)
    due = sorted(5 * MS + pause for pause in itertools.islice(loop.pauses(0), 3))
    assert arrivals.next_due_ns == due[0]
    arrivals.send_due(100 * MS)
    assert sent[3:] == due


def test_a_caller_that_failed_rests_until_the_next_tick() -> None:
    arrivals, sent = started(ClosedLoop(2))
    assert not arrivals.answered(1 * MS, failed=True)
    assert len(sent) == 2
    arrivals.tick(50 * MS)
    assert len(sent) == 3
    arrivals.tick(100 * MS)
    assert len(sent) == 3


def test_a_caller_thinks_and_its_next_request_is_due_when_it_has() -> None:
    arrivals, sent = started(ClosedLoop(2, think_time="20ms"))
    assert not arrivals.answered(5 * MS, failed=False)
    assert not arrivals.answered(7 * MS, failed=False)
    assert arrivals.next_due_ns == 25 * MS
    arrivals.send_due(24 * MS)
    assert len(sent) == 2
    arrivals.send_due(26 * MS)
    assert sent[2:] == [25 * MS]
    assert arrivals.next_due_ns == 27 * MS
    arrivals.finish()
    arrivals.send_due(100 * MS)
    assert len(sent) == 3


def test_callers_come_and_leave_as_the_stages_say() -> None:
    arrivals, sent = started(Stages((("0s", 4), ("1s", 4), ("0s", 1), ("1s", 1)), of="concurrency"))
    assert len(sent) == 4
    arrivals.tick(1100 * MS)  # three are too many now: they leave when they are answered
    assert [arrivals.answered(1200 * MS, failed=False) for _ in range(4)] == [False, False, False, True]
    assert len(sent) == 4


def test_a_clock_sends_all_that_is_due_with_the_time_at_which_it_was() -> None:
    arrivals, sent = started(ConstantRate(100), at=1000 * MS)
    arrivals.send_due(1025 * MS)
    assert sent == [1000 * MS, 1010 * MS, 1020 * MS]
    assert arrivals.next_due_ns == 1030 * MS
    assert not arrivals.answered(1026 * MS, failed=False)
    arrivals.tick(1027 * MS)
    assert len(sent) == 3
    arrivals.finish()
    assert arrivals.next_due_ns == NEVER_NS


def test_a_clock_that_has_run_out_wants_nothing_more() -> None:
    arrivals, sent = started(Stages((("1s", 4),), start=4))
    arrivals.send_due(10_000 * MS)
    assert sent == [0, 250 * MS, 500 * MS, 750 * MS]
    assert arrivals.next_due_ns == NEVER_NS


@PROPERTY
@given(of=st.integers(1, 7), concurrency=st.integers(1, 50))
def test_shares_of_a_closed_loop_add_up_to_all_its_callers(of: int, concurrency: int) -> None:
    sizes = [len(started(ClosedLoop(concurrency), Share(number, of))[1]) for number in range(of)]
    assert sum(sizes) == concurrency
    assert max(sizes) - min(sizes) <= 1


SHARED = [ConstantRate(1000), GammaRate(1000, 0.5, seed=3), Stages((("200ms", 900), ("300ms", 50)), start=10)]


def sent_together(schedule: Schedule, of: int) -> list[int | None]:
    """What so many generators send in half a second, in the order of time."""
    parts: list[int | None] = []
    for number in range(of):
        arrivals, sent = started(schedule, Share(number, of))
        arrivals.send_due(500 * MS)
        parts += sent
    return sorted(parts, key=lambda due: due or 0)


@pytest.mark.parametrize("schedule", SHARED, ids=str)
def test_shares_of_an_open_loop_interleave_to_exactly_its_arrivals(schedule: Schedule) -> None:
    whole, all_sent = started(schedule)
    whole.send_due(500 * MS)
    assert sent_together(schedule, 3) == all_sent


def test_independent_callers_of_several_generators_are_streams_of_their_own() -> None:
    schedule = PoissonRate(1000, seed=3)
    expected = list(itertools.takewhile(lambda due: due <= 500 * MS, schedule.merged_arrivals(3)))
    assert sent_together(schedule, 3) == expected
    assert len(expected) == pytest.approx(500, abs=150)
