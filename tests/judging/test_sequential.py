"""The evidence of a test: when more launches are made, which of them count, and what they may cost."""

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


class FakeBench:
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


def an_evidence(
    launches: Sequence[Launch] = (GOOD,), *, seconds: float = 0.0, budget_ns: int = MINUTE, most: int = 5
) -> tuple[SequentialMeasurement, FakeBench]:
    bench = FakeBench(launches, seconds)
    return SequentialMeasurement(bench, budget_ns, most), bench  # type: ignore[arg-type]


def judging(evidence: SequentialMeasurement, *outcomes: Outcome | None) -> Callable[[], Verdict]:
    """Comes to these verdicts one after the other, then to the last again; None: there are too few samples."""
    left = list(outcomes)

    def judge() -> Verdict:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        assert evidence.metrics.requests
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
    evidence, bench = an_evidence()
    assert evidence.decide(judging(evidence, *outcomes)).outcome is outcome
    assert len(evidence.metrics.launches) == bench.measured == launches


def test_too_few_samples_to_the_end_are_an_error() -> None:
    evidence, bench = an_evidence()
    with pytest.raises(TooFewSamplesError):
        evidence.decide(judging(evidence, None))
    assert bench.measured == 5


@pytest.mark.parametrize(("most", "launches"), [(5, 2), (1, 1)])
def test_a_failure_is_confirmed_whatever_the_budget_where_another_launch_is_allowed(most: int, launches: int) -> None:
    evidence, bench = an_evidence(seconds=0.02, budget_ns=MS, most=most)
    assert evidence.decide(judging(evidence, FAIL)).outcome is FAIL
    assert bench.measured == launches


def test_an_open_verdict_does_not_go_over_the_budget() -> None:
    evidence, bench = an_evidence(seconds=0.02, budget_ns=MS)
    assert evidence.decide(judging(evidence, OPEN)).outcome is OPEN
    assert bench.measured == 1


def test_a_launch_in_which_the_generator_was_the_limit_is_measured_again() -> None:
    evidence, bench = an_evidence((LIMITED, LIMITED, GOOD))
    assert evidence.metrics.generator.limited is None
    assert (bench.measured, evidence.dropped, len(evidence.metrics.launches)) == (3, 2, 1)


def test_where_it_always_is_one_such_launch_is_kept_which_says_so() -> None:
    evidence, bench = an_evidence((LIMITED,), most=4)
    assert evidence.metrics.generator.limited is not None
    assert (bench.measured, evidence.dropped) == (4, 3)


def test_what_is_measured_again_counts_against_the_budget() -> None:
    evidence, bench = an_evidence((LIMITED,), seconds=0.05, budget_ns=80 * MS)
    assert evidence.metrics.launches
    assert bench.measured == 1
    assert evidence.spent_s >= 0.05


def test_such_a_launch_beside_good_ones_is_dropped() -> None:
    evidence, bench = an_evidence((GOOD, LIMITED), most=3)
    assert evidence.decide(judging(evidence, OPEN)).outcome is OPEN
    assert evidence.metrics.generator.limited is None
    assert (bench.measured, evidence.dropped, len(evidence.metrics.launches)) == (3, 2, 1)


@pytest.mark.parametrize("before", [(), (LIMITED,)], ids=["at once", "in a launch that is measured again"])
def test_ctrl_c_keeps_what_was_measured_until_then(before: tuple[Launch, ...]) -> None:
    evidence, _ = an_evidence((*before, STOP))
    with pytest.raises(KeyboardInterrupt):
        _ = evidence.metrics
    assert evidence.interrupted
    assert evidence.so_far is not None
    assert evidence.so_far.launches == (GOOD,)


def test_launches_of_a_comparison_are_taken_where_there_are_none() -> None:
    evidence, bench = an_evidence()
    evidence.take([GOOD, GOOD])
    evidence.take([GOOD])
    assert len(evidence.metrics.launches) == 2
    assert bench.measured == 0
    evidence.decide(judging(evidence, OPEN))
    assert len(evidence.metrics.launches) == 5


def test_a_search_is_among_the_metrics_and_a_second_one_has_a_fresh_deployment() -> None:
    evidence, bench = an_evidence()
    evidence.measure_at_least(1)
    evidence.search(None)
    evidence.search(None)
    assert len(evidence.metrics.capacities) == 2
    assert bench.measured == 2
