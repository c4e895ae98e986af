"""Steps beside the load: what they hurt, when it is well again, and verdicts whose truth is known."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.stepped import BEGIN_S, SECONDS, Step, stepped_launch, stepped_launches
from support.synthetic import MS, START_NS, S, even_launch

from pytest_mlpatterns.analysis.capacity.step_impact import (
    USUAL_LIMIT,
    AroundStep,
    HurtLimit,
    around_steps,
    describe_impact,
    impacts_of,
    is_failed_anyway,
    judge_errors,
    judge_hurt,
    judge_step_recovery,
    latency_moments,
)
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.records.capacity import DuringStep, LatencyMoment, StepImpact
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.verdict import Outcome, Verdict

PLAN = SequentialPlan(first=1, last=8, alpha=0.02)
NOTHING = Step()


def impact(*steps: Step, seed: int = 0) -> StepImpact:
    return impacts_of(around_steps([stepped_launch(*steps, seed=seed)]), USUAL_LIMIT)[0]


class TestImpact:
    @each_row("seed", range(5))
    @each_row(("blocked_s", "delay_s"), [(0.5, 0.0), (0.5, 0.15), (1.0, 0.0)])
    def test_what_a_block_hurts_is_what_waited_for_it(self, blocked_s: float, delay_s: float, seed: int) -> None:
        step = Step(blocked_s=blocked_s, delay_s=delay_s, length_s=blocked_s + delay_s)
        launch = stepped_launch(step, seed=seed)
        (found,) = impacts_of(around_steps([launch]), USUAL_LIMIT)
        at = START_NS + round((BEGIN_S + delay_s) * S)
        waited = (launch.samples.due_ns >= at) & (launch.samples.due_ns < at + round(blocked_s * S))
        assert found.hurt == pytest.approx(waited.sum(), rel=0.1)
        assert found.failed == 0
        assert found.recovery_ns == pytest.approx((delay_s + blocked_s) * S, rel=0.1)
        assert found.worst_ns == pytest.approx(blocked_s * S, rel=0.1)
        assert found.limit_ns == 2 * (found.before_ns or 0)

    def test_lost_requests_are_hurt_whatever_their_time(self) -> None:
        found = impact(Step(blocked_s=0.5, lost=1.0))
        assert found.failed == found.hurt
        assert found.failed == pytest.approx(100, rel=0.3)
        assert found.around_ns is None

    def test_a_step_without_effect_hurts_next_to_nothing(self) -> None:
        found = impact(NOTHING)
        assert found.hurt <= 2
        assert found.recovery_ns == 0
        assert StepImpact.from_json(found.to_json()) == found
        assert found.requests == pytest.approx(240, rel=0.2)

    def test_a_service_that_stays_slow_is_not_well_again(self) -> None:
        found = impact(Step(slower=4.0))
        assert found.recovery_ns is None
        assert found.watched_ns == pytest.approx((SECONDS - BEGIN_S) * S)
        assert found.requests == pytest.approx(200 * (SECONDS - BEGIN_S), rel=0.2)

    def test_a_step_that_hurts_twice_is_well_after_the_second_time(self) -> None:
        first, second = Step(blocked_s=0.2, length_s=0.9), Step(blocked_s=0.2, delay_s=0.6, length_s=0.9)
        launch = stepped_launch(first, second)
        found = impacts_of(around_steps([replace(launch, steps=launch.steps[:1])]), USUAL_LIMIT)[0]
        assert found.recovery_ns == pytest.approx(0.8 * S, rel=0.1)

    def test_requests_in_flight_at_the_begin_are_around_it(self) -> None:
        launch = even_launch(100.0, 50 * MS)
        begin_ns = START_NS + S
        outcome = launch.samples.outcome.copy()
        in_flight = (launch.samples.due_ns < begin_ns) & (launch.samples.done_ns >= begin_ns)
        outcome[in_flight] = Failure.CLOSED
        killed = replace(launch.samples, outcome=outcome)
        step = DuringStep("kill", begin_ns, begin_ns)
        (found,) = impacts_of(around_steps([replace(launch, samples=killed, steps=(step,))]), USUAL_LIMIT)
        assert found.failed == found.hurt == in_flight.sum() == 5

    def test_each_step_is_compared_with_the_time_since_the_one_before_was_over(self) -> None:
        launch = stepped_launch(Step(blocked_s=0.4), Step(begin_s=2.5, name="again"))
        first, second = around_steps([launch])
        assert first.watched_end_ns == second.step.begin_ns
        assert second.reference.start_ns == pytest.approx(START_NS + 1.4 * S, abs=0.05 * S)
        assert second.reference.end_ns == second.step.begin_ns
        first, at_once = around_steps([stepped_launch(Step(blocked_s=0.4), Step(begin_s=1.42, name="again"))])
        assert at_once.reference == first.reference, "right after another: with the time before that"

    def test_a_step_at_once_has_nothing_before_it(self) -> None:
        (found,) = around_steps([stepped_launch(Step(begin_s=0.0))])
        (shown,) = impacts_of([found], USUAL_LIMIT)
        assert (shown.before_requests, shown.before_ns, shown.limit_ns) == (0, None, None)
        verdict = judge_hurt([found], USUAL_LIMIT, confidence=0.98)
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert "0 requests before the step are too few for their p99, which needs 459" in verdict.reason
        absolute = HurtLimit(99, None, 40 * MS)
        assert impacts_of([found], absolute)[0].limit_ns == 40 * MS
        assert found.recovery_ns(absolute) == 0

    def test_in_words(self) -> None:
        assert describe_impact(impact(NOTHING)).startswith(("none of", "1 of", "2 of"))
        blocked = describe_impact(impact(Step(blocked_s=0.3, length_s=0.3)))
        assert " requests hurt, worst 3" in blocked
        assert ", well again after " in blocked
        lost = describe_impact(impact(Step(blocked_s=9.0, lost=0.6)))
        assert " of them failed, worst " in lost
        assert lost.endswith(", not well again after 3.00 s")


class TestCourse:
    def test_the_pieces_of_a_window(self) -> None:
        moments = latency_moments(stepped_launch(Step(blocked_s=0.5, lost=0.5)))
        assert len(moments) == 80
        assert moments[-1].seconds == SECONDS
        blocked = [one for one in moments if BEGIN_S < one.seconds <= BEGIN_S + 0.5]
        assert sum(one.failed for one in moments) == sum(one.failed for one in blocked)
        assert max(one.worst_ns or 0 for one in moments) == pytest.approx(0.5 * S, rel=0.1)
        assert LatencyMoment.from_json({"seconds": 1.0, "median_ns": None, "worst_ns": None, "failed": 2}).failed == 2

    def test_a_piece_without_an_answer_has_no_latency(self) -> None:
        moments = latency_moments(even_launch(10.0))
        assert any(one.median_ns is None for one in moments)


def decided(launches: list[Launch], judge: Callable[[list[AroundStep], float], Verdict]) -> Outcome:
    """The outcome of a test that measures one launch after the other, and confirms a failure by a second one."""
    outcome = Outcome.INCONCLUSIVE
    for number in range(1, len(launches) + 1):
        verdict = judge(around_steps(launches[:number]), PLAN.confidence(number))
        outcome = verdict.outcome
        if outcome is Outcome.PASS or (outcome is Outcome.FAIL and number > 1):
            return outcome
    return outcome


def by(limit: HurtLimit) -> Callable[[list[AroundStep], float], Verdict]:
    return lambda found, confidence: judge_hurt(found, limit, confidence=confidence)


class TestVerdicts:
    @pytest.mark.parametrize("blocked_s", [0.1, 0.5])
    def test_a_block_fails(self, blocked_s: float) -> None:
        launches = stepped_launches(Step(blocked_s=blocked_s), 8)
        assert decided(launches, by(USUAL_LIMIT)) is Outcome.FAIL
        assert decided(launches, by(HurtLimit(99, None, 40 * MS))) is Outcome.FAIL
        assert decided(launches, by(HurtLimit(50, 2.0))) is Outcome.PASS

    def test_few_requests_leave_it_open(self) -> None:
        launches = [stepped_launch(NOTHING, seed=seed, rate_rps=40.0) for seed in range(3)]
        verdict = judge_hurt(around_steps(launches), HurtLimit(99, None, 40 * MS), confidence=0.98)
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert "without a hurt one decide; offer more load, or judge p95" in verdict.reason
        assert decided(launches, by(HurtLimit(90, None, 40 * MS))) is Outcome.PASS

    def test_one_hurt_launch_of_three_is_not_enough(self) -> None:
        launches = [stepped_launch(Step(blocked_s=0.5)), *stepped_launches(NOTHING, 2)]
        verdict = judge_hurt(around_steps(launches), USUAL_LIMIT, confidence=0.98)
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.reason.endswith("more launches may decide it")
        assert "; of 3 launches the worst: " in verdict.reason

    def test_the_reason_has_both_percentiles(self) -> None:
        found = around_steps(stepped_launches(Step(blocked_s=0.5), 3))
        reason = judge_hurt(found, USUAL_LIMIT, confidence=0.98).reason
        assert reason.startswith("p99 latency 4")
        assert " around the step reload, 1" in reason
        assert "; limit 2x; of 3 launches the worst: " in reason
        lost = around_steps(stepped_launches(Step(blocked_s=0.5, lost=0.5), 3))
        assert judge_hurt(lost, USUAL_LIMIT, confidence=0.98).reason.startswith(
            "p99 latency infinite around the step reload"
        )

    def test_lost_requests_are_counted_in_each_launch(self) -> None:
        found = around_steps(stepped_launches(Step(blocked_s=0.05, lost=1.0), 2))
        failed = max(one.failed for one in impacts_of(found, USUAL_LIMIT))
        none = judge_errors(found, USUAL_LIMIT, 0, confidence=0.98)
        assert none.outcome is Outcome.FAIL
        assert f"{failed} of 2" in none.reason
        assert "around the step reload failed, allowed 0; of 2 launches the worst" in none.reason
        assert judge_errors(found, USUAL_LIMIT, failed, confidence=0.98).outcome is Outcome.PASS
        calm = around_steps(stepped_launches(NOTHING, 2))
        assert judge_errors(calm, USUAL_LIMIT, 0, confidence=0.98).outcome is Outcome.PASS
        assert is_failed_anyway(found, USUAL_LIMIT, 0)
        assert is_failed_anyway(found, USUAL_LIMIT, 0.01)
        assert not is_failed_anyway(calm, USUAL_LIMIT, 0)

    @each_row(("most", "outcome"), [(0.5, Outcome.PASS), (0.05, Outcome.FAIL), (0.19, Outcome.INCONCLUSIVE)])
    def test_a_share_of_lost_requests_has_an_interval(self, most: float, outcome: Outcome) -> None:
        found = around_steps(stepped_launches(Step(blocked_s=0.5, lost=0.5), 2))
        assert judge_errors(found, USUAL_LIMIT, most, confidence=0.98).outcome is outcome

    @each_row(("within_s", "outcome"), [(1.0, Outcome.PASS), (0.2, Outcome.FAIL), (0.5, Outcome.INCONCLUSIVE)])
    def test_the_time_until_it_is_well_again_has_an_interval(self, within_s: float, outcome: Outcome) -> None:
        found = around_steps(stepped_launches(Step(blocked_s=0.5, length_s=0.5), 3))
        verdict = judge_step_recovery(found, USUAL_LIMIT, within_s * S)
        assert (verdict.outcome, verdict.metric, verdict.against) == (outcome, "recovery", "limit")
        assert "after the step reload began" in verdict.reason

    def test_one_that_is_never_well_again_fails_within_the_time_that_it_was_watched(self) -> None:
        found = around_steps(stepped_launches(Step(slower=5.0), 2))
        failed = judge_step_recovery(found, USUAL_LIMIT, 2 * S)
        assert failed.outcome is Outcome.FAIL
        assert failed.reason.startswith("the service is not well again 3.00 s after the step reload began; expected wi")
        open_one = judge_step_recovery(found, USUAL_LIMIT, 20 * S)
        assert open_one.outcome is Outcome.INCONCLUSIVE
        assert 'watch it longer: perf(duration="20s")' in open_one.reason


def test_limits_in_words() -> None:
    assert USUAL_LIMIT.text == "2x"
    assert HurtLimit(95, None, 40 * MS).text == "40.0 ms"
    assert USUAL_LIMIT.times(3) == HurtLimit(99, 6.0)
    assert HurtLimit(95, None, 40 * MS).times(3) == HurtLimit(95, None, 120 * MS)


@pytest.mark.simulation
class TestSimulated:
    @pytest.mark.parametrize("stalls", [0.0, 0.3])
    def test_a_step_that_hurts_nothing_fails_in_less_than_one_test_of_a_hundred(self, stalls: float) -> None:
        """Also on a machine that stalls for 40 ms now and then, with and without a step."""
        tests = 200
        outcomes = [
            decided(stepped_launches(NOTHING, 4, seed=seed, stalls=stalls), by(USUAL_LIMIT)) for seed in range(tests)
        ]
        assert outcomes.count(Outcome.FAIL) <= 0.01 * tests
        if not stalls:
            assert outcomes.count(Outcome.PASS) >= 0.95 * tests

    def test_one_whose_latency_is_exactly_at_the_limit_fails_in_less_than_three_of_a_hundred(self) -> None:
        tests = 100
        launches = (stepped_launches(Step(slower=2.0), 4, seed=seed) for seed in range(tests))
        outcomes = [decided(one, by(USUAL_LIMIT)) for one in launches]
        assert outcomes.count(Outcome.FAIL) <= 0.03 * tests
        assert outcomes.count(Outcome.PASS) <= 0.03 * tests

    def test_a_step_that_hurts_nothing_is_well_again_at_once(self) -> None:
        tests, within_ns = 200, 0.3 * S
        outcomes = [
            decided(
                stepped_launches(NOTHING, 3, seed=seed, stalls=0.1),
                lambda found, _: judge_step_recovery(found, USUAL_LIMIT, within_ns),
            )
            for seed in range(tests)
        ]
        assert outcomes.count(Outcome.FAIL) <= 0.01 * tests
