"""Verdicts: exact boundaries in both directions, what does not count as a change, and the error rates of the rule."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, PROPERTY, START_NS, S, even_launch, launch, launch_values, samples

from pytest_mlpatterns.analysis.health.sustained import MAX_ERROR_RATIO, Fault, InvalidReason
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric, stream_metric
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.distributions import Modes
from pytest_mlpatterns.analysis.statistics.intervals import ratio_of
from pytest_mlpatterns.analysis.verdicts.open_reasons import known_reason
from pytest_mlpatterns.analysis.verdicts.verdicts import (
    describe_estimate,
    judge_change,
    judge_guard,
    judge_limit,
    seconds_to_decide,
    why_invalid,
    why_too_many_failed,
)
from pytest_mlpatterns.judging.verdict_log import no_verdict
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.outcomes import Failure, FirstFailure
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.records.verdict import Outcome, Verdict

RTM, THROUGHPUT, SIZE = METRICS["rtm"], METRICS["throughput"], replace(METRICS["request_bytes"], floor=0.0)
EXACT_HIGHER = replace(THROUGHPUT, launch_sd=0.0)
"""Higher is better, and no interval: what the size is for lower."""
RATE_FLOOR = replace(THROUGHPUT, floor=5.0)


def exact(*values: float) -> list[LaunchValue]:
    return [LaunchValue(value, 0.0) for value in values]


@each_row(
    ("low", "high", "outcome"),
    (18, 19, Outcome.PASS),
    (18, 19.999, Outcome.PASS),
    (18, 20, Outcome.INCONCLUSIVE),  # "below" does not hold at the limit itself
    (19, 21, Outcome.INCONCLUSIVE),
    (20, 21, Outcome.FAIL),
    (21, 22, Outcome.FAIL),
    (20, 20, Outcome.FAIL),
)
def test_below_a_limit_is_decided_by_the_whole_interval(low: float, high: float, outcome: Outcome) -> None:
    found = judge_limit(RTM, Estimate((low + high) / 2 * MS, low * MS, high * MS), 20 * MS)
    assert (found.outcome, found.metric, found.against, found.change) == (outcome, "rtm", "limit", None)


@each_row(
    ("low", "high", "outcome"),
    (501, 520, Outcome.PASS),
    (500, 520, Outcome.PASS),  # "at least" holds at the limit itself
    (500, 500, Outcome.PASS),
    (499, 520, Outcome.INCONCLUSIVE),
    (490, 500, Outcome.INCONCLUSIVE),
    (490, 499.9, Outcome.FAIL),
)
def test_at_least_a_limit_is_decided_by_the_whole_interval(low: float, high: float, outcome: Outcome) -> None:
    assert judge_limit(THROUGHPUT, Estimate((low + high) / 2, low, high), 500).outcome is outcome


@each_row(
    ("metric", "measured", "limit", "reason"),
    (RTM, (4.12, 4.05, 4.19), 5, "median latency 4.12 ms (4.05 ms to 4.19 ms) is below 5.00 ms"),
    (RTM, (4.12, 4.05, 4.19), 4, "median latency 4.12 ms (4.05 ms to 4.19 ms) is not below 4.00 ms"),
    (RTM, (4.12, 4.05, 4.19), 4.1, "median latency 4.12 ms (4.05 ms to 4.19 ms) may or may not be below 4.10 ms"),
    (THROUGHPUT, (480, 470, 490), 500, "throughput 480 req/s (470 req/s to 490 req/s) is not at least 500 req/s"),
)
def test_a_verdict_on_a_limit_says_interval_and_limit(
    metric: Metric, measured: tuple[float, float, float], limit: float, reason: str
) -> None:
    scale = MS if metric is RTM else 1
    assert judge_limit(metric, Estimate(*(value * scale for value in measured)), limit * scale).reason == reason


@each_row(
    ("metric", "baseline", "present", "tolerance", "outcome"),
    (SIZE, 200.0, 200.0, 0.25, Outcome.PASS),
    (SIZE, 200.0, 249.9, 0.25, Outcome.PASS),
    (SIZE, 200.0, 250.0, 0.25, Outcome.PASS),  # at the tolerance is not beyond it
    (SIZE, 200.0, 250.1, 0.25, Outcome.FAIL),
    (SIZE, 200.0, 100.0, 0.25, Outcome.PASS),
    (EXACT_HIGHER, 250.0, 250.0, 0.25, Outcome.PASS),
    (EXACT_HIGHER, 250.0, 187.5, 0.25, Outcome.PASS),
    (EXACT_HIGHER, 250.0, 187.4, 0.25, Outcome.FAIL),
    (EXACT_HIGHER, 250.0, 500.0, 0.25, Outcome.PASS),
    (SIZE, 200.0, 200.1, 0.0, Outcome.FAIL),
    (SIZE, 200.0, 200.0, 0.0, Outcome.PASS),
    # 110 against 100 at 10 %: binary fractions must not make that 10.000000000000009 %
    *((SIZE, 100, round(100 + 100 * share), share, Outcome.PASS) for share in (0.01, 0.05, 0.1, 0.15, 0.2, 0.3)),
)
def test_a_change_without_spread_is_judged_exactly_at_the_tolerance(
    metric: object, baseline: float, present: float, tolerance: float, outcome: Outcome
) -> None:
    found = judge_change(metric, exact(present), exact(baseline), tolerance=tolerance)  # type: ignore[arg-type]
    assert found.outcome is outcome
    assert found.against == "baseline"


@pytest.mark.parametrize("metric", [RTM, THROUGHPUT])
def test_a_tolerance_at_the_ends_of_the_interval_decides_as_it_says(metric: object) -> None:
    """The interval of the change is taken from the verdict itself and used as the tolerance."""
    slower, faster = exact(130 * MS, 131 * MS), exact(100 * MS, 101 * MS)
    present, baseline = (slower, faster) if metric is RTM else (faster, slower)
    change = judge_change(metric, present, baseline, tolerance=0.1).change  # type: ignore[arg-type]
    tiny = 1e-9
    for tolerance, outcome in (
        (change.high + tiny, Outcome.PASS),
        (change.high, Outcome.PASS),
        (change.high - tiny, Outcome.INCONCLUSIVE),
        (change.value, Outcome.INCONCLUSIVE),
        (change.low, Outcome.INCONCLUSIVE),
        (change.low - tiny, Outcome.FAIL),
    ):
        assert judge_change(metric, present, baseline, tolerance=tolerance).outcome is outcome  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "present", "baseline", "change"),
    [(RTM, 2.0, 1.0, 1.0), (RTM, 1.0, 2.0, -0.5), (THROUGHPUT, 1.0, 2.0, 0.5), (THROUGHPUT, 2.0, 1.0, -1.0)],
)
def test_worse_is_positive_whichever_way_is_better(
    metric: object, present: float, baseline: float, change: float
) -> None:
    found = judge_change(metric, exact(present * S), exact(baseline * S), tolerance=0.1)  # type: ignore[arg-type]
    assert found.change.value == pytest.approx(change)
    assert found.outcome is (Outcome.FAIL if change > 0 else Outcome.PASS)
    assert ("worse" if change > 0 else "better") in found.reason


@each_row(
    ("metric", "baseline", "present", "outcome"),
    (RTM, 8_000.0, 12_000.0, Outcome.PASS),  # 50 % worse, but by no more than the 5 µs that do not count
    (RTM, 8_000.0, 13_000.0, Outcome.INCONCLUSIVE),  # just as much
    (RTM, 8_000.0, 14_000.0, Outcome.FAIL),
    (RATE_FLOOR, 9.0, 4.5, Outcome.PASS),
    (RATE_FLOOR, 9.0, 3.4, Outcome.FAIL),
    (METRICS["asl"], 0.02, 0.029, Outcome.PASS),  # one percent of the processor
    (METRICS["asl"], 0.02, 0.031, Outcome.FAIL),
)
def test_a_change_up_to_the_floor_does_not_count(
    metric: object, baseline: float, present: float, outcome: Outcome
) -> None:
    sides = [exact(value) * 6 for value in (present, baseline)]
    found = judge_change(metric, *sides, tolerance=0.1, launches=6)  # type: ignore[arg-type]
    assert found.outcome is outcome
    assert ("do not count" in found.reason) is (outcome is Outcome.PASS)
    assert ("includes the tolerance of 62.5 % (5.00 µs)" in found.reason) is (outcome is Outcome.INCONCLUSIVE)


def test_an_estimate_that_happens_to_be_near_the_old_value_is_no_pass() -> None:
    """On a machine whose speed varies, +20 % looks like no change at all in one run of thirty."""
    wide = judge_change(RTM, exact(470_000, 613_000), exact(440_000, 533_000, 646_000), tolerance=0.1)
    assert abs(wide.change.value) < 0.01
    assert wide.outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("in_flight", [1, 16])
def test_the_rate_of_a_closed_loop_has_the_floor_of_its_latency(in_flight: int) -> None:
    rate = METRICS["throughput"]
    before, after = (exact(in_flight * 1e9 / ns) * 6 for ns in (12_000, 16_000))
    found = judge_change(rate, after, before, tolerance=0.1, in_flight=in_flight)
    assert found.outcome is Outcome.PASS
    assert found.reason.endswith("changes up to 5.00 µs a request do not count")
    assert judge_change(rate, after, before, tolerance=0.1).outcome is Outcome.FAIL  # of an open loop
    slower = exact(in_flight * 1e9 / 19_000) * 6
    assert judge_change(rate, slower, before, tolerance=0.1, in_flight=in_flight).outcome is Outcome.FAIL


MIB = 2.0**20


@pytest.mark.parametrize(
    ("present", "baseline", "outcome", "words"),
    [
        ((110, 126), (100, 106, 120), Outcome.INCONCLUSIVE, "26.0 % includes the tolerance of 8.0 % after"),
        ((140, 141), (100, 106), Outcome.FAIL, ", range +32.1 % to +41.0 %; tolerance 8.0 %"),
        ((100, 104), (100, 106), Outcome.PASS, ""),
        ((130,), (100,), Outcome.FAIL, ": 30.0 % worse; tolerance 8.0 %"),
    ],
    ids=["ranges overlap", "apart", "within", "one launch each"],
)
def test_metrics_without_variance_are_compared_by_their_ranges(
    present: tuple[float, ...], baseline: tuple[float, ...], outcome: Outcome, words: str
) -> None:
    sides = ([value * MIB for value in side] for side in (present, baseline))
    found = judge_change(
        METRICS["response_bytes"], *(exact(*side) for side in sides), tolerance=0.08, launches=len(present)
    )
    assert found.outcome is outcome
    assert words in found.reason
    assert "more launch" not in found.reason


@each_row("name", ["rtm", "p99", "peak_memory", "request_bytes", "response_bytes", "cpu_per_request"])
def test_a_metric_that_varies_by_itself_has_a_floor(name: str) -> None:
    metric = METRICS[name]
    assert metric.floor > 0
    present, before = (exact(metric.floor / part) * 6 for part in (2, 10))
    assert judge_change(metric, present, before, tolerance=0.1).outcome is Outcome.PASS


@pytest.mark.parametrize(("present", "outcome"), [(21, Outcome.PASS), (22, Outcome.FAIL)])
@pytest.mark.parametrize("judge", [judge_change, judge_guard])
def test_a_size_below_the_floor_may_grow_by_the_floor_and_no_more(
    judge: Callable[..., Verdict], present: float, outcome: Outcome
) -> None:
    assert judge(METRICS["request_bytes"], exact(present), exact(5), tolerance=0.1).outcome is outcome


@pytest.mark.parametrize(
    ("baseline", "present", "outcome"), [(0.0, 0.0, Outcome.PASS), (0.0, 0.5, Outcome.FAIL), (0.5, 0.0, Outcome.PASS)]
)
def test_a_value_of_zero_can_be_compared(baseline: float, present: float, outcome: Outcome) -> None:
    found = judge_change(METRICS["asl"], exact(present), exact(baseline), tolerance=0.1)
    assert found.outcome is outcome
    assert np.isfinite(found.change.value)


def test_the_reason_of_a_change_has_both_values_the_interval_and_the_tolerance() -> None:
    found = judge_change(RTM, exact(13 * MS, 13 * MS), exact(10 * MS, 10 * MS), tolerance=0.1)
    assert found.reason.startswith("median latency 10.0 ms → 13.0 ms: 30.0 % worse, 99 % interval +")
    assert found.reason.endswith("; tolerance 10.0 %")
    found = judge_change(SIZE, exact(2**20), exact(2**19), tolerance=0.1)
    assert found.reason == "request size 512 KiB → 1.00 MiB: 100 % worse; tolerance 10.0 %", "exact: no interval"
    assert describe_estimate(SIZE, Estimate(2**20, 2**20, 2**20)) == "request size 1.00 MiB"
    assert "do not count" not in judge_change(RTM, exact(50_000), exact(50_000), tolerance=0.5).reason


@PROPERTY
@given(st.floats(min_value=0.2, max_value=5), st.floats(min_value=0, max_value=1))
def test_a_looser_tolerance_never_turns_a_pass_into_a_failure(ratio: float, tolerance: float) -> None:
    order = [Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]
    sides = exact(ratio * S, ratio * S * 1.01), exact(S, S * 1.02)
    strict = judge_change(RTM, *sides, tolerance=tolerance).outcome
    loose = judge_change(RTM, *sides, tolerance=tolerance + 0.1).outcome
    assert order.index(loose) >= order.index(strict)


@pytest.mark.simulation
@each_row("metric", [RTM, THROUGHPUT])
@each_row("launches", [1, 2, 3])
def test_without_a_change_a_false_alarm_is_rare(metric: object, launches: int) -> None:
    """With no tolerance at all the 99 % interval allows half a per cent on the bad side; with 10 % none is left."""
    rng = np.random.default_rng(20)
    runs = [(launch_values(rng, 10 * MS, launches), launch_values(rng, 10 * MS, 3)) for _ in range(400)]
    for tolerance, most in ((0.0, 8), (0.10, 0)):
        outcomes = [judge_change(metric, now, then, tolerance=tolerance).outcome for now, then in runs]  # type: ignore[arg-type]
        assert outcomes.count(Outcome.FAIL) <= most


@pytest.mark.simulation
@pytest.mark.parametrize("launches", [1, 2, 3])
def test_without_a_change_most_runs_pass_at_the_default_tolerance(launches: int) -> None:
    rng = np.random.default_rng(21)
    runs = [(launch_values(rng, 10 * MS, launches), launch_values(rng, 10 * MS, 6)) for _ in range(400)]
    passed = sum(judge_change(RTM, now, then, tolerance=0.10).outcome is Outcome.PASS for now, then in runs)
    assert passed / len(runs) > (0.4 if launches == 1 else 0.9)


@pytest.mark.parametrize("metric", [RTM, THROUGHPUT])
def test_a_slowdown_of_a_third_never_passes_and_is_caught_with_the_second_launch(metric: object) -> None:
    rng = np.random.default_rng(22)
    slow, plain = (13 * MS, 10 * MS) if metric is RTM else (10 * MS / 1.3, 10 * MS)
    for _ in range(400):
        now, then = launch_values(rng, slow, 2), launch_values(rng, plain, 6)
        assert judge_change(metric, now[:1], then, tolerance=0.10).outcome is not Outcome.PASS  # type: ignore[arg-type]
        assert judge_change(metric, now, then, tolerance=0.10).outcome is Outcome.FAIL  # type: ignore[arg-type]


DUE = START_NS + np.arange(600) * 5 * MS


@each_row(
    ("metric", "measured", "limit", "launches", "reason"),
    (
        RTM,
        (19.83, 19.1, 20.6),
        20,
        3,
        "median latency 19.1–20.6 ms includes the limit of 20.0 ms after 3 launches; "
        "even 20 more launches would narrow it only to ±1.4 %",
    ),
    (
        RTM,
        (19.5, 18.6, 20.6),
        20,
        1,
        "median latency 18.6–20.6 ms includes the limit of 20.0 ms after 1 launch; "
        "4 more launches would narrow it to ±2.3 %",
    ),
    (RTM, (0.9, 0.8, 1.1), 1, 1, "median latency 800 µs to 1.10 ms includes the limit of 1.00 ms after 1 launch"),
)
def test_an_open_verdict_on_a_limit_says_what_would_decide_it(
    metric: object, measured: tuple[float, float, float], limit: float, launches: int, reason: str
) -> None:
    found = judge_limit(metric, Estimate(*(value * MS for value in measured)), limit * MS, launches=launches)  # type: ignore[arg-type]
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("metric", "modes", "reason"),
    [
        (
            stream_metric("ttft"),
            Modes(190 * MS, 375 * MS, 267 * MS, 0.42),
            "median TTFT 185–381 ms includes the limit of 270 ms after 2 launches; TTFT has two modes, 190 and "
            "375 ms (42.0 % and 58.0 % of the requests); the median lies in either",
        ),
        (
            percentile_metric(95),
            Modes(190 * MS, 375 * MS, 267 * MS, 0.42),
            "p95 latency 185–381 ms includes the limit of 270 ms after 2 launches; latency has two modes, "
            "190 and 375 ms (42.0 % and 58.0 % of the requests); p95 lies in either",
        ),
        (
            stream_metric("itl"),
            Modes(0.9 * MS, 375 * MS, 200 * MS, 0.5),
            "median ITL 185–381 ms includes the limit of 270 ms after 2 launches; ITL has two modes, 900 µs and "
            "375 ms (50.0 % and 50.0 % of the gaps); the median lies in either",
        ),
        (
            RTM,
            Modes(10 * MS, 200 * MS, 45 * MS, 0.1),
            "median latency 185–381 ms includes the limit of 270 ms after 2 launches; even 20 more launches",
        ),
    ],
    ids=["stream", "percentile", "gaps", "interval within a mode"],
)
def test_an_open_verdict_between_two_modes_says_that_shares_decide_it(
    metric: Metric, modes: Modes, reason: str
) -> None:
    measured = Estimate(267 * MS, 185 * MS, 381 * MS)
    found = judge_limit(metric, measured, 270 * MS, launches=2, modes=modes)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason.startswith(reason)


def test_an_open_verdict_on_a_share_promises_no_width() -> None:
    found = judge_limit(METRICS["error_rate"], Estimate(0.01, 0.0, 0.03), 0.02, launches=2)
    assert found.reason == "error rate 0.0–3.0 % includes the limit of 2.0 % after 2 launches"


def test_an_open_change_has_its_interval_and_on_what_it_rests() -> None:
    before = exact(100 * MS, 101 * MS, 100 * MS)
    found = judge_change(RTM, exact(108 * MS), before, tolerance=0.10, launches=1)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason.startswith("median latency 100 ms → 108 ms: ")
    assert found.reason.endswith("includes the tolerance of 10.0 % after 1 launch")


def test_looks_make_the_interval_of_each_verdict_as_sure_as_it_has_to_be() -> None:
    sides = exact(110 * MS, 111 * MS), exact(100 * MS, 101 * MS, 100 * MS)
    plan = SequentialPlan(first=1, last=5, alpha=0.001, pass_alpha=0.01, fixed_launches=3)
    one, all_looks = (
        judge_change(RTM, *sides, tolerance=0.1).change,
        judge_change(RTM, *sides, tolerance=0.1, plan=plan).change,
    )
    assert all_looks.low < one.low
    assert all_looks.high == pytest.approx(
        ratio_of(*sides, RTM.launch_sd, confidence=plan.confidence_of_pass(2)).high - 1
    )


def run_of(rng: np.random.Generator, change: float, block_cv: float) -> Outcome:
    """A whole run against a stored baseline of six launches: a look after each of up to eight."""
    before = launch_values(rng, 10 * MS, 6, block_cv=block_cv)
    now = launch_values(rng, 10 * MS * (1 + change), 8, block_cv=block_cv)
    plan = SequentialPlan(first=1, last=8, alpha=0.005, pass_alpha=0.01, fixed_launches=6)
    for count in range(1, 9):
        outcome = judge_change(RTM, now[:count], before, tolerance=0.10, plan=plan).outcome
        if outcome is Outcome.PASS or (outcome is Outcome.FAIL and count > 1):
            break
    return outcome


@pytest.mark.simulation
class TestWholeRuns:
    """At a small size; ``benchmarks/baseline_simulation.py`` counts thousands, with drift."""

    @pytest.mark.parametrize("block_cv", [0.03, 0.06])
    def test_without_a_change_no_run_fails_and_few_stay_open(self, block_cv: float) -> None:
        rng = np.random.default_rng(41)
        found = [run_of(rng, 0.0, block_cv) for _ in range(300)]
        assert found.count(Outcome.FAIL) == 0
        assert found.count(Outcome.INCONCLUSIVE) <= 0.05 * 300

    @pytest.mark.parametrize("block_cv", [0.03, 0.06])
    def test_a_quarter_more_is_caught(self, block_cv: float) -> None:
        rng = np.random.default_rng(42)
        found = [run_of(rng, 0.25, block_cv) for _ in range(300)]
        assert found.count(Outcome.FAIL) >= 0.95 * 300
        assert found.count(Outcome.PASS) == 0

    def test_at_the_tolerance_itself_either_error_is_rare(self) -> None:
        """Half a per cent and one per cent are meant, whose standard error of 600 is 0.3 % and 0.4 %."""
        rng = np.random.default_rng(43)
        found = [run_of(rng, 0.10, 0.03) for _ in range(600)]
        assert found.count(Outcome.FAIL) <= 0.015 * 600
        assert found.count(Outcome.PASS) <= 0.025 * 600


def failing(share: float) -> Metrics:
    return Metrics((launch(samples(DUE, MS, outcome=np.where(np.arange(600) < share * 600, 503, 200))),))


def test_a_window_without_requests_supports_no_verdict() -> None:
    assert why_invalid(Metrics((launch(samples([], [])),))) == InvalidReason(
        "no request was due in the measured window; measure longer (duration=) or with more load", Fault.SERVICE
    )


def test_a_request_longer_than_the_window_is_named_with_the_window_that_it_needs() -> None:
    """All that was answered was due in the warm-up."""
    slow = replace(launch(samples([START_NS - S], 4400 * MS)), window=Window(START_NS, START_NS + 700 * MS))
    assert why_invalid(Metrics((slow,))) == InvalidReason(
        "no request was due in the measured window of 700 ms, because a request takes 4.40 s; "
        'give duration="10s" and budget="40s"',
        Fault.SERVICE,
    )
    offered = why_invalid(Metrics((replace(slow, open_loop=True),)))
    assert "measure longer (duration=) or with more load" in offered.text


@pytest.mark.parametrize("errors_count", [True, False])
@pytest.mark.parametrize("of", [samples([], []), samples(DUE, MS)], ids=["no request", "all answered"])
def test_a_service_that_fell_silent_is_at_fault_whatever_else_is_known(of: Samples, errors_count: bool) -> None:
    silent = replace(launch(of), silence="no answer since 3.20 s of the window: all 4 callers timed out after 10.0 s")
    why = why_invalid(Metrics((even_launch(), silent)), errors_count=errors_count)
    assert why == InvalidReason(silent.silence, Fault.SERVICE)


def test_invalid_measurement_names_the_first_failed_input() -> None:
    first = FirstFailure("perf_payload item 1", "ZeroDivisionError: division by zero")
    (found,) = failing(0.5).launches
    why = why_invalid(Metrics((replace(found, first_failure=first),)))
    assert str(why).startswith(f"300 of 600 requests failed (503: 300; first: {first}), expected at most 5.0 %")
    (found,) = failing(1.0).launches
    why = why_invalid(Metrics((replace(found, first_failure=first),)))
    assert str(why) == f"none of 600 requests succeeded (503: 600; first: {first})"


@pytest.mark.parametrize(
    ("asked_rps", "text"),
    [(5000.0, "; the service answers about 200 a second; 5,000 a second are asked"), (100.0, ""), (None, "")],
)
def test_time_outs_of_an_overloaded_service_name_both_rates(asked_rps: float | None, text: str) -> None:
    warm_up = START_NS - S + np.arange(100) * 200_000  # answered one after the other, at 200 a second
    warm_up_latency = 5 * MS * (1 + np.arange(100)) - np.arange(100) * 200_000
    due = np.concatenate([warm_up, START_NS + np.arange(600) * MS])
    latency = np.concatenate([warm_up_latency, np.full(600, 10 * S)])
    outcome = np.repeat([200, Failure.TIMEOUT], [100, 600])
    found = replace(launch(samples(due, latency, outcome=outcome), open_loop=True), rate_rps=asked_rps)
    assert str(why_invalid(Metrics((found,)))) == f"none of 600 requests succeeded (time-out: 600){text}"


@pytest.mark.parametrize("errors_count", [True, False])
def test_one_answer_that_nobody_asked_for_makes_the_others_doubtful(errors_count: bool) -> None:
    due = START_NS + np.arange(600) * MS
    outcome = np.array([Failure.UNASKED] + [200] * 599)
    found = launch(samples(due, np.full(600, MS), outcome=outcome))
    why = why_invalid(Metrics((found,)), errors_count=errors_count)
    assert str(why).startswith("1 answer came without a request; over HTTP/1.1 the answer after such a one")


def test_a_share_of_failures_is_tolerated_and_a_larger_one_is_not_unless_the_service_may_refuse() -> None:
    mislead = "expected at most 5.0 %; the times of the others alone would mislead"
    assert why_invalid(failing(MAX_ERROR_RATIO)) is None
    assert str(why_invalid(failing(MAX_ERROR_RATIO + 0.01))) == f"36 of 600 requests failed (503: 36), {mislead}"
    assert why_invalid(failing(0.5), errors_count=False) is None
    assert why_invalid(failing(0.9), may_refuse=True) is None
    failed = {503: 90, 429: 2, 500: 1}
    assert why_too_many_failed(failed, 100, may_refuse=True) == f"1 of 8 requests failed (500: 1), {mislead}"
    for how in ({"may_refuse": True}, {"errors_count": True}, {"errors_count": False}):
        none = InvalidReason("none of 600 requests succeeded (503: 600)", Fault.SERVICE)
        assert why_invalid(failing(1.0), **how) == none


def test_a_generator_that_was_the_limit_supports_no_verdict_and_a_client_of_the_users_will_be_so_again() -> None:
    busy = launch(samples(DUE, MS), cpu_ns=3 * S)
    of_users = replace(busy, generator=replace(busy.generator, client="Stub"))
    for one, fault, advice in (
        (busy, Fault.GENERATOR, "run it again in a quieter moment"),
        (of_users, Fault.CLIENT, "spread perf_client over processes: write generators=2"),
    ):
        why = why_invalid(Metrics((one,)))
        assert why.fault is fault
        assert fault is Fault.CLIENT or "load generator" in why.text
        left = no_verdict("rtm", "limit", why.error("here: ")).why_open
        assert known_reason(left, None).advice.startswith(advice)


GUARDED = METRICS["peak_memory"]


@each_row(
    ("present", "outcome"),
    ((100, 101, 100), Outcome.PASS),
    ((117, 118, 119), Outcome.INCONCLUSIVE),  # the estimate is beyond the tolerance, the interval is not
    ((126, 125, 124), Outcome.FAIL),
    ((50, 51, 50), Outcome.PASS),
)
def test_a_guard_fails_surely_suspects_or_passes(present: tuple[float, ...], outcome: Outcome) -> None:
    sides = (exact(*(value * MIB for value in side)) for side in (present, (100, 101, 99, 100, 102, 98)))
    found = judge_guard(GUARDED, *sides, tolerance=0.15, alpha=0.001)
    assert (found.outcome, found.metric, found.against) == (outcome, "peak_memory", "baseline")
    assert found.change is not None


def test_the_reason_of_a_guard_names_its_interval_or_range_and_what_does_not_count() -> None:
    found = judge_guard(GUARDED, exact(130 * MIB), exact(100 * MIB), tolerance=0.15, alpha=0.005)
    assert found.reason.startswith("peak memory 100 MiB → 130 MiB: 30.0 % worse, 99.0 % interval ")
    found = judge_guard(GUARDED, exact(8 * MIB, 8 * MIB), exact(5 * MIB), tolerance=0.15, alpha=0.001)
    assert found.outcome is Outcome.PASS
    assert found.reason.endswith("; tolerance 15.0 %; changes up to 4.00 MiB do not count")
    found = judge_guard(METRICS["response_bytes"], exact(230, 231), exact(200, 200), tolerance=0.10, alpha=0.001)
    assert found.outcome is Outcome.FAIL
    assert "15.3 % worse, range +15.0 % to +15.5 %" in found.reason


def test_half_the_width_takes_four_times_as_long() -> None:
    open_change = Estimate(0.20, 0.02, 0.40)  # twice as wide as its distance of the tolerance
    found = seconds_to_decide(open_change, 0.10, 10.0, launches=5)
    assert found == pytest.approx(1.2 * 10 * 3.3, rel=0.2)
    closer = seconds_to_decide(Estimate(0.15, -0.03, 0.35), 0.10, 10.0, launches=5)
    assert closer > 3 * found


def test_a_baseline_of_few_launches_bounds_what_more_launches_can_show() -> None:
    assert seconds_to_decide(Estimate(0.20, -0.10, 0.60), 0.10, 10.0, launches=5, recorded=3) is None
    assert seconds_to_decide(Estimate(0.20, 0.08, 0.33), 0.10, 10.0, launches=3, recorded=6) is not None


@each_row(
    ("change", "is_known"),
    (Estimate(0.10, -0.1, 0.3), False),  # at it
    (Estimate(0.12, -0.1, 0.3), False),  # 1.8 % away
    (Estimate(0.13, -0.1, 0.3), True),  # 2.7 % away
    (Estimate(0.2, 0.2, 0.2), False),  # no width
)
def test_a_change_at_the_tolerance_or_without_an_interval_has_no_time(change: Estimate, is_known: bool) -> None:
    assert (seconds_to_decide(change, 0.10, 10.0, launches=5) is not None) is is_known
    narrow = Estimate(0.2, 0.19, 0.21)  # asks for one launch more, and not for what was spent
    assert seconds_to_decide(narrow, 0.10, 10.0, launches=5) == 12.0
