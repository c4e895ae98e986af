"""What is planned of a test, from launches whose scatter is declared."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pytest_mlpatterns.history.plan import Sitting, TestFacts, plan_of
from pytest_mlpatterns.records.plan import Advice, Help, MetricPlan, Seen, TestPlan

NS = math.log(5e6)
"""A time of 5 ms."""


def sitting(
    draw: np.random.Generator, sd: float, launches: int = 8, *, error: float = 0.005, at: float = NS
) -> Sitting:
    return tuple((at + float(level), error) for level in draw.normal(0, sd, launches))


def facts(sd: float = 0.01, **changes: object) -> TestFacts:
    """A test of two primary metrics and a guard, each with a declared scatter."""
    draw = np.random.default_rng(4)
    plain = TestFacts(
        test="test_a.py::test_x",
        tolerances={"rtm": 0.1, "throughput": 0.1, "cpu_per_request": 0.07, "p99": 0.2, "error_rate": 0.001},
        launches={
            "rtm": (sitting(draw, sd), sitting(draw, sd)),
            "throughput": (sitting(draw, sd, at=5.0), sitting(draw, sd, at=5.0)),
            "cpu_per_request": (sitting(draw, sd), sitting(draw, sd)),
            "p99": (sitting(draw, sd),),
        },
        budget_ns=30 * 10**9,
        launch_s=2.0,
        pair_s=4.0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def planned(of: TestFacts) -> TestPlan:
    found = plan_of(of)
    assert found is not None
    return found


def metric(plan: TestPlan, name: str) -> MetricPlan:
    return next(one for one in plan.metrics if one.metric == name)


def file_of(plan: MetricPlan) -> Seen:
    assert plan.file is not None
    return plan.file


def revision_of(plan: MetricPlan) -> Seen:
    assert plan.revision is not None
    return plan.revision


def test_a_quiet_service_sees_its_tolerances() -> None:
    plan = planned(facts(0.005))
    assert (plan.launches, plan.sittings, plan.pairs, plan.recorded) == (16, 2, 0, 8)
    assert [one.metric for one in plan.metrics] == ["rtm", "throughput", "cpu_per_request"]
    assert plan.left_out == ("p99", "error_rate")
    for one in plan.metrics:
        seen = file_of(one)
        assert seen.change is not None
        assert one.tolerance < seen.change <= 2 * one.tolerance
        assert seen.sees(one.tolerance)
        assert seen.advice == ()
    assert file_of(metric(plan, "rtm")).launches == 8
    assert revision_of(metric(plan, "rtm")).launches == 7


def test_smaller_changes_take_more_launches() -> None:
    seen = file_of(metric(planned(facts(0.005, recorded=24)), "rtm"))
    known = [one for one in seen.needed if one is not None]
    assert known == sorted(known, reverse=True)
    assert seen.needed[-1] is not None


def test_a_noisy_service_is_advised_to_compare_with_a_revision_that_sees_it() -> None:
    draw = np.random.default_rng(9)
    quiet = tuple(sitting(draw, 0.004, at=0.0, launches=4) for _ in range(4))
    plan = planned(facts(0.06, pairs={"rtm": quiet, "throughput": quiet}))
    rtm = metric(plan, "rtm")
    assert not file_of(rtm).sees(0.1)
    assert Advice(Help.REVISION) in file_of(rtm).advice
    assert revision_of(rtm).sees(0.1)
    assert plan.pairs == 16
    assert revision_of(rtm).differs_by < file_of(rtm).differs_by


def test_scatter_between_launches_is_answered_by_cores_and_scatter_within_them_by_longer_ones() -> None:
    def helps(**changes: object) -> list[Help]:
        seen = file_of(metric(planned(facts(0.06, **changes)), "rtm"))
        return [one.by for one in seen.advice]

    draw = np.random.default_rng(1)
    assert Help.CORES in helps()
    assert Help.CORES not in helps(has_cores=True)
    within = helps(launches={"rtm": (sitting(draw, 0.06, error=0.06),)})
    assert Help.DURATION in within
    assert Help.CORES not in within


def test_more_time_is_advised_if_it_suffices() -> None:
    tight = file_of(metric(planned(facts(0.02, budget_ns=5 * 10**9)), "rtm"))
    assert tight.launches == 2
    (budget,) = [one for one in tight.advice if one.by is Help.BUDGET]
    assert budget.amount is not None
    assert 5 < budget.amount <= 16


def test_more_launches_than_the_test_allows_are_named() -> None:
    few = file_of(metric(planned(facts(0.02, most_launches=2)), "rtm"))
    assert few.launches == 2
    assert [one.amount for one in few.advice if one.by is Help.LAUNCHES] != []


def test_a_tolerance_that_is_seen_is_advised() -> None:
    seen = file_of(metric(planned(facts(0.03)), "rtm"))
    (advice,) = [one for one in seen.advice if one.by is Help.TOLERANCE]
    assert advice.amount == seen.seen_tolerance
    wider = planned(facts(0.03, tolerances={"rtm": advice.amount}))
    assert file_of(metric(wider, "rtm")).sees(advice.amount)


def test_another_metric_is_advised_if_it_is_seen() -> None:
    draw = np.random.default_rng(4)
    plan = planned(facts(launches={"rtm": (sitting(draw, 0.08),), "cpu_per_request": (sitting(draw, 0.002),)}))
    assert Advice(Help.METRIC, metric="cpu_per_request") in file_of(metric(plan, "rtm")).advice


def test_the_floor_of_a_metric_hides_small_changes_of_small_values() -> None:
    draw = np.random.default_rng(4)
    tiny = facts(launches={"rtm": (sitting(draw, 0.005, at=math.log(20_000)),)}, tolerances={"rtm": 0.1})
    seen = file_of(metric(planned(tiny), "rtm"))
    assert seen.change is not None
    assert seen.change > 0.2
    assert seen.needed == (None, None, None)


def test_without_times_the_launches_of_a_default_run_count() -> None:
    plan = planned(facts(budget_ns=None, launch_s=None, pair_s=None))
    assert file_of(metric(plan, "rtm")).launches == revision_of(metric(plan, "rtm")).launches == 8


def test_a_test_without_two_launches_has_no_plan() -> None:
    assert plan_of(facts(launches={"rtm": (((NS, 0.01),),)})) is None
    assert plan_of(facts(launches={}, tolerances={"no_such_metric": 0.1})) is None


def test_a_guard_of_memory_is_compared_side_by_side() -> None:
    draw = np.random.default_rng(4)
    plan = planned(
        facts(
            launches={"peak_memory": (sitting(draw, 0.01, at=math.log(5e8)),)},
            tolerances={"peak_memory": 0.15, "cold_start": 0.5},
        )
    )
    seen = revision_of(metric(plan, "peak_memory"))
    assert seen.change is not None
    assert 0.15 < seen.change < 0.3


def test_plain_values_say_what_is_seen() -> None:
    plain = planned(facts(0.005)).to_json()
    assert plain["test"] == "test_a.py::test_x"
    assert plain["metrics"][0]["file"]["sees_tolerance"] is True


@pytest.mark.parametrize(("pair_s", "expected"), [(1.0, 24), (4.0, 7), (60.0, 3)])
def test_pairs_that_fit_are_at_least_three(pair_s: float, expected: int) -> None:
    assert facts(pair_s=pair_s).fitting_pairs == expected
