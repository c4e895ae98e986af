"""Goodput beyond the NMRT, against the queueing theory of deterministic services."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.overloaded import NMRT_RPS, RATIOS, SERVICE_NS, STEP_S, offered
from support.synthetic import MS, PROPERTY, S, samples

from pytest_mlpatterns.analysis.capacity.overload import (
    OfferedLoad,
    _step,
    default_limit_ns,
    goodput_metric,
    goodput_share,
    judge_recovery,
    overload_of,
    plan_overload,
    recovery_ns,
    recovery_time,
)
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD, t_quantile
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_limit
from pytest_mlpatterns.records.capacity import Behaviour, Overload
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.records.verdict import Outcome

LIMIT_NS = 100 * MS


def measured(
    *, places: int | None = None, ratios: Sequence[float] = RATIOS, watched_s: float = 6.0, limit_ns: float = LIMIT_NS
) -> Overload:
    *steps, peak = ratios
    loads = [*(offered(ratio, places=places) for ratio in steps), offered(peak, places=places, watched_s=watched_s)]
    return overload_of(loads, NMRT_RPS, limit_ns)


def unbounded_goodput(ratio: float) -> float:
    """By theory: a request due at t waits (ρ - 1) t, and the window is the last two thirds of the step."""
    if ratio <= 1:
        return ratio
    last_in_time_s = (LIMIT_NS - SERVICE_NS) / S / (ratio - 1)
    return ratio * max(min(last_in_time_s, STEP_S) - STEP_S / 3, 0.0) / (2 / 3 * STEP_S)


@pytest.mark.simulation
@each_row("ratio", [0.5, 0.8, 1.0, 1.05, 1.08, 1.1, 1.25, 1.5, 2.0])
def test_the_goodput_of_an_unbounded_queue_is_what_theory_says(ratio: float) -> None:
    found = overload_of([offered(ratio, watched_s=0.1)], NMRT_RPS, LIMIT_NS).goodput_ratio(ratio)
    assert found == pytest.approx(unbounded_goodput(ratio), abs=0.05)


@pytest.mark.simulation
@each_row("ratio", [0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0])
def test_a_bounded_queue_keeps_its_capacity_and_rejects_the_rest(ratio: float) -> None:
    step = overload_of([offered(ratio, watched_s=0.1, places=10)], NMRT_RPS, LIMIT_NS).peak
    assert step.goodput_rps / NMRT_RPS == pytest.approx(min(ratio, 1.0), rel=0.05)
    assert step.rejected_ratio == pytest.approx(max(1 - 1 / ratio, 0.0), abs=0.02)
    assert step.p99_ns <= 10 * SERVICE_NS


@pytest.mark.simulation
@pytest.mark.parametrize(("peak", "watched_s"), [(1.25, 6.0), (1.5, 6.0), (2.0, 12.0)])
def test_the_time_to_recover_is_that_in_which_the_backlog_drains(peak: float, watched_s: float) -> None:
    found = measured(ratios=(0.8, peak), watched_s=watched_s).recovery_ns
    waited_s = (peak - 1) * STEP_S - (LIMIT_NS - SERVICE_NS) / S
    assert found / S == pytest.approx(waited_s / (1 - 0.8), rel=0.05)


def test_a_service_that_answered_half_in_time_has_recovered_once_it_does_so_again() -> None:
    numbers = np.arange(400)
    latency_ns = np.where((numbers < 100) | (numbers % 2 == 1), 2 * LIMIT_NS, MS)
    found = samples(numbers * 10 * MS, latency_ns)
    assert recovery_ns(found, Window(0, 4 * S), LIMIT_NS, before_ratio=0.5) == S


def test_the_two_kinds_of_service_are_told_apart() -> None:
    assert measured().behaviour is Behaviour.COLLAPSES
    assert measured(places=10).behaviour is Behaviour.SHEDS
    assert measured(places=60).behaviour is Behaviour.COLLAPSES, "its queue is longer than the objective allows"
    assert measured(limit_ns=10 * S).behaviour is Behaviour.HOLDS
    assert measured(ratios=(0.5, 0.8, 1.0, 1.07)).behaviour is Behaviour.DEGRADES


def test_requests_that_are_given_up_are_counted_as_timed_out() -> None:
    found = overload_of([offered(2.0, timeout_s=0.5, watched_s=0.1)], NMRT_RPS, LIMIT_NS).peak
    assert found.timed_out_ratio > 0.5
    assert found.goodput_rps == 0


@PROPERTY
@given(st.floats(0.3, 3.0), st.none() | st.integers(1, 40), st.integers(5, 500))
def test_the_shares_are_a_whole(ratio: float, places: int | None, limit_ms: int) -> None:
    for step in overload_of([offered(ratio, step_s=0.3, watched_s=0.3, places=places)], NMRT_RPS, limit_ms * MS).steps:
        shares = (step.in_time_ratio, step.late_ratio, step.rejected_ratio, step.timed_out_ratio, step.failed_ratio)
        assert sum(shares) == pytest.approx(1)
        assert step.goodput_rps == pytest.approx(step.in_time_ratio * step.offered_rps)


@pytest.mark.parametrize(
    ("places", "share", "outcome"),
    [(10, 0.9, Outcome.PASS), (None, 0.9, Outcome.FAIL), (10, 1.1, Outcome.FAIL), (10, 0.99, Outcome.INCONCLUSIVE)],
)
def test_the_goodput_is_judged_by_its_interval(places: int | None, share: float, outcome: Outcome) -> None:
    interval = goodput_share([measured(places=places)], LaunchValue(NMRT_RPS, 0.01), 2.0, confidence=0.98)
    assert judge_limit(goodput_metric(2.0, LIMIT_NS), interval, share).outcome is outcome
    assert 0 <= interval.low <= interval.value <= interval.high


def test_the_goodput_of_one_measurement_has_the_error_of_its_eight_pieces() -> None:
    from scipy.stats import t as student  # slow to load

    found = measured(places=10)
    error = found.peak.goodput_error_rps / NMRT_RPS
    for of_nmrt in (0.0, 0.02):
        interval = goodput_share([found], LaunchValue(NMRT_RPS, of_nmrt), 2.0, confidence=0.98)
        half = student.ppf(0.99, 7) * math.hypot(error, of_nmrt * interval.value)
        assert interval.high - interval.value == pytest.approx(half, rel=1e-3)
        assert interval.value - interval.low == pytest.approx(half, rel=1e-3)


@pytest.mark.parametrize("rate_rps", [10, 20, 30, 200])
def test_the_goodput_of_few_requests_is_known_no_better_than_it_is(rate_rps: int) -> None:
    """Half of the answers come in time, each by chance; an interval of 98 % should have the truth in as many runs."""
    rng, held, runs = np.random.default_rng(1), 0, 300
    due_ns = np.arange(0, 2 * S, S // (2 * rate_rps), dtype=np.int64)
    for _ in range(runs):
        latency_ns = np.where(rng.random(due_ns.size) < 0.5, MS, 900 * MS).astype(np.int64)
        window = Window(0, 2 * S)
        step = _step(OfferedLoad(2.0, samples(due_ns, latency_ns), window, 0, None), window, LIMIT_NS)
        ratios = {2.0: step.goodput_rps / rate_rps}
        one: Any = SimpleNamespace(steps=[step], nmrt_rps=rate_rps, goodput_ratio=ratios.__getitem__)
        found = goodput_share([one], LaunchValue(rate_rps, 0.0), 2.0, confidence=0.98)
        assert found.low < found.high
        held += found.low <= 1 <= found.high
    assert held / runs >= 0.96


def test_several_measurements_share_their_error_and_differ_by_a_launch() -> None:
    found = measured(places=10)
    error = found.peak.goodput_error_rps / NMRT_RPS
    one, two = (goodput_share([found] * count, LaunchValue(NMRT_RPS, 0.0), 2.0, confidence=0.98) for count in (1, 2))
    known_better = t_quantile(0.98, 14) / t_quantile(0.98, 7)  # by the pieces of both
    ratio = known_better * math.hypot(error / math.sqrt(2), LAUNCH_SD * two.value) / error
    assert two.value == pytest.approx(one.value)
    assert (two.high - two.value) / (one.high - one.value) == pytest.approx(ratio, rel=1e-3)


@each_row(
    ("places", "watched_s", "limit_s", "outcome"),
    (10, 1.0, 1.0, Outcome.PASS),
    (None, 12.0, 13.0, Outcome.PASS),
    (None, 12.0, 10.0, Outcome.INCONCLUSIVE),
    (None, 12.0, 5.0, Outcome.FAIL),
    (None, 6.0, 5.0, Outcome.FAIL),
    (None, 6.0, 8.0, Outcome.INCONCLUSIVE),
)
def test_the_recovery_is_judged(places: int | None, watched_s: float, limit_s: float, outcome: Outcome) -> None:
    assert judge_recovery([measured(places=places, watched_s=watched_s)], limit_s * S).outcome is outcome


def recovering(*after_s: float | None, watched_s: float = 12.5) -> list[Overload]:
    return [
        replace(measured(), recovery_ns=None if one is None else one * S, watched_ns=watched_s * S) for one in after_s
    ]


@each_row(
    ("after_s", "outcome"),
    ((0.0,), Outcome.PASS),
    ((7.5,), Outcome.PASS),
    ((9.5,), Outcome.INCONCLUSIVE),
    ((10.5,), Outcome.INCONCLUSIVE),
    ((8.2,), Outcome.INCONCLUSIVE),
    ((8.2, 8.2), Outcome.PASS),  # two say more than one
    ((10.5, 9.7), Outcome.INCONCLUSIVE),
    ((12.4, 12.2), Outcome.FAIL),
    ((None,), Outcome.FAIL),
    ((None, 2.0), Outcome.INCONCLUSIVE),
    ((None, 2.0, None), Outcome.FAIL),
)
def test_the_recovery_in_ten_seconds_is_judged_by_interval(after_s: tuple[float | None, ...], outcome: Outcome) -> None:
    assert judge_recovery(recovering(*after_s), 10.0 * S).outcome is outcome


def test_the_interval_of_a_recovery_has_the_resolution_and_the_scatter_of_launches() -> None:
    (one,) = recovering(0.0)
    resolution_ns = 20 / one.back.offered_rps * S
    assert resolution_ns == pytest.approx(S / 8, rel=0.01)
    assert recovery_time([one]) == Estimate(0.0, 0.0, resolution_ns)
    found, again = recovery_time(recovering(8.0)), recovery_time(recovering(8.0, 8.0))
    assert found.low < again.low < 8.0 * S < again.high < found.high
    assert found.high == pytest.approx(8.0 * S * math.exp(2.33 * 6 * 0.017) + resolution_ns)
    assert recovery_time(recovering(2.0, None)).high == math.inf
    assert "recovery 8.00 s (6.18 s to 10.3 s) after a load of 2 times the capacity (NMRT)" in (
        judge_recovery(recovering(8.0), 10.0 * S).reason
    )


def test_without_an_objective_ten_times_the_median_is_in_time() -> None:
    assert default_limit_ns([offered(0.5)]) == pytest.approx(10 * SERVICE_NS)
    silent = offered(0.5, places=0)
    assert default_limit_ns([silent]) == S


@PROPERTY
@given(st.floats(1.01, 10.0), st.floats(0.0, 100.0), st.sampled_from((0.0, 1.0, 6.0)))
def test_a_plan_has_the_peak_and_the_load_to_compare_recovery_with(up_to: float, left_s: float, watch_s: float) -> None:
    plan = plan_overload(up_to, left_s, watch_s=watch_s)
    assert plan.ratios == tuple(sorted(plan.ratios))
    assert plan.ratios[-1] == up_to
    assert 0.8 in plan.ratios
    assert 0.6 <= plan.step_s <= 2.0
    assert plan.watched_s >= watch_s
    assert bool(plan.cut) == (plan.step_s < 2.0 or len(plan.ratios) == 2)


def test_a_plan_uses_the_time_that_is_left_and_says_when_it_is_short() -> None:
    assert plan_overload(2.0, 40.0).ratios == RATIOS
    assert plan_overload(2.0, 40.0).cut == ""
    assert plan_overload(2.0, 12.0).cut == "1.0 s each, as 12 s of the test's budget were left; raise budget="
    assert plan_overload(2.0, 2.0).ratios == (0.8, 2.0)
    assert plan_overload(2.0, 2.0).cut.startswith("fewer steps, 0.6 s each")


def test_a_measurement_says_which_loads_it_has() -> None:
    with pytest.raises(ValueError, match=r"goodput_ratio\(3\.0\), expected one of .*: 0\.5, 0\.8, 1, 1\.25, 1\.5, 2"):
        measured(places=10).goodput_ratio(3.0)
