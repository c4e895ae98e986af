"""Sampled time that agrees with CPU time."""

import pytest
from support.each_row import each_row

from pytest_mlpatterns.profiling.stack_times import SampledStacks, balanced
from pytest_mlpatterns.records.profile import Frame, StackTime

MS = 1_000_000


def block(first_ms: float, second_ms: float, cpu_ms: float, ready_ms: float = 0) -> SampledStacks:
    stacks = tuple(StackTime((Frame(name),), (1,), ms * MS, 5) for name, ms in (("f", first_ms), ("g", second_ms)))
    return SampledStacks(stacks, 100, 0, round(cpu_ms * MS), round(ready_ms * MS))


def shown(blocks: list[SampledStacks]) -> list[list[float]]:
    return [[round(stack.ns / MS, 6) for stack in one.stacks] for one in blocks]


def test_a_block_in_which_the_profiler_came_late_is_scaled_to_the_others() -> None:
    late = block(4, 8, 100)
    assert shown(*balanced([[block(40, 50, 100), late, block(40, 50, 100)]])) == [[40, 50], [30, 60], [40, 50]]


def test_a_block_with_more_work_keeps_it() -> None:
    assert shown(*balanced([[block(40, 50, 100), block(80, 100, 200), block(40, 50, 100)]]))[1] == [80, 100]


@pytest.mark.parametrize(("ready_ms", "goals"), [(0, [90, 70]), (50, [80, 80])], ids=["quiet", "busy"])
def test_two_sides_share_a_median_on_a_busy_machine(ready_ms: float, goals: list[float]) -> None:
    sides = [[block(ms / 2, ms / 2, 100, ready_ms) for ms in (one, one, one)] for one in (90, 70)]
    assert [sum(shown(blocks)[0]) for blocks in balanced(sides)] == goals


def test_a_side_that_waits_shares_none() -> None:
    sides = [[block(one / 2, one / 2, 100, 50)] * 3 for one in (90, 140)]
    assert balanced(sides) == sides


@each_row(
    "blocks",
    [block(900, 50, 100), block(100, 50, 100), block(900, 50, 100)],
    [block(1, 1, 100), block(2, 2, 100), block(3, 3, 100)],
    [block(40, 50, 100), block(4, 5, 100)],
    [block(40, 50, 100), block(4, 5, 0), block(40, 50, 100)],
    [block(40, 50, 100), block(0, 0, 100), block(40, 50, 100)],
)
def test_otherwise_nothing_is_changed(blocks: list[SampledStacks]) -> None:
    assert balanced([blocks]) == [blocks]
