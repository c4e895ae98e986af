"""Launches that run in one of two ways: recognised, named, and compared one by one."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from support.each_row import each_row
from support.synthetic import MS

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, RatioVerdict, judge_ratio
from pytest_mlpatterns.analysis.verdicts.launch_kinds import (
    Shift,
    Side,
    assignments,
    judge_by_kind,
    paired_kinds,
    two_kinds,
    wants_more_launches,
)
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome, Verdict

RTM, RATE = METRICS["rtm"], METRICS["throughput"]
BOTH = (16.1, 22.3, 15.8, 21.9, 16.2, 22.0, 15.9, 22.2)
PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def side(times_ms: Sequence[float], *, sizes: bool = False, factor: float = 1.0) -> Side:
    """Launches with these times; their batches have 16 inputs if they are fast, 8 if they are slow."""
    figures = {"batch_size": [LaunchValue(15.7 if one < 19 else 8.1, 0.0) for one in times_ms]} if sizes else {}
    return Side([LaunchValue(one * factor * MS, 0.005) for one in times_ms], figures)


def rates(times_ms: Sequence[float], factor: float = 1.0) -> Side:
    return Side([LaunchValue(16_000 / (one * factor), 0.005) for one in times_ms])


@each_row(
    ("times", "high"),
    (BOTH, "01010101"),
    ((16.0, 22.0, 16.2, 22.1), "0101"),
    ((16.0, 16.1, 16.2, 15.9, 15.8, 16.3), None),
    ((16.0, 16.1, 16.2, 15.9, 15.8, 22.0), None),  # a single one may have been disturbed
    ((16.0, 22.0, 16.2), None),
    ((16.0, 17.5, 16.2, 17.4), None),  # too near to each other
    ((15.0, 17.0, 19.0, 21.0, 23.0, 25.0), None),
)
def test_two_kinds_are_seen_in_launches_of_two_groups(times: Sequence[float], high: str | None) -> None:
    found = two_kinds(side(times))
    assert (found and "".join("01"[one] for one in found.is_high)) == high


@pytest.mark.simulation
@each_row("scatter", [0.017, 0.04, 0.08])
@each_row("count", [4, 6, 8, 10])
def test_launches_of_one_kind_are_taken_for_two_in_less_than_one_percent(scatter: float, count: int) -> None:
    drawn = np.exp(np.random.default_rng(5).normal(0, scatter, (2000, count)))
    assert sum(two_kinds(Side([LaunchValue(one, 0.0) for one in row])) is not None for row in drawn.tolist()) <= 25


def test_kinds_are_named_by_the_figure_of_the_layer_that_goes_with_them() -> None:
    named, plain = two_kinds(side(BOTH, sizes=True)), two_kinds(side(BOTH))
    assert named.describe(RTM) == "launches run in one of two ways: batches of 8 (22.1 ms) or 16 (16.0 ms)"
    assert plain.describe(RTM) == "launches run in one of two ways: 16.0 ms or 22.1 ms"
    sizes = [LaunchValue(one, 0.0) for one in (8, 16, 16, 8, 8, 16, 8, 16)]
    assert two_kinds(Side(side(BOTH).values, {"batch_size": sizes})).figure is None


@pytest.mark.parametrize(
    ("times", "wants"),
    [(BOTH, False), (BOTH[:4], True), ((16.0,) * 7 + (22.0,), True), ((16.0, 16.2, 15.9, 16.1), False)],
)
def test_a_baseline_wants_three_launches_of_each_kind(times: Sequence[float], wants: bool) -> None:
    assert wants_more_launches(side(times).values) is wants


@each_row(
    ("times", "sizes", "answers"),
    ((16.0, 22.0), False, ["01"]),
    ((19.2, 26.4), False, ["01"]),
    ((26.4, 19.2, 26.5), False, ["101"]),
    ((19.2, 19.3), False, ["00", "11"]),
    ((16.0, 16.1), True, ["00"]),
    ((22.0,), True, ["1"]),
)
def test_launches_of_the_present_are_of_the_kind_that_explains_them_best(
    times: Sequence[float], sizes: bool, answers: list[str]
) -> None:
    kinds = two_kinds(side(BOTH, sizes=sizes))
    found = assignments(kinds, side(times, sizes=sizes))
    assert ["".join("01"[one] for one in answer) for answer in found] == answers


def test_batches_of_another_size_are_of_neither_kind() -> None:
    kinds = two_kinds(side(BOTH, sizes=True))
    assert not assignments(kinds, Side(side([30.0]).values, {"batch_size": [LaunchValue(3.0, 0.0)]}))


def hitting(times_ms: Sequence[float], *, never: float) -> Side:
    """Launches with these times: half of the requests of a fast one hit a cache, and this share of a slow one's."""
    shares = [LaunchValue(0.5 if one < 19 else never, 0.0) for one in times_ms]
    return Side(side(times_ms).values, {"cache_hit_ratio": shares})


