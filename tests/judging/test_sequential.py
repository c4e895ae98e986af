"""The measurement of a test: when more launches are made, which of them count, and what they may cost."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.synthetic import MS, S, capacity, even_launch

from pytest_mlpatterns import TooFewSamplesError
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.measurement.launch import Interrupted
from pytest_mlpatterns.records.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.records.launch import Capacity, Launch

GOOD = even_launch()
LIMITED = replace(GOOD, generator=replace(GOOD.generator, cpu_ns=GOOD.generator.wall_ns))
"""A launch in which the load generator used all of a core."""
MINUTE = 60 * S


class FakeRunner:
    """Gives launches that are declared, one after the other and then the last again, and takes the time it is told."""

    def __init__(self, launches: Sequence[Launch], seconds: float = 0.0) -> None:
        self._launches = launches
        self._seconds = seconds
        self.measured = 0

    def measure(self) -> Launch:
        time.sleep(self._seconds)
        self.measured += 1
        found = self._launches[min(self.measured, len(self._launches)) - 1]
        if found is STOP:
            raise Interrupted(GOOD)
        return found

    def search(self, *_: object) -> Capacity:
        return capacity()


STOP: Any = object()
"""Ctrl-C comes in this launch."""


def make_measurement(
    launches: Sequence[Launch] = (GOOD,), *, seconds: float = 0.0, budget_ns: int = MINUTE, most: int = 5
) -> tuple[SequentialMeasurement, FakeRunner]:
    runner = FakeRunner(launches, seconds)
    return SequentialMeasurement(runner, budget_ns, most), runner  # type: ignore[arg-type]


def judge_in_turn(measurement: SequentialMeasurement, *outcomes: Outcome | None) -> Callable[[], Verdict]:
    """Comes to these verdicts one after the other, then to the last again; None: there are too few samples."""
    left = list(outcomes)

    def judge() -> Verdict:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        assert measurement.metrics.requests
        if outcome is None:
            raise TooFewSamplesError("too few")
        return Verdict("rtm", "limit", outcome, "so it is")

    return judge


PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("outcomes", "launches", "outcome"),
    [
        ((PASS,), 1, PASS),
        ((FAIL, FAIL), 2, FAIL),
        ((FAIL, PASS), 2, PASS),
        ((OPEN, OPEN, PASS), 3, PASS),
        ((OPEN,), 5, OPEN),
        ((None, None, PASS), 3, PASS),
    ],
    ids=["pass", "confirmed", "not confirmed", "open at first", "open to the end", "too few at first"],
)
def test_launches_are_made_until_it_is_decided(
    outcomes: tuple[Outcome | None, ...], launches: int, outcome: Outcome
) -> None:
    measurement, runner = make_measurement()
    assert measurement.decide(judge_in_turn(measurement, *outcomes)).outcome is outcome
    assert len(measurement.metrics.launches) == runner.measured == launches


def test_too_few_samples_to_the_end_are_an_error() -> None:
    measurement, runner = make_measurement()
    with pytest.raises(TooFewSamplesError):
        measurement.decide(judge_in_turn(measurement, None))
    assert runner.measured == 5


@pytest.mark.parametrize(("most", "launches"), [(5, 2), (1, 1)])
def test_a_failure_is_confirmed_whatever_the_budget_where_another_launch_is_allowed(most: int, launches: int) -> None:
    measurement, runner = make_measurement(seconds=0.02, budget_ns=MS, most=most)
    assert measurement.decide(judge_in_turn(measurement, FAIL)).outcome is FAIL
    assert runner.measured == launches


def test_an_open_verdict_does_not_go_over_the_budget() -> None:
    measurement, runner = make_measurement(seconds=0.02, budget_ns=MS)
    assert measurement.decide(judge_in_turn(measurement, OPEN)).outcome is OPEN
    assert runner.measured == 1


def test_a_launch_in_which_the_generator_was_the_limit_is_measured_again() -> None:
    measurement, runner = make_measurement((LIMITED, LIMITED, GOOD))
    assert measurement.metrics.generator.limited is None
    assert (runner.measured, measurement.dropped, len(measurement.metrics.launches)) == (3, 2, 1)


def test_a_generator_that_is_always_the_limit_leaves_one_limited_launch() -> None:
    measurement, runner = make_measurement((LIMITED,), most=4)
    assert measurement.metrics.generator.limited is not None
    assert (runner.measured, measurement.dropped) == (4, 3)


def test_what_is_measured_again_counts_against_the_budget() -> None:
    measurement, runner = make_measurement((LIMITED,), seconds=0.05, budget_ns=80 * MS)
    assert measurement.metrics.launches
    assert runner.measured == 1
    assert measurement.spent_s >= 0.05


def test_a_limited_launch_beside_good_ones_is_dropped() -> None:
    measurement, runner = make_measurement((GOOD, LIMITED), most=3)
    assert measurement.decide(judge_in_turn(measurement, OPEN)).outcome is OPEN
    assert measurement.metrics.generator.limited is None
    assert (runner.measured, measurement.dropped, len(measurement.metrics.launches)) == (3, 2, 1)


@pytest.mark.parametrize("before", [(), (LIMITED,)], ids=["at once", "in a launch that is measured again"])
def test_ctrl_c_keeps_what_was_measured_until_then(before: tuple[Launch, ...]) -> None:
    measurement, _ = make_measurement((*before, STOP))
    with pytest.raises(KeyboardInterrupt):
        _ = measurement.metrics
    assert measurement.interrupted
    assert measurement.so_far is not None
    assert measurement.so_far.launches == (GOOD,)


def test_launches_of_a_comparison_are_taken_where_there_are_none() -> None:
    measurement, runner = make_measurement()
    measurement.take([GOOD, GOOD])
    measurement.take([GOOD])
    assert len(measurement.metrics.launches) == 2
    assert runner.measured == 0
    measurement.decide(judge_in_turn(measurement, OPEN))
    assert len(measurement.metrics.launches) == 5


def test_a_search_is_among_the_metrics_and_a_second_one_has_a_fresh_deployment() -> None:
    measurement, runner = make_measurement()
    measurement.measure_at_least(1)
    measurement.search(None)
    measurement.search(None)
    assert len(measurement.metrics.capacities) == 2
    assert runner.measured == 2
