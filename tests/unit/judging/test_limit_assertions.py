"""Limits of a slow service whose times have two modes: those outside of both are decided, one between stays open."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, START_NS, S, launch, samples

from pytest_mlpatterns.analysis.metrics.definitions import METRICS, metric_named
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.config.assertions import Limit, percentile_of, read_metric
from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.errors import InvalidResultError, SettingError
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.limit_assertions import decide_limit, decide_limits, judge_failures
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict

LAUNCHES = 8
REQUESTS = 24
LOWER = (10, 13, 9, 12, 14, 11, 12, 13)
"""Requests of each launch that find a slot free."""


class FakeRunner:
    """Gives declared launches, one after the other."""

    def __init__(self, launches: Sequence[Launch]) -> None:
        self._left = list(launches)
        self.measured = 0

    def measure(self) -> Launch:
        self.measured += 1
        return self._left.pop(0)


def slow_launch(number: int, requests: int = REQUESTS) -> Launch:
    """Four answers a second: some take 190 ms, the others 375 ms."""
    rng = np.random.default_rng(number)
    middle = np.where(np.arange(requests) < LOWER[number], 190, 375)
    latency_ns = rng.permutation(middle) * MS * np.exp(rng.normal(0, 0.03, requests))
    due_ns = START_NS + np.arange(requests) * S // 4
    return launch(samples(due_ns, latency_ns.astype(np.int64)), seconds=6.0)


def measured(launches: int, requests: int = REQUESTS) -> tuple[Callable[..., Verdict], SequentialMeasurement]:
    runner = FakeRunner([slow_launch(number, requests) for number in range(launches)])
    experiment: Any = SimpleNamespace(
        settings=SimpleNamespace(launches=launches, requests=None, noise=NoisePolicy.DOUBT),
        baseline=SimpleNamespace(entry=None),
    )
    measurement = SequentialMeasurement(runner, Spending(Budget(600 * S)), launches)  # type: ignore[arg-type]
    return partial(decide_limit, experiment, measurement), measurement


def decided(limit_ms: float) -> tuple[Verdict, int]:
    """The verdict on a limit of RTM, and the launches that it took."""
    limits, measurement = measured(LAUNCHES)
    verdict = limits(METRICS["rtm"], limit=limit_ms * MS)
    return verdict, len(measurement.metrics.launches)


@each_row(("limit_ms", "outcome"), [(150, Outcome.FAIL), (470, Outcome.PASS)])
def test_a_limit_outside_both_modes_is_decided_in_three_launches(limit_ms: float, outcome: Outcome) -> None:
    verdict, launches = decided(limit_ms)
    assert verdict.outcome is outcome
    assert launches <= 3


def test_a_limit_between_two_modes_stays_open_and_the_reason_names_them() -> None:
    verdict, launches = decided(270)
    assert (verdict.outcome, launches) == (Outcome.INCONCLUSIVE, LAUNCHES)
    assert "includes the limit of 270 ms after 8 launches" in verdict.reason
    assert "; latency has two modes, 19" in verdict.reason
    assert verdict.reason.endswith("(49.0 % and 51.0 % of the requests); the median lies in either")
    assert "more launches" not in verdict.reason


@pytest.mark.parametrize(
    ("name", "requests", "limit_ms", "words"),
    [
        ("rtm", 1, 470, "median latency of 1 sample, expected at least 2 for 99 % confidence; .*; 1 more is needed"),
        ("p99", 20, 470, "p99 latency of 160 samples, expected at least 459 .*; 299 more are needed"),
    ],
)
def test_too_few_samples_leave_a_limit_open_with_the_number_that_is_missing(
    name: str, requests: int, limit_ms: int, words: str
) -> None:
    limits, _ = measured(1 if requests == 1 else LAUNCHES, requests)
    verdict = limits(metric_named(name), limit=limit_ms * MS)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.why_open.by is OpenBy.REQUESTS
    assert re.fullmatch(words, verdict.reason)


def test_too_few_samples_of_which_surely_too_many_are_late_fail() -> None:
    limits, measurement = measured(LAUNCHES, requests=20)
    verdict = limits(metric_named("p99"), limit=250 * MS)
    assert (verdict.outcome, len(measurement.metrics.launches)) == (Outcome.FAIL, LAUNCHES)
    assert re.fullmatch(r"p99 latency is not below 250 ms: \d+ of 160 requests are later or failed", verdict.reason)


def slow_calls(limit_s: float, *, launches: int = 8, planned_s: float = 30) -> tuple[Verdict, int]:
    """The verdict on a call of 3.0 to 3.7 s, of which a launch of 29 s has eight, and the launches that it took."""
    latency_ns = (np.array([3.0, 3.7, 3.1, 3.2, 3.1, 3.4, 3.1, 3.3]) * S).astype(np.int64)
    due_ns = START_NS + np.concatenate([[0], np.cumsum(latency_ns)[:-1]])
    runner = FakeRunner([launch(samples(due_ns, latency_ns), seconds=26.0)] * 2)
    experiment: Any = SimpleNamespace(
        settings=SimpleNamespace(launches=launches, noise=NoisePolicy.DOUBT), baseline=SimpleNamespace(entry=None)
    )
    spending = Spending(Budget(60 * S, planned_ns=round(planned_s * S)), lambda: 29 * S * runner.measured)
    measurement = SequentialMeasurement(runner, spending, launches)  # type: ignore[arg-type]
    verdict = decide_limit(experiment, measurement, METRICS["rtm"], limit=limit_s * S)
    return verdict, len(measurement.metrics.launches)


@each_row(
    ("limit_s", "planned_s", "outcome", "launches"),
    (2.0, 30, Outcome.FAIL, 1),
    (4.0, 30, Outcome.PASS, 1),
    (2.7, 30, Outcome.INCONCLUSIVE, 2),  # near
    (2.0, 60, Outcome.FAIL, 2),
)
def test_a_limit_that_is_far_away_is_decided_by_one_launch_if_the_planned_time_has_no_second(
    limit_s: float, planned_s: float, outcome: Outcome, launches: int
) -> None:
    verdict, measured = slow_calls(limit_s, planned_s=planned_s)
    assert (verdict.outcome, measured) == (outcome, launches)


def test_the_only_launch_that_a_test_wants_asks_for_no_second_one() -> None:
    verdict, launches = slow_calls(3.3, launches=1)
    assert (verdict.outcome, launches) == (Outcome.INCONCLUSIVE, 1)
    assert verdict.reason.endswith(
        "includes the limit of 3.30 s after 1 launch; it is 4.7 % away, and one launch shows ±14.8 %"
    )
    verdict, launches = slow_calls(2.7, launches=1)
    assert (verdict.outcome, launches) == (Outcome.FAIL, 1)


def sent(count: int, *, failed: int = 0) -> Launch:
    """A launch of 0.7 s with this many requests."""
    due_ns = START_NS + np.arange(count) * int(0.7 * S) // count
    outcome = np.where(np.arange(count) < failed, 500, 200)
    return launch(samples(due_ns, np.full(count, 4 * MS), outcome=outcome), seconds=0.7)


def error_rate(*launches: Launch, limit: float = 0.01) -> tuple[Verdict, int]:
    """The verdict on a limit of the error rate, and the launches that it took."""
    limits, measurement = measured(LAUNCHES)
    measurement.runner = FakeRunner(launches)  # type: ignore[assignment]
    verdict = limits(METRICS["error_rate"], limit=limit)
    return verdict, len(measurement.metrics.launches)


@each_row(
    ("one", "outcome", "launches"),
    (sent(5000), Outcome.PASS, 1),
    (sent(60), Outcome.INCONCLUSIVE, 1),  # no launch can decide it, and the time is left to others
    (sent(400), Outcome.PASS, 2),
    (sent(60, failed=2), Outcome.FAIL, 3),
)
def test_an_error_rate_is_measured_while_further_launches_may_decide_it(
    one: Launch, outcome: Outcome, launches: int
) -> None:
    verdict, measured = error_rate(*[one] * 8)
    assert (verdict.outcome, measured) == (outcome, launches)


def test_an_error_rate_that_no_launch_can_decide_says_how_many_requests_do() -> None:
    needed = (
        "none of 60 requests failed, and 640 without a failure decide it; the test has time for 480: measure longer "
    )
    advice = "; perf.assert_no_failures() asserts only that none failed in this run, which is known"
    assert error_rate(sent(60))[0].reason.endswith(f'{needed}(duration="1s"){advice}')
    assert f"{needed}(requests=80)" in error_rate(replace(sent(60), requests=60))[0].reason


def total_time(one: Launch, limit_s: float) -> Verdict:
    """The verdict on the total time of a launch of 0.7 s, measured eight times."""
    limits, measurement = measured(LAUNCHES)
    measurement.runner = FakeRunner([one] * LAUNCHES)  # type: ignore[assignment]
    verdict: Verdict = limits(METRICS["total_time"], limit=limit_s * S)
    return verdict


def test_the_total_time_is_that_of_all_given_requests() -> None:
    one = replace(sent(60), requests=60)
    assert total_time(one, 1.0).outcome is Outcome.PASS
    assert total_time(one, 0.5).outcome is Outcome.FAIL
    (found,) = Metrics((one,)).launch_values(METRICS["total_time"])
    assert found.value == pytest.approx(0.7 * S)
    assert Metrics((sent(60),)).total_time_ns is None


def test_a_total_time_with_a_failed_request_is_no_time_below_a_limit() -> None:
    verdict = total_time(replace(sent(60, failed=1), requests=60), 100.0)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason == (
        "total time is not below 100 s: 1.7 % of the requests failed (500: 2), a failed request counts as "
        "infinitely late"
    )


def test_a_total_time_of_a_window_by_time_says_what_to_write() -> None:
    limits, _ = measured(1)
    with pytest.raises(InvalidResultError, match=r"window by time, expected .*; write perf\(requests=500\)$"):
        limits(METRICS["total_time"], limit=S)


def test_no_failure_is_an_exact_statement_about_the_run_however_busy_the_client_was() -> None:
    measurement = busy_measurement(client="Echo")
    measurement.measure_at_least(1)
    assert judge_failures(measurement) == Verdict("error_rate", "limit", Outcome.PASS, "none of 400 requests failed")
    measurement.runner = FakeRunner([sent(60, failed=1)])  # type: ignore[assignment]
    measurement.launch_again()
    reason = "1 of 460 requests failed, expected none (500: 1)"
    assert judge_failures(measurement) == Verdict("error_rate", "limit", Outcome.FAIL, reason)


@each_row(
    ("given", "example"),
    [("p99", "99"), ("p99.9", "99.9"), ("0.95.1", "95.1"), ("...", "95"), ("tail", "95"), (True, "95"), (None, "95")],
)
def test_a_percentile_that_is_no_number_is_refused_with_one_that_can_be_written(given: object, example: str) -> None:
    with pytest.raises(SettingError, match=rf"is {given!r}, expected a number; write percentile={example}$"):
        percentile_of("latency", given, "assert_latency_below(...)")


@each_row(
    ("given", "name"),
    [
        ("p97.5", "p97.5"),
        ("p50", "rtm"),
        ("latency:p95", "p95"),
        ("latency:mean", "mean"),
        ("ttft : p95", "ttft:p95"),
        ("itl:mean", "itl:mean"),
        ("throughput", "throughput"),
        ("cache_hit_ratio", "cache_hit_ratio"),
    ],
)
def test_a_limit_names_a_metric_with_its_percentile_or_mean(given: str, name: str) -> None:
    assert read_metric(given, "assert_that(...)").name == name


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("troughput", "did you mean throughput"),
        ("p100", "expected p95, mean"),
        ("sc", "exp"),
        ("ttft_mean", "expected"),
    ],
)
def test_a_name_that_is_no_metric_of_limits_is_refused_with_a_similar_one(given: str, hint: str) -> None:
    with pytest.raises(SettingError, match=rf"^assert_that\(...\) limits '{given}', .*{hint}"):
        read_metric(given, "assert_that(...)")


def busy_measurement(*, client: str = "", open_loop: bool = False, failed: int = 0) -> SequentialMeasurement:
    """Answers take 10 ms, 4 ms after the last of their caller; the generator is busy, and the last requests fail."""
    due_ns = START_NS + np.repeat(np.arange(0, 2800 * MS, 14 * MS), 2)
    outcome = np.where(np.arange(due_ns.size) < due_ns.size - failed, 200, 503)
    found = launch(samples(due_ns, 10 * MS, outcome=outcome), seconds=2.8, cpu_ns=3 * S, open_loop=open_loop)
    found = replace(found, generator=replace(found.generator, client=client))
    return SequentialMeasurement(FakeRunner([found] * 3), Spending(Budget(600 * S)), 3)  # type: ignore[arg-type]


def beside_busy_generator(*limits: tuple[str, float], callers: int | None = 2, **of_load: Any) -> list[Verdict]:
    """The verdicts on limits in ms, and in shares of the requests."""
    experiment: Any = SimpleNamespace(
        settings=SimpleNamespace(launches=3, requests=None, noise=NoisePolicy.DOUBT),
        baseline=SimpleNamespace(entry=None),
        setup=SimpleNamespace(load=SimpleNamespace(in_flight=callers)),
    )
    asked = [Limit(read_metric(name, ""), limit if name == "error_rate" else limit * MS) for name, limit in limits]
    return list(decide_limits(experiment, busy_measurement(**of_load), asked))


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        (
            "rtm",
            {},
            "the load generator was busy: real latencies are at most these, with the 4.00 ms that a caller wai",
        ),
        ("p95", {"client": "Stub"}, "perf_client Stub was busy: real latencies are at most these, with the 4.00 ms"),
        ("mean", {"callers": None, "open_loop": True}, "the load generator was busy: real latencies are at most these"),
    ],
)
def test_a_latency_limit_that_is_kept_although_the_generator_was_busy_passes(
    name: str, more: dict[str, Any], words: str
) -> None:
    (verdict,) = beside_busy_generator((name, 20), **more)
    assert verdict.outcome is Outcome.PASS
    assert words in verdict.reason


@pytest.mark.parametrize(
    ("name", "limit_ms", "callers"),
    [("rtm", 9, 2), ("rtm", 13, 2), ("rtm", 20, None), ("throughput", 1e-9, 2), ("total_time", 1e6, 2)],
    ids=["not kept", "kept only without the wait", "callers that think", "a rate", "another time"],
)
def test_what_a_busy_generator_may_be_the_reason_of_has_no_verdict(
    name: str, limit_ms: float, callers: int | None
) -> None:
    (verdict,) = beside_busy_generator((name, limit_ms), callers=callers)
    assert (verdict.metric, verdict.outcome) == (name, Outcome.INCONCLUSIVE)
    assert re.match("no verdict: the load generator used .* of a core and may itself be the limit", verdict.reason)


@pytest.mark.parametrize(
    ("limit", "more", "outcome", "words"),
    [
        (0.05, {}, Outcome.PASS, r"^error rate 0\.0 % .* is below 5\.0 %; what sends the requests was busy, so it"),
        (0.05, {"client": "Echo"}, Outcome.PASS, "what sends the requests was busy, so it sent fewer"),
        (1e-6, {}, Outcome.INCONCLUSIVE, "none of 400 requests failed, and .* without a failure decide it"),
        (0.01, {"failed": 19}, Outcome.INCONCLUSIVE, "^no verdict: the load generator used .* of a core"),
        (0.05, {"callers": None, "open_loop": True}, Outcome.INCONCLUSIVE, "^no verdict: the load generator used"),
    ],
    ids=["kept", "kept beside a client", "too few requests", "not kept", "an open loop"],
)
def test_an_error_rate_that_is_kept_by_a_busy_client_holds_in_a_closed_loop(
    limit: float, more: dict[str, Any], outcome: Outcome, words: str
) -> None:
    (verdict,) = beside_busy_generator(("error_rate", limit), **more)
    assert (verdict.metric, verdict.outcome) == ("error_rate", outcome)
    assert re.search(words, verdict.reason), verdict.reason


def test_limits_without_a_verdict_beside_one_that_is_kept_stand_there_once() -> None:
    verdicts = beside_busy_generator(("throughput", 1e-9), ("p95", 20), ("rtm", 9))
    assert [(one.metric, one.outcome.value) for one in verdicts] == [("throughput", "inconclusive"), ("p95", "pass")]