@pytest.mark.parametrize("never", [0.0, 0.1])
def test_a_cache_that_never_hits_is_a_kind_too(never: float) -> None:
    kinds = two_kinds(hitting(BOTH, never=never))
    for times, answer in (((16.0, 16.1), (False, False)), ((22.0, 16.0), (True, False))):
        assert assignments(kinds, hitting(times, never=never)) == [answer]


def judged(present: Side, reference: Side, *, rate: bool = False) -> Verdict:
    metric = RATE if rate else RTM
    judge = partial(judge_change, metric, tolerance=0.1)
    return judge_by_kind(metric, judge, present=present, reference=reference)


@each_row(
    ("times", "sizes", "outcome"),
    (BOTH[:4], False, PASS),
    (BOTH[1::2][:3] + BOTH[:2], False, PASS),  # more slow ones than before, by chance
    ((19.3, 26.6, 19.1, 26.2), False, FAIL),
    ((16.0, 28.5, 16.1, 28.7, 28.4), False, FAIL),  # one kind alone
    ((26.4, 26.5, 26.3), False, FAIL),  # worse than either kind
    ((16.0, 16.1, 15.9, 16.2, 16.0, 16.1), True, PASS),  # always fast now
    ((17.8, 21.8, 21.9, 21.7, 21.8), False, OPEN),  # one kind may be worse, both together are not
    ((22.0, 22.1, 21.9), False, OPEN),  # slow ones of before, or fast ones that are slower
    ((22.0, 22.1, 21.9), True, OPEN),  # the fast kind does not come
)
def test_each_kind_is_compared_with_itself(times: Sequence[float], sizes: bool, outcome: Outcome) -> None:
    found = judged(side(times, sizes=sizes), side(BOTH, sizes=sizes))
    assert found.outcome is outcome, found.reason
    assert "launches run in one of two ways: " in found.reason


def test_a_slower_launch_is_of_the_kind_that_the_figure_says() -> None:
    slower = side((16.0, 16.1, 15.9), sizes=True, factor=1.18)  # nearer to the slow kind than to their own
    assert judged(slower, side(BOTH, sizes=True)).outcome is FAIL
    assert judged(Side(slower.values), side(BOTH)).outcome is OPEN


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, PASS), (1.3, FAIL)])
def test_rates_have_kinds_too(factor: float, outcome: Outcome) -> None:
    assert judged(rates(BOTH[:4], factor), rates(BOTH), rate=True).outcome is outcome


def test_the_reason_names_the_kind_that_does_not_come_and_launches_that_may_be_of_either() -> None:
    reason = judged(side((22.0, 22.1, 21.9), sizes=True), side(BOTH, sizes=True)).reason
    assert "none of 3 launches ran at 16.0 ms, as 4 of 8 recorded ones did" in reason
    assert reason.endswith("launches run in one of two ways: batches of 8 (22.1 ms) or 16 (16.0 ms)")
    assert judged(side((22.0, 22.1, 21.9)), side(BOTH)).reason.endswith("and 3 launches of one way may be of either")


def test_launches_of_one_kind_are_compared_all_with_all() -> None:
    plain = side((16.0, 16.1, 15.9, 16.2))
    assert judged(plain, plain) == judge_change(RTM, plain.values, plain.values, tolerance=0.1)


@pytest.mark.parametrize(
    ("slow", "outcome", "said"),
    [(8, FAIL, "7 of 8 launches ran at 22.0 ms, before 2 of 12"), (4, OPEN, "3 of 4 launches ran at 22.0 ms")],
)
def test_a_worse_kind_that_came_more_often_is_not_left_out(slow: int, outcome: Outcome, said: str) -> None:
    recorded = side((16.0, 16.1, 15.9, 22.0, 16.2, 16.0, 16.1, 22.1, 15.8, 16.1, 16.0, 15.9), sizes=True)
    found = judged(side((16.0, 22.0, 22.1, 21.9, 22.2, 22.0, 22.1, 21.8)[:slow], sizes=True), recorded)
    assert found.outcome is outcome, found.reason
    assert said in found.reason


def test_kinds_that_differ_by_less_than_the_tolerance_may_come_more_often() -> None:
    recorded, present = BOTH[:4] + BOTH[::2] + BOTH[::2], BOTH[1::2] + BOTH[:1]
    judge = partial(judge_change, RTM, tolerance=0.5)
    found = judge_by_kind(RTM, judge, present=side(present, sizes=True), reference=side(recorded, sizes=True))
    assert found.outcome is PASS


