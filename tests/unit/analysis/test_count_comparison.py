"""Slow and failed requests are compared by counts, with the launch as the unit: what fails, what is suspected."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from support.each_row import each_row
from support.synthetic import MS

from pytest_mlpatterns.analysis.metrics.blocked_values import counted
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric
from pytest_mlpatterns.analysis.verdicts.count_comparison import (
    COUNT_ALPHA,
    STORED_TAIL_ALPHA,
    TAIL_ALPHA,
    judge_failures,
    judge_tail,
    tail_ceiling,
)
from pytest_mlpatterns.errors import InvalidResultError, TooFewSamplesError
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.verdict import NO_CEILING, Outcome, Verdict

ByBlock = Callable[[float], tuple[NDArray[np.int64], NDArray[np.int64]]]
ALPHA = 0.001


def launches(
    count: int, requests: int = 230, *, seed: int = 0, slow: float = 0.0, failing: float = 0.0, factor: float = 1.0
) -> list[RequestCounts]:
    """Launches of a service of 3 ms: a share of slow requests takes four times as long, another share fails."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        latency = factor * 3 * MS * np.exp(rng.normal(0, 0.15, requests))
        latency[rng.random(requests) < slow] *= 4
        failed = int(rng.binomial(requests, failing))
        found.append(RequestCounts(requests, failed, counted(latency[failed:].astype(np.int64))))
    return found


def tail(
    reference: Sequence[RequestCounts],
    present: Sequence[RequestCounts],
    percentile: float = 99,
    tolerance: float = 0.2,
    *,
    late: ByBlock | None = None,
) -> Verdict:
    metric = percentile_metric(percentile)
    return judge_tail(reference, present, metric=metric, tolerance=tolerance, alpha=ALPHA, by_block=(None, late))


def failures(reference: Sequence[RequestCounts], present: Sequence[RequestCounts]) -> Verdict:
    return judge_failures(reference, present, tolerance=0.001, alpha=ALPHA)


def test_a_tail_of_slow_requests_fails() -> None:
    found = tail(launches(6), launches(6, seed=1, slow=0.03))
    assert found.outcome is Outcome.FAIL
    assert found.change.value > 1
    assert found.present_value > 2 * found.reference_value
    assert found.reason.startswith("p99 latency 4.")
    assert "of 1,380 requests took over" in found.reason
    assert found.reason.endswith(" took over 4.62 ms; tolerance 20.0 %")


@each_row(
    ("factor", "percentile", "outcome"),
    *((1.0, percentile, Outcome.PASS) for percentile in (90, 95, 99)),
    *((1.15, 95, Outcome.PASS), (1.5, 95, Outcome.FAIL), (0.5, 95, Outcome.PASS)),
)
def test_a_service_slower_as_a_whole_has_a_slower_tail(factor: float, percentile: float, outcome: Outcome) -> None:
    assert tail(launches(6), launches(6, seed=1, factor=factor), percentile).outcome is outcome


def test_a_percentile_below_p99_leaves_the_tail_to_it_if_there_are_enough_requests() -> None:
    assert tail(launches(6), launches(6, seed=1, slow=0.03), 95).outcome is Outcome.PASS
    before = [RequestCounts(100, 0, {3 * MS: 95, 4 * MS: 4, 5 * MS: 1})] * 4
    after = [RequestCounts(100, 0, {3 * MS: 96, 12 * MS: 4})] * 4
    assert tail(before, after, 95).outcome is Outcome.INCONCLUSIVE


def test_failed_requests_are_infinitely_late() -> None:
    found = tail(launches(6), launches(6, seed=1, failing=0.03))
    assert found.outcome is Outcome.FAIL
    assert (found.present_value, found.change) == (None, None)
    assert "→ never: " in found.reason


def test_a_reference_whose_percentile_is_among_failed_requests_cannot_be_compared() -> None:
    with pytest.raises(InvalidResultError, match=r"no p99 latency of the reference: \d\.\d % of its requests failed"):
        tail(launches(6, failing=0.04), launches(6, seed=1))


def test_slow_requests_show_beside_failures_that_were_there_before() -> None:
    before, after = launches(6, failing=0.003), launches(6, seed=1, failing=0.003, slow=0.03)
    found = tail(before, after)
    assert found.outcome is Outcome.FAIL
    assert found.change is not None


