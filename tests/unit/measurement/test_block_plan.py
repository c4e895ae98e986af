"""How a paired launch spends its time: longer blocks for slow sides, more rounds after a slow start, within bounds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, PROPERTY, S

from pytest_mlpatterns.measurement.paired_blocks import BlockDesign, BlockPlan, ResponsePace, response_pace
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, PoissonRate, Stages

QUICK = ResponsePace(2 * MS, 2 * MS)


@each_row(
    ("schedule", "pace"),
    (ClosedLoop(1), ResponsePace(10 * MS, 10 * MS)),
    (ClosedLoop(4), ResponsePace(2.5 * MS, 10 * MS)),
    (ClosedLoop(4, think_time="30ms"), ResponsePace(10 * MS, 40 * MS)),
    (ConstantRate(50), ResponsePace(20 * MS, 20 * MS)),
    (PoissonRate(2), ResponsePace(500 * MS, 500 * MS)),
    (Stages([("3s", 10)]), ResponsePace(10 * MS, 10 * MS, 3 * S)),  # type: ignore[arg-type]
)
def test_the_pace_is_that_of_the_schedule_at_a_latency_of_10_ms(schedule: object, pace: ResponsePace) -> None:
    assert response_pace(schedule, 10 * MS) == pace  # type: ignore[arg-type]


def in_slices(*lengths_ns: int, rounds: int, slices: int, slice_ns: tuple[int, ...]) -> BlockPlan:
    return BlockPlan(lengths_ns, rounds, slices=slices, slice_ns=slice_ns)


@each_row(
    ("paces", "start_s", "expected"),
    ((QUICK, QUICK), 0.1, in_slices(100 * MS, 100 * MS, rounds=2, slices=16, slice_ns=(5 * MS, 5 * MS))),
    ((QUICK, QUICK), 0.8, in_slices(100 * MS, 100 * MS, rounds=2, slices=16, slice_ns=(5 * MS, 5 * MS))),
    # four times the start, twice the rounds
    ((QUICK, QUICK), 3.2, in_slices(100 * MS, 100 * MS, rounds=4, slices=16, slice_ns=(5 * MS, 5 * MS))),
    # a quarter of the time in any case
    ((QUICK, QUICK), 60, in_slices(100 * MS, 100 * MS, rounds=8, slices=16, slice_ns=(5 * MS, 5 * MS))),
    (
        (QUICK, ResponsePace(30 * MS, 30 * MS)),
        0.8,
        in_slices(100 * MS, 600 * MS, rounds=2, slices=16, slice_ns=(5 * MS, 15 * MS)),
    ),  # 20 answers each
    (
        (ResponsePace(30 * MS, 30 * MS),) * 2,
        16,
        in_slices(156250000, 156250000, rounds=8, slices=5, slice_ns=(15 * MS, 15 * MS)),
    ),  # all the time there is
    ((ResponsePace(1 * S, 16 * S), QUICK), 0.8, BlockPlan((32 * S, 100 * MS), 1)),  # of each of sixteen callers
    ((ResponsePace(MS, MS, 2 * S), ResponsePace(MS, MS, 2 * S)), 0.8, BlockPlan((2 * S, 2 * S), 2)),
    ((ResponsePace(MS, MS, 30 * S), ResponsePace(MS, MS, 30 * S)), 0.8, BlockPlan((30 * S, 30 * S), 1)),
)
def test_blocks_are_as_long_and_as_many_as_pays(
    paces: tuple[ResponsePace, ResponsePace], start_s: float, expected: BlockPlan
) -> None:
    assert BlockDesign().blocks(paces, start_s) == expected


@each_row(
    ("interval_ms", "start_s", "length_ms"),
    (2, 0.8, 100),  # three launches have 600 requests of a side
    (3, 0.8, 126.225),  # 400 would take a fourth launch for 459, so its start
    (3, 1.8, 100),  # three rounds of blocks have 600
    (4, 0.8, 168.3),  # 300 would take two more
    (4.5, 0.8, 100),  # 267 leave the percentile out: three more are not worth it
    (5, 1.8, 140.25),
)
def test_blocks_get_longer_for_the_requests_of_a_percentile_rather_than_a_launch_more(
    interval_ms: float, start_s: float, length_ms: float
) -> None:
    pace = ResponsePace(interval_ms * MS, interval_ms * MS)
    design = BlockDesign().within(30 * S, 3, 459)
    assert design.blocks((pace, pace), start_s).lengths_ns == (length_ms * MS,) * 2
    assert BlockDesign().blocks((pace, pace), start_s).lengths_ns == (100 * MS,) * 2


def test_blocks_are_planned_without_the_time_that_only_open_verdicts_have() -> None:
    assert BlockDesign(beyond_ns=30 * S).within(45 * S, 3) == replace(BlockDesign().within(15 * S, 3), beyond_ns=30 * S)


@each_row(
    ("pace", "slices"),
    (ResponsePace(0.3 * MS, 0.3 * MS), 19),  # of 5 ms
    (ResponsePace(9 * MS, 9 * MS), 20),  # of an answer
    (ResponsePace(0.5 * MS, 2 * MS), 3),  # of 16 answers to each of four callers
    (ResponsePace(0.5 * MS, 4 * MS), 1),  # those of eight callers would be too few to pay
    (ResponsePace(2 * MS, 2 * MS, 100 * MS), 1),  # the load has a length of its own
)
def test_blocks_are_cut_into_slices_of_some_answers_to_each_caller(pace: ResponsePace, slices: int) -> None:
    plan = BlockDesign().blocks((pace, pace), 0.8)
    assert plan.slices == slices


@each_row("latency_ms", [0.3, 2.0, 3.0, 4.9, 5.1, 9.0, 20.0])
def test_slices_that_end_with_an_answer_take_the_time_of_their_block_together(latency_ms: float) -> None:
    """Slices of 5 ms of a service that takes 3 ms took 6 ms: a pair of blocks lasted 0.28 s instead of 0.2 s."""
    pace = ResponsePace(latency_ms * MS, latency_ms * MS)
    plan = BlockDesign().blocks((pace, pace), 0.8)
    ends_ns = math.ceil(plan.slice_ns[0] / pace.cycle_ns) * pace.cycle_ns
    assert plan.lengths_ns[0] * 0.9 <= plan.slices * ends_ns <= plan.lengths_ns[0] * 1.05
    assert ends_ns >= 5 * MS


@each_row(
    ("requests", "pairs", "more"), [(None, 1, True), (None, 7, True), (None, 8, False), (6, 1, False), (6, 9, False)]
)
def test_a_launch_may_have_four_times_its_short_blocks(requests: int | None, pairs: int, more: bool) -> None:
    assert BlockPlan((MS, MS), 2, requests).may_be_repeated(pairs) is more


def test_slices_of_two_sides_that_differ_a_little_have_as_many_answers() -> None:
    quicker, slower = ResponsePace(4.9 * MS, 4.9 * MS), ResponsePace(5.1 * MS, 5.1 * MS)
    plan = BlockDesign().blocks((quicker, slower), 0.8)
    assert [round(ns / one.cycle_ns, 1) for ns, one in zip(plan.slice_ns, (quicker, slower), strict=True)] == [1.5, 1.5]


SLOW = ResponsePace(250 * MS, 500 * MS)
LONGER = ResponsePace(500 * MS, S)
MINUTE = BlockDesign().within(60 * S, 3)


@each_row(
    ("design", "paces", "start_s", "inputs", "requests"),
    (MINUTE, (SLOW, SLOW), 4, 1, 6),  # six launches of 10 s, as many of each caller
    (MINUTE, (SLOW, SLOW), 1, 1, 4),  # twelve of 5 s, since they start quickly
    (MINUTE, (SLOW, SLOW), 10, 1, 10),  # three of 20 s, since they start slowly
    (MINUTE, (SLOW, SLOW), 4, 11, 6),  # a round in both blocks of a side
    (MINUTE, (SLOW, SLOW), 4, 15, 8),  # which makes it five launches
    (MINUTE, (SLOW, SLOW), 4, 40, 10),  # no round fits, and half of one in a block would leave three launches
    (MINUTE, (SLOW, LONGER), 4, 1, 4),  # as many of the slower one
    (MINUTE, (ResponsePace(250 * MS, 1500 * MS),) * 2, 4, 1, 12),  # two of each of six callers
    (BlockDesign().within(30 * S, 3), (SLOW, SLOW), 4, 1, 6),  # three launches of 10 s
    (BlockDesign().within(30 * S, 3), (SLOW, SLOW), 60, 1, 2),  # one of each caller whatever it takes
    (BlockDesign().within(300 * S, 3), (SLOW, SLOW), 1, 1, 18),  # no launch is longer than 20 s
    (MINUTE, (ResponsePace(35 * MS, 35 * MS),) * 2, 2, 1, 20),
    (BlockDesign().within(60 * S, 1), (SLOW, SLOW), 4, 1, 16),
)
def test_blocks_of_slow_variants_have_the_same_requests_in_one_round(
    design: BlockDesign, paces: tuple[ResponsePace, ResponsePace], start_s: float, inputs: int, requests: int
) -> None:
    longest_ns = int(requests * max(one.interval_ns for one in paces))
    found = design.blocks(paces, start_s, inputs)
    assert (found.lengths_ns, found.rounds, found.requests) == ((longest_ns, longest_ns), 1, requests)


@pytest.mark.parametrize(
    ("paces", "stagger_ms"), [((SLOW, SLOW), 62.5), ((SLOW, LONGER), 93.75), ((ResponsePace(S, S),) * 2, 0)]
)
def test_callers_of_slow_variants_begin_a_quarter_of_the_time_between_answers_apart(
    paces: tuple[ResponsePace, ResponsePace], stagger_ms: float
) -> None:
    assert MINUTE.blocks(paces, 4).stagger_ns == stagger_ms * MS


def test_callers_of_quick_variants_begin_at_once() -> None:
    assert MINUTE.blocks((QUICK, QUICK), 4).stagger_ns == 0


def test_a_pair_of_which_one_is_quick_has_blocks_of_time() -> None:
    """As many requests of the quick one would take no time."""
    assert MINUTE.blocks((SLOW, QUICK), 2).requests is None


INTERVALS = st.floats(min_value=1e4, max_value=34e6)


@PROPERTY
@given(INTERVALS, INTERVALS, st.floats(min_value=0, max_value=1e3), st.integers(min_value=1, max_value=100))
def test_a_launch_keeps_its_time_or_has_the_least_that_says_anything(
    first: float, second: float, start_s: float, launch_s: int
) -> None:
    rhythm = BlockDesign(launch_ns=launch_s * S)
    found = rhythm.blocks([ResponsePace(first, first), ResponsePace(second, second)], start_s)
    assert 1 <= found.rounds <= 8
    assert all(
        length >= max(100 * MS, 2 * pace - 1) for length, pace in zip(found.lengths_ns, (first, second), strict=True)
    )
    assert found.rounds == 1 or 2 * found.rounds * sum(found.lengths_ns) <= launch_s * S