class TestPairs:
    """Paired launches, whose sides settle by themselves."""

    FIRST = (16.0, 22.0, 16.2, 22.1, 15.9, 16.1)
    SECOND = (22.0, 16.1, 16.0, 22.2, 22.1, 15.9)
    FAST = (16.0, 16.1, 15.9, 16.2, 16.0, 16.1, 15.8, 16.1)
    SLOW = (22.0, 22.1, 21.9, 22.2, 22.0, 22.1, 21.8, 22.1)

    @staticmethod
    def found(
        first: Sequence[float], second: Sequence[float], factor: float = 1.0, *, sizes: bool = False
    ) -> RatioVerdict:
        ratios = [LogRatio(math.log(b * factor / a), 0.005) for a, b in zip(first, second, strict=True)]
        kinds = paired_kinds(ratios, side(first, sizes=sizes), side(second, factor=factor, sizes=sizes))
        return kinds.verdict(lambda found: judge_ratio(found, 1.1, "lower"), better="lower", tolerance=0.1)

    @each_row(
        ("first", "second", "factor", "sizes", "outcome"),
        (FIRST, SECOND, 1.0, False, PASS),
        (FIRST, SECOND, 1.2, False, FAIL),
        (FIRST, SECOND, 0.8, False, PASS),
        (FIRST[:4], SECOND[:4], 1.3, False, OPEN),  # no figure names the kinds: they fail in six pairs
        (FIRST, SECOND, 1.3, False, FAIL),
        # CPU times of the same service on a loaded machine: of the seven alike most were taken for quick ones
        (
            (0.926, 1.39, 1.40, 0.942, 1.308, 1.022, 1.286, 1.374),
            (1.178, 1.32, 1.29, 1.208, 1.024, 1.779, 1.356, 1.295),
            1.0,
            False,
            OPEN,
        ),
        (BOTH, SLOW, 1.0, False, OPEN),  # a lost kind
        (FAST, BOTH, 1.0, False, OPEN),  # a worse kind that only the second side shows
        (FAST, BOTH, 1.0, True, OPEN),
        (SLOW, BOTH, 1.0, True, PASS),  # and a better one
    )
    def test_the_part_of_the_kinds_is_left_out(
        self, first: Sequence[float], second: Sequence[float], factor: float, sizes: bool, outcome: Outcome
    ) -> None:
        assert self.found(first, second, factor, sizes=sizes).outcome is outcome

    def test_the_error_of_its_slope_is_that_of_a_least_squares_fit(self) -> None:
        from scipy.stats import linregress  # slow to load

        apart = np.array([1, -1, 0, 1, -1, 0, 1, 0])
        values = np.array([0.4, -0.25, 0.1, 0.2, -0.4, -0.05, 0.35, 0.0])
        high = [one > 19 for one in BOTH]
        first = [22.0 if one else 16.0 for one in high]
        second = [16.0 if moved == -1 else 22.0 if moved == 1 else one for moved, one in zip(apart, first, strict=True)]
        moved = np.array([b > 19 for b in second], float) - np.array(high, float)
        fitted = linregress(moved, values)
        kinds = paired_kinds([LogRatio(value, 0.03) for value in values.tolist()], side(first), side(second))
        (answer,) = kinds.answers
        assert [one.value for one in answer.ratios] == pytest.approx(values - fitted.slope * moved)
        assert [one.error for one in answer.ratios] == pytest.approx(np.hypot(0.03, fitted.stderr * abs(moved)))

    def test_of_two_answers_that_agree_the_one_with_less_change_is_said(self) -> None:
        found = self.found(BOTH, self.FAST)
        assert found.judged.value == pytest.approx(1.0, abs=0.02)

    @pytest.mark.parametrize("first", [FAST + FAST[:4], (22.0, 22.1, *FAST, *FAST[:2])])
    def test_a_worse_kind_that_surely_came_more_often_fails(self, first: Sequence[float]) -> None:
        second = (22.0, 22.1, 21.9, 22.2, 16.0, 22.1, 22.0, 21.8, 22.0, 16.1, 22.2, 21.9)
        found = self.found(first, second, sizes=True)
        assert found.outcome is FAIL
        assert found.judged.value > 1.2  # that of all launches

    def test_scatter_that_looks_like_a_worse_kind_does_not_fail(self) -> None:
        """All launches together are 2 % worse: a kind that comes four times as often would make them 30 % worse."""
        assert Shift(9, 10, 2, 10).outcome(PASS, worsening=0.02, tolerance=0.1) is OPEN
        assert Shift(9, 10, 2, 10).outcome(PASS, worsening=0.30, tolerance=0.1) is FAIL

    def test_the_reason_says_how_often_the_worse_kind_came(self) -> None:
        ratios = [LogRatio(math.log(b / a), 0.005) for a, b in zip(self.FAST, BOTH, strict=True)]
        kinds = paired_kinds(ratios, side(self.FAST, sizes=True), side(BOTH, sizes=True))
        assert kinds.describe(RTM).endswith(
            "the worse way came more often: 4 of 8 launches ran at 22.1 ms, before 0 of 8"
        )

    def test_sides_of_one_kind_have_none(self) -> None:
        assert paired_kinds([LogRatio(0.0, 0.01)] * 4, side((16.0,) * 4), side((22.0,) * 4)) is None
