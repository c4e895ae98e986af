"""The measurement of a test: when more launches are made, which of them count, and what they may cost."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, START_NS, S, capacity, even_launch, launch, result, samples, usage

from pytest_mlpatterns import DeploymentError, GeneratorLimitError, InvalidResultError, TooFewSamplesError
from pytest_mlpatterns.baseline.updates import announcement
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.loop import Ruling
from pytest_mlpatterns.judging.sequential import SequentialMeasurement, measure_for_the_baseline
from pytest_mlpatterns.measurement.launch import Interrupted
from pytest_mlpatterns.records.launch import Capacity, Launch, Warmup
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import Outcome, Verdict

GOOD = even_launch()
LIMITED = replace(GOOD, generator=replace(GOOD.generator, cpu_ns=GOOD.generator.wall_ns))
"""A launch in which the load generator used all of a core."""
MINUTE = 60 * S


class FakeRunner:
    """Gives launches that are declared, one after the other and then the last again, and takes the time it is told.

    ``now_ns``: what its clock shows.
    """

    def __init__(self, launches: Sequence[Launch], seconds: float = 0.0) -> None:
        self._launches = launches
        self._seconds = seconds
        self.now_ns = 0
        self.measured = 0
        self.left_ns: list[int] = []

    def measure(self) -> Launch:
        self.now_ns += round(self._seconds * S)
        self.measured += 1
        found = self._launches[min(self.measured, len(self._launches)) - 1]
        if found is STOP:
            raise Interrupted(GOOD)
        if found is STOP_AND_END:
            raise KeyboardInterrupt
        if isinstance(found, Exception):
            raise found
        return found

    def start_again(self) -> int:
        return S

    def follow_growth(self, longest_ns: int, _is_decided: object) -> None:
        self.left_ns.append(longest_ns)

    def search(self, _decided: object, _objective: object, left_ns: int) -> Capacity:
        self.left_ns.append(left_ns)
        return capacity()


STOP: Any = object()
"""Ctrl-C comes in this launch."""
STOP_AND_END: Any = object()
"""Ctrl-C comes in this launch, and its deployment has ended too."""


def make_measurement(
    launches: Sequence[Launch] = (GOOD,), *, seconds: float = 0.0, budget_ns: int = MINUTE, most: int = 5
) -> tuple[SequentialMeasurement, FakeRunner]:
    runner = FakeRunner(launches, seconds)
    return SequentialMeasurement(runner, Spending(Budget(budget_ns), lambda: runner.now_ns), most), runner  # type: ignore[arg-type]


def judge_in_turn(measurement: SequentialMeasurement, *outcomes: Outcome | None) -> Callable[[], list[Verdict]]:
    """Comes to these verdicts one after the other, then to the last again; None: there are too few samples."""
    left = list(outcomes)

    def judge() -> list[Verdict]:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        assert measurement.metrics.requests
        if outcome is None:
            raise TooFewSamplesError("too few")
        return [Verdict("rtm", "limit", outcome, "so it is")]

    return judge


PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


@each_row(
    ("outcomes", "launches", "outcome"),
    [
        ((PASS,), 1, PASS),
        ((FAIL, FAIL), 2, FAIL),
        ((FAIL, PASS), 2, PASS),
        ((OPEN, OPEN, PASS), 3, PASS),
        ((OPEN,), 5, OPEN),
        ((None, None, PASS), 3, PASS),
    ],
)
def test_launches_are_made_until_it_is_decided(
    outcomes: tuple[Outcome | None, ...], launches: int, outcome: Outcome
) -> None:
    measurement, runner = make_measurement()
    assert measurement.decide(judge_in_turn(measurement, *outcomes))[0].outcome is outcome
    assert len(measurement.metrics.launches) == runner.measured == launches


@pytest.mark.parametrize(
    ("outcomes", "launches", "is_sure", "outcome", "words"),
    [
        ((OPEN,), 2, True, OPEN, "so it is; a further start failed twice: it is not ready"),
        ((FAIL,), 1, False, OPEN, "so it is; a further start failed twice: it is not ready"),
        ((FAIL,), 1, True, FAIL, "so it is"),
        ((OPEN, FAIL), 2, False, FAIL, "so it is"),
    ],
)
def test_a_further_start_that_is_given_up_leaves_the_verdict_to_the_launches_before(
    outcomes: tuple[Outcome, ...], launches: int, is_sure: bool, outcome: Outcome, words: str
) -> None:
    failed = DeploymentError("it is not ready\nits log")
    failed.end_starts()
    measurement, _ = make_measurement([GOOD] * launches + [failed])  # type: ignore[list-item]
    (verdict,) = measurement.decide(judge_in_turn(measurement, *outcomes), is_sure=lambda: is_sure)
    assert (verdict.outcome, verdict.reason) == (outcome, words)
    assert len(measurement.metrics.launches) == launches


@pytest.mark.parametrize(("launches", "is_given_up"), [(0, True), (1, False)])
def test_a_failed_start_without_a_launch_and_a_death_under_load_are_errors(launches: int, is_given_up: bool) -> None:
    failed = DeploymentError("it ended")
    if is_given_up:
        failed.end_starts()
    measurement, _ = make_measurement([GOOD] * launches + [failed])  # type: ignore[list-item]
    with pytest.raises(DeploymentError, match="it ended"):
        measurement.decide(judge_in_turn(measurement, OPEN))


def test_too_few_samples_to_the_end_are_an_error() -> None:
    measurement, runner = make_measurement()
    with pytest.raises(TooFewSamplesError):
        measurement.decide(judge_in_turn(measurement, None))
    assert runner.measured == 5


@pytest.mark.parametrize(("most", "launches"), [(5, 2), (1, 1)])
def test_a_failure_is_confirmed_whatever_the_budget_where_another_launch_is_allowed(most: int, launches: int) -> None:
    measurement, runner = make_measurement(seconds=0.02, budget_ns=MS, most=most)
    assert measurement.decide(judge_in_turn(measurement, FAIL))[0].outcome is FAIL
    assert runner.measured == launches


OF_USERS = replace(LIMITED, generator=replace(LIMITED.generator, client="Stub"))


@each_row(
    ("launches", "how", "wanted", "measured", "dropped", "kept"),
    ((LIMITED, LIMITED, GOOD), {}, 1, 3, 2, 1),
    ((LIMITED,), {"most": 4}, 1, 4, 3, 1),  # always the limit
    ((LIMITED,), {"seconds": 0.05, "budget_ns": 80 * MS}, 1, 1, 0, 1),  # it counts against the budget
    ((GOOD, LIMITED), {"most": 3}, 3, 3, 2, 1),
    ((OF_USERS,), {"most": 4}, 2, 2, 0, 2),  # a client of the users is busy in each launch
)
def test_a_launch_in_which_the_generator_was_the_limit_is_measured_again(
    launches: Sequence[Launch], how: dict[str, Any], wanted: int, measured: int, dropped: int, kept: int
) -> None:
    measurement, runner = make_measurement(launches, **how)
    measurement.measure_at_least(wanted)
    assert (runner.measured, measurement.dropped, len(measurement.metrics.launches)) == (measured, dropped, kept)
    assert (measurement.metrics.generator.limited is None) is (GOOD in launches)
    if launches == (LIMITED,):
        with pytest.raises(GeneratorLimitError, match="the load generator used 100 % of a core"):
            measurement.require_valid()


def test_a_failure_that_a_limited_generator_leaves_unconfirmed_is_undecided() -> None:
    measurement, runner = make_measurement((GOOD, LIMITED), seconds=0.02, budget_ns=MS)
    with pytest.raises(GeneratorLimitError, match=r"no further launch can confirm the failure: .* 100 % of a core"):
        measurement.decide(judge_in_turn(measurement, FAIL))
    assert runner.measured == 2, "the launch that confirms is measured in any case, and no other one beyond the budget"


def test_a_failure_is_confirmed_by_the_first_launch_that_the_generator_does_not_limit() -> None:
    measurement, runner = make_measurement((GOOD, LIMITED, LIMITED, GOOD), seconds=0.02, budget_ns=80 * MS)
    assert measurement.decide(judge_in_turn(measurement, FAIL))[0].outcome is FAIL
    assert (runner.measured, measurement.dropped) == (4, 2)


@pytest.mark.parametrize("before", [(), (LIMITED,)], ids=["at once", "in a launch that is measured again"])
def test_ctrl_c_keeps_what_was_measured_until_then(before: tuple[Launch, ...]) -> None:
    measurement, _ = make_measurement((*before, STOP))
    with pytest.raises(KeyboardInterrupt):
        _ = measurement.metrics
    assert measurement.so_far.launches == (GOOD,)


def test_ctrl_c_that_ends_the_deployment_keeps_the_launches_before() -> None:
    measurement, _ = make_measurement((GOOD, STOP_AND_END))
    with pytest.raises(KeyboardInterrupt):
        measurement.decide(judge_in_turn(measurement, OPEN))
    assert measurement.metrics.launches == (GOOD,)


SILENT = replace(LIMITED, silence="no answer since 3.20 s of the window: all 4 callers timed out after 10.0 s")


@pytest.mark.parametrize("launches", [(SILENT,), (GOOD, SILENT, GOOD)], ids=["first", "second"])
def test_a_launch_at_whose_end_the_service_is_dead_is_the_last_and_a_failure_of_the_service(
    launches: Sequence[Launch],
) -> None:
    measurement, runner = make_measurement(launches)
    measurement.measure_at_least(6)
    assert (runner.measured, measurement.dropped) == (launches.index(SILENT) + 1, 0)
    measurement.measure_again(1)
    assert SILENT in measurement.metrics.launches
    assert runner.measured == launches.index(SILENT) + 1
    with pytest.raises(InvalidResultError, match=r"no answer since 3\.20 s") as raised:
        measurement.require_valid(errors_count=False)
    assert not isinstance(raised.value, GeneratorLimitError)


def test_launches_of_a_comparison_are_taken_where_there_are_none() -> None:
    measurement, runner = make_measurement()
    for launches in ([GOOD, GOOD], [GOOD]):
        run: Any = SimpleNamespace(second_launches=launches, second_starts_ns=[], spent_s=0.0)
        measurement.take(run)
    assert len(measurement.metrics.launches) == 2
    assert runner.measured == 0
    measurement.decide(judge_in_turn(measurement, OPEN))
    assert len(measurement.metrics.launches) == 5


@each_row(("seconds", "launches"), (10.0, 3), (20.0, 1), (90.0, 1))
def test_as_many_launches_are_made_as_the_planned_time_has_room_for(seconds: float, launches: int) -> None:
    measurement, runner = make_measurement(seconds=seconds, budget_ns=30 * S)
    measurement.measure_at_least(6)
    assert runner.measured == launches


def test_an_interleaved_run_of_the_test_has_what_its_budget_has_left() -> None:
    measurement, _ = make_measurement(seconds=10.0, budget_ns=30 * S)
    measurement.measure_at_least(2)
    run: Any = SimpleNamespace(spent_s=4.0)  # of a look before
    assert measurement.time_of(run) == 14 * S


def test_only_an_open_verdict_goes_on_after_the_planned_time() -> None:
    runner = FakeRunner([GOOD], 10.0)
    spending = Spending(Budget(60 * S, planned_ns=30 * S), lambda: runner.now_ns)
    measurement = SequentialMeasurement(runner, spending, 8)  # type: ignore[arg-type]
    measurement.measure_at_least(8)
    assert (runner.measured, measurement.reachable_launches) == (3, 3)
    measurement.decide(judge_in_turn(measurement, OPEN))
    assert runner.measured == 6


def test_a_start_before_the_first_launch_is_part_of_what_a_launch_takes() -> None:
    runner = FakeRunner([GOOD], 0.5)
    measurement = SequentialMeasurement(runner, Spending(Budget(2 * S, S), lambda: runner.now_ns), 8)  # type: ignore[arg-type]
    assert measurement.decide(judge_in_turn(measurement, OPEN))[0].outcome is OPEN
    assert runner.measured == 1, "another one takes 1.5 s"


def test_a_growth_is_followed_as_long_as_the_budget_allows_unless_the_test_asks_for_it() -> None:
    measurement, runner = make_measurement(seconds=25.0, budget_ns=30 * S)
    measurement.measure_at_least(1)
    measurement.follow_growth(10 * S, lambda _track: True)
    measurement.follow_growth(10 * S, lambda _track: True, is_asked=True)
    runner.now_ns += 60 * S
    with measurement.spending.counted():
        runner.now_ns += 5 * S
    measurement.follow_growth(10 * S, lambda _track: True)
    assert runner.left_ns == [5 * S, 10 * S, 2 * S]


def test_a_search_is_among_the_metrics_and_a_second_one_has_a_fresh_deployment() -> None:
    measurement, runner = make_measurement()
    measurement.measure_at_least(1)
    measurement.search(None)
    measurement.search(None)
    assert len(measurement.metrics.capacities) == 2
    assert runner.measured == 2


def make_lagging_launch(capacity_rps: float = 180.0, rate_rps: float = 200.0) -> Launch:
    """An open loop above the capacity of a service that answers one request after the other."""
    number = np.arange(int(3.5 * rate_rps))
    due = START_NS - S // 2 + np.round(number * S / rate_rps).astype(np.int64)
    done = due[0] + (number + 1) * S / capacity_rps
    lagging = launch(samples(due, (done - due).astype(np.int64)), seconds=3.0, open_loop=True)
    return replace(lagging, rate_rps=rate_rps)


def test_a_load_that_is_not_sustained_supports_no_verdict_unless_it_is_meant_to_overload() -> None:
    lagging = make_lagging_launch()
    measurement, _ = make_measurement((lagging,))
    measurement.measure_at_least(1)
    with pytest.raises(InvalidResultError, match=r"does not sustain 200 req/s: it answered 180 req/s, \d+ requests"):
        measurement.require_valid()
    measurement, _ = make_measurement((replace(lagging, usage=usage(0.9, 2.0, others_cores=0.9)),))
    measurement.measure_at_least(1)
    others = r"does not sustain 200 req/s: .* while other processes used 0\.9 of the 2 cores; measure again"
    with pytest.raises(GeneratorLimitError, match=others):  # no fault of the service
        measurement.require_valid()
    measurement = SequentialMeasurement(FakeRunner((lagging,)), Spending(Budget(MINUTE)), 5, overload=True)  # type: ignore[arg-type]
    measurement.measure_at_least(1)
    measurement.require_valid()


BUSY = replace(GOOD, usage=usage(0.9, 2.0, others_cores=0.9))


UNSTEADY = replace(GOOD, warmup=Warmup(3 * S, 40, steady=False))


@each_row(
    ("launches", "wanted", "again", "measured", "kept"),
    ((GOOD, BUSY, GOOD, BUSY, GOOD, GOOD), 4, 3, 6, (GOOD,) * 4),
    ((GOOD, UNSTEADY, UNSTEADY, GOOD), 3, 1, 4, (GOOD, UNSTEADY, UNSTEADY, GOOD)),  # its limit ended the warm-up
    ((GOOD, BUSY), 3, 3, 5, (GOOD, BUSY, BUSY, BUSY, BUSY)),  # hardly any other is left
)
def test_disturbed_launches_are_measured_again_and_dropped(
    launches: Sequence[Launch], wanted: int, again: int, measured: int, kept: tuple[Launch, ...]
) -> None:
    measurement, runner = make_measurement(launches, most=9)
    measurement.measure_at_least(wanted)
    measurement.measure_again(again)
    assert (runner.measured, measurement.metrics.launches) == (measured, kept)


def test_disturbed_launches_are_kept_where_the_others_tell_too_little() -> None:
    measurement, _ = make_measurement((GOOD, BUSY, GOOD), most=3)
    measurement.measure_at_least(3)
    measurement.measure_again(1, is_enough=lambda: len(measurement.metrics.launches) > 2)
    assert measurement.metrics.launches == (GOOD, BUSY, GOOD)
    measurement.measure_again(1)
    assert measurement.metrics.launches == (GOOD, GOOD)


def test_a_further_start_is_made_if_the_budget_has_time_for_one_as_long_as_the_last() -> None:
    measurement, runner = make_measurement([replace(GOOD, cold_start_ns=S)], seconds=1.9, budget_ns=3 * S)

    def start_until(starts: int) -> None:
        measurement.rule(lambda: Ruling("start" if len(measurement.metrics.starts_ns) < starts else None))

    start_until(1)
    with measurement.spending.counted():
        runner.now_ns += 200 * MS
    start_until(2)
    assert measurement.metrics.starts_ns == (S,)


def test_a_first_search_has_the_time_that_it_needs_whatever_was_measured_before_it() -> None:
    measurement, runner = make_measurement(seconds=9.9, budget_ns=30 * S, most=99)
    measurement.measure_at_least(99)
    measurement.search(None)
    measurement.search(None)
    assert runner.left_ns == [7 * S, 0], "what is left is 0.3 s, and the second one is of a launch more"
    assert runner.measured == 4


@each_row(("most", "shares"), [(3, True), (2, False)])
def test_a_search_leaves_time_for_those_that_the_launches_allow_after_it(most: int, shares: bool) -> None:
    measurement, runner = make_measurement(most=most)
    objective = parse_objective("p95<50ms")
    found = iter([replace(capacity(), objective=objective, at_least=True), replace(capacity(), objective=objective)])
    runner.search = lambda _decided, _objective, left_ns: (runner.left_ns.append(left_ns), next(found))[1]  # type: ignore[method-assign]
    for _ in range(2):
        measurement.search(objective, shares=True)
    assert (runner.left_ns[1] < MINUTE) is shares


@pytest.mark.parametrize("field", ["launches", "capacities"])
def test_a_further_comparison_by_the_same_pairs_does_not_foresee_the_first_ones_again(field: str) -> None:
    run = SimpleNamespace(launches=[], capacities=[], spent_s=9.0, watch=lambda _function: None)
    setattr(run, field, [object()] * 3)
    measurement, runner = make_measurement(seconds=3.0, budget_ns=12 * S)
    measurement.measure_at_least(1)
    with measurement.spending.counted():
        runner.now_ns += 9 * S  # of the pairs
    measurement.watch(run)  # type: ignore[arg-type]
    assert measurement.forecast is not None
    assert measurement.forecast.beyond_ns == 0


NARROW = ((10e6, 0.002), (10.1e6, 0.002), (9.9e6, 0.002))
WIDE = ((10e6, 0.002), (13e6, 0.002), (8e6, 0.002))


class DeclaredRunner:
    """Gives launches that take a declared time, on a clock of its own; the first one beside neighbours if ``busy``."""

    def __init__(self, seconds: float, busy: bool) -> None:
        self._seconds = seconds
        self._busy = busy
        self._now = 0.0

    def measure(self) -> Launch:
        self._now += self._seconds
        busy, self._busy = self._busy, False
        return replace(even_launch(), usage=usage(0.9, 2.0, others_cores=0.9)) if busy else even_launch()

    def clock(self) -> int:
        return round(self._now * 10**9)


def launches_of(seconds: float, values: tuple[tuple[float, float], ...], *, most: int = 8, busy: bool = False) -> int:
    """How many launches an update keeps that take so long and have these values of the RTM."""
    runner = DeclaredRunner(seconds, busy)
    measurement = SequentialMeasurement(runner, Spending(Budget(30 * 10**9), runner.clock), most)  # type: ignore[arg-type]
    found: TestResult = result(launches={"rtm": values}, metrics={"rtm": (10e6, 9.9e6, 10.1e6)}, passed=not busy)
    measure_for_the_baseline(measurement, lambda: found, steady=True)
    return len(measurement.metrics.launches)


@each_row(
    ("seconds", "narrow", "wide", "most"),
    [
        (1.3, 8, 8, 8),  # a light model: all launches within 12 s
        (3.0, 4, 8, 8),
        (7.5, 3, 4, 8),  # four answers a second: as many as a comparison measures
        (7.5, 2, 2, 2),
        (11.0, 2, 2, 8),
        (40.0, 1, 1, 8),
    ],
)
def test_a_wide_entry_gets_more_launches_in_the_budget_and_up_to_those_of_the_test(
    seconds: float, narrow: int, wide: int, most: int
) -> None:
    assert launches_of(seconds, NARROW, most=most) == narrow
    assert launches_of(seconds, WIDE, most=most) == wide


def test_an_update_is_announced_with_the_budget_as_it_was_given() -> None:
    assert announcement("45s") == "records up to 8 launches of a test, within its budget of 45s"


def test_a_second_kind_of_launches_of_which_there_is_one_gets_more() -> None:
    lonely = (*[(16e6, 0.001), (16.1e6, 0.001)] * 4, (22e6, 0.001))
    assert launches_of(1.3, lonely, most=16) == 12
    assert launches_of(1.3, lonely[:-1], most=16) == 8


def test_a_disturbed_launch_of_an_unsound_update_is_replaced_if_three_are_left() -> None:
    assert launches_of(3.0, NARROW, busy=True) == 4
    assert launches_of(11.0, NARROW, busy=True) == 2