def test_the_reason_of_a_suspicion_has_the_counts_that_it_rests_on() -> None:
    before = [RequestCounts(500, 0, {2 * MS: 480, 3 * MS: 19, 4 * MS: 1}) for _ in range(3)]
    after = [RequestCounts(500, 0, {2 * MS: 480, 3 * MS: 17, 9 * MS: 3}) for _ in range(2)]
    found = tail(before, after)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "0.60 % of 1,000 requests took over 4.80 ms, which is 4.00 ms with the tolerance; before" in found.reason
    assert "before, 0.0 % of 1,500 took over 4.00 ms; tolerance" in found.reason


def test_one_pause_of_the_machine_does_not_fail() -> None:
    present = launches(5, seed=1)
    paused = {**present[2].latencies, 100 * MS: 60}
    present[2] = RequestCounts(present[2].requests + 60, 0, paused)
    assert tail(launches(6), present).outcome is not Outcome.FAIL
    present[2] = RequestCounts(present[2].requests, 60, launches(1)[0].latencies)
    assert failures(launches(6), present).outcome is not Outcome.FAIL


@pytest.mark.parametrize(
    ("blocks", "outcome"), [([9, 0, 0, 0, 0, 0, 0, 0], Outcome.INCONCLUSIVE), ([1, 2, 1, 1, 1, 1, 1, 1], Outcome.FAIL)]
)
def test_a_pause_in_each_launch_is_one_event_and_slow_ones_everywhere_many(blocks: list[int], outcome: Outcome) -> None:
    before = [RequestCounts(4000, 0, {2 * MS: 3990, 3 * MS: 10})] * 4
    after = [RequestCounts(4000, 0, {2 * MS: 3981, 3 * MS: 10, 20 * MS: 9})] * 4
    every = np.full(8, 500)

    def late(latency_ns: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.tile(np.array(blocks) * (latency_ns < 20 * MS), 4), np.tile(every, 4)

    assert tail(before, after).outcome is Outcome.FAIL  # where the blocks are not known
    assert tail(before, after, late=late).outcome is outcome


def test_a_change_below_the_floor_does_not_count() -> None:
    fast = [RequestCounts(500, 0, {10_000: 480, 12_000: 20}) for _ in range(4)]
    slower = [RequestCounts(500, 0, {10_000: 450, 14_800: 50}) for _ in range(4)]
    assert tail(fast, slower, 95).outcome is Outcome.PASS


@pytest.mark.parametrize(("percentile", "needed"), [(95, 90), (99, 459)])
def test_a_percentile_needs_a_number_of_requests(percentile: float, needed: int) -> None:
    enough, few = launches(1, needed), launches(1, needed - 1)
    assert tail(enough, enough, percentile).outcome is Outcome.PASS
    for sides, name in (((few, enough), "reference"), ((enough, few), "present")):
        with pytest.raises(TooFewSamplesError, match=f"needs {needed} requests, the {name} has {needed - 1};"):
            tail(*sides, percentile)


def test_new_failures_fail() -> None:
    found = failures(launches(6), launches(6, seed=1, failing=0.02))
    assert found.outcome is Outcome.FAIL
    assert found.reference_value == 0
    assert found.present_value == pytest.approx(0.02, abs=0.01)
    assert found.change.low < found.change.value == found.present_value < found.change.high
    assert found.reason.startswith("error rate 0.0 % (0 of 1,380) → ")


def test_a_service_that_always_fails_a_little_passes() -> None:
    for share in (0.0, 0.01, 0.04):
        assert failures(launches(6, failing=share), launches(5, seed=1, failing=share)).outcome is Outcome.PASS


@each_row(
    ("before", "now", "outcome"),
    (launches(6), [RequestCounts(300, 1, {3 * MS: 299})], Outcome.PASS),
    (launches(6), [RequestCounts(300, 6, {3 * MS: 294}), *launches(1, seed=1)], Outcome.INCONCLUSIVE),
    ([RequestCounts(240, 0, {3 * MS: 240})], [RequestCounts(240, 2, {3 * MS: 238})], Outcome.INCONCLUSIVE),
    ([RequestCounts(240, 1, {3 * MS: 239})], [RequestCounts(240, 2, {3 * MS: 238})], Outcome.PASS),
    (launches(3), [RequestCounts(100, 100, {})] * 3, Outcome.FAIL),
)
def test_one_failed_request_is_none_some_are_suspected_and_all_fail(
    before: list[RequestCounts], now: list[RequestCounts], outcome: Outcome
) -> None:
    assert failures(before, now).outcome is outcome


def test_without_a_request_there_is_no_error_rate() -> None:
    with pytest.raises(InvalidResultError, match="no request was due"):
        failures([RequestCounts(0, 0, {})], launches(1))


def test_launches_without_a_request_do_not_count() -> None:
    empty = RequestCounts(0, 0, {})
    assert failures([empty, *launches(3)], launches(3)) == failures(launches(3), launches(3))
    assert tail([empty, *launches(3)], launches(3)) == tail(launches(3), launches(3))


def failing(*failed: int) -> list[RequestCounts]:
    return [RequestCounts(1000, count, {3 * MS: 1000 - count}) for count in failed]


def test_launches_that_scatter_count_as_fewer_events_and_widen_the_interval() -> None:
    """The same numbers of failed requests, spread evenly and not."""
    even = failures(failing(*[10] * 6), failing(*[20] * 6))
    uneven = failures(failing(*[0, 20] * 3), failing(*[0, 40] * 3))
    assert even.outcome is Outcome.FAIL
    assert uneven.outcome is not Outcome.FAIL
    assert failures(failing(*[0, 20] * 3), failing(*[100, 140] * 3)).outcome is Outcome.FAIL
    assert uneven.change.value == even.change.value == pytest.approx(0.01)
    assert uneven.change.high - uneven.change.low > 2 * (even.change.high - even.change.low)


FAIL, OPEN = Outcome.FAIL, Outcome.INCONCLUSIVE


def alike(slow: int = 0, failed: int = 0) -> list[RequestCounts]:
    """Six launches of 1,000 requests with the same number of slow and of failed ones."""
    quick = {3 * MS: 995 - slow - failed, 4 * MS: 5}
    return [RequestCounts(1000, failed, quick | ({12 * MS: slow} if slow else {}))] * 6


@each_row(
    ("before", "after", "alpha", "outcome"),
    (2, 7, TAIL_ALPHA, OPEN),  # fails at 0.002
    (4, 13, TAIL_ALPHA, FAIL),  # open at 0.0005
    (4, 13, STORED_TAIL_ALPHA, OPEN),  # fails at 0.001
    (2, 8, STORED_TAIL_ALPHA, FAIL),  # open at 0.00025
)
def test_slow_requests_fail_at_their_level(before: int, after: int, alpha: float, outcome: Outcome) -> None:
    found = judge_tail(alike(slow=before), alike(slow=after), metric=METRICS["p99"], tolerance=0.2, alpha=alpha)
    assert found.outcome is outcome


@each_row(("before", "after", "outcome"), [(0, 4, OPEN), (2, 8, FAIL)])  # these fail at 0.004, and are open at 0.001
def test_failures_fail_at_their_level(before: int, after: int, outcome: Outcome) -> None:
    found = judge_failures(alike(failed=before), alike(failed=after), tolerance=0.001, alpha=COUNT_ALPHA)
    assert found.outcome is outcome


def slower(times: float, share: float, seed: int = 100) -> list[RequestCounts]:
    """Six launches of a service of 4 ms, of whose requests a share takes this many times as long."""
    found = []
    for number in range(6):
        latency = 4 * MS * np.exp(np.random.default_rng(seed + number).normal(0, 0.1, 1000))
        latency[: int(1000 * share)] *= times
        found.append(RequestCounts(1000, 0, counted(latency.round(-3).astype(np.int64))))
    return found


@each_row("percentile", [90, 95, 99, 99.9])
@each_row(("times", "share"), [(10, 0.008), (10, 0.004), (30, 0.003), (3, 0.02), (1.5, 1.0)])
def test_with_its_ceiling_a_tail_passes_and_a_slower_one_fails(percentile: float, times: float, share: float) -> None:
    before, now = slower(1, 0, seed=0), slower(times, share)
    ceiling = tail_ceiling(before, now, metric=percentile_metric(percentile), tolerance=0.2)
    passes = tail(before, now, percentile).outcome is Outcome.PASS
    assert (ceiling is None) is passes
    if ceiling is not None:
        assert ceiling < NO_CEILING
        assert tail(before, now, percentile, ceiling).outcome is Outcome.PASS
        assert tail(before, slower(3 * times, share), percentile, ceiling).outcome is Outcome.FAIL


def test_no_ceiling_covers_a_percentile_among_failed_requests() -> None:
    failing = launches(6, seed=1, failing=0.03)
    assert tail_ceiling(launches(6), failing, metric=METRICS["p99"], tolerance=0.2) == NO_CEILING
