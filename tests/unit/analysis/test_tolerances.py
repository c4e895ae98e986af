"""Tolerances: defaults by metric, one number, numbers by name, refusals, and the statistic that is judged."""

import math

import pytest
from support.each_row import each_row
from support.synthetic import MS

from pytest_mlpatterns.analysis.metrics.definitions import (
    LOCATIONS,
    METRICS,
    comparable_metrics,
    is_known_metric,
    metric_named,
)
from pytest_mlpatterns.analysis.metrics.metric import Location, Metric
from pytest_mlpatterns.analysis.verdicts.tolerances import (
    Tolerances,
    can_more_than_double,
    judge_time,
    judged_statistic,
    with_medians,
)
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.verdict import Outcome, Verdict

_DEFAULTS = {
    **dict.fromkeys(("rtm", "throughput", "nmrt", "request_bytes", "response_bytes"), 0.10),
    **dict.fromkeys(("ttft", "tpot", "itl", "output_tokens"), 0.10),
    **dict.fromkeys(("p90", "p95", "p99"), 0.20),
    **dict.fromkeys(("memory_growth", "descriptor_growth", "thread_growth", "cold_start"), 0.50),
    "cpu_per_request": 0.07,
    "error_rate": 0.001,
    "peak_memory": 0.15,
}
_OF_THEIR_KIND = [("nmrt(p95<50ms)", 0.10), ("p99.9", 0.20), ("p75", 0.20), ("asl", 0.10), ("hop", 0.10)]


@each_row(("metric", "expected"), [*_DEFAULTS.items(), *_OF_THEIR_KIND])
def test_every_metric_has_a_tolerance_that_fits_its_noise(metric: str, expected: float) -> None:
    assert Tolerances().of(metric) == expected
    assert metric not in METRICS or Tolerances().of(METRICS[metric]) == expected


@each_row(
    ("metrics", "expected"),
    ("rtm throughput nmrt nmrt(p95<50ms) cpu_per_request asl ttft", 0.05),
    ("p95 p99.9 ttft:p95 tpot:p99 response_bytes", 0.10),
    *(("error_rate", 0.001), ("peak_memory", 0.15), ("cold_start", 0.50)),
)
def test_a_number_is_that_of_the_speed_and_twice_that_of_the_tail(metrics: str, expected: float) -> None:
    assert {Tolerances(0.05).of(metric) for metric in metrics.split()} == {expected}


@each_row(
    ("metric", "expected"),
    [("rtm", 0.05), ("p99", 0.3), ("p95", 0.2), ("throughput", 0.1), ("error_rate", 0.0), ("nmrt(p95<50ms)", 0.4)],
)
def test_names_set_their_metrics_alone(metric: str, expected: float) -> None:
    given = {"rtm": 0.05, "p99": 0.3, "error_rate": 0, "nmrt": 0.4}
    assert Tolerances(given).of(metric) == expected


@each_row(
    ("name", "said"),
    ("rmt", r", did you mean rtm\? expected some of"),
    ("p9x", ", did you mean p99"),
    *((mean, ", .*expected some of rtm,") for mean in ("latency_mean", "ttft_mean", "tpot_mean")),  # what is judged
)
def test_an_unknown_name_is_refused_with_the_most_similar_one(name: str, said: str) -> None:
    with pytest.raises(SettingError, match=f"^tolerance= names the metric '{name}'{said}"):
        Tolerances({name: 0.1}, source="tolerance=")


@each_row("wrong", [-0.1, float("nan"), float("inf"), True, {"rtm": -1}, {"rtm": "5"}])
def test_a_tolerance_is_a_number_that_is_not_negative(wrong: object) -> None:
    with pytest.raises(SettingError, match=r"expected a share such as 0\.1 for 10 %"):
        Tolerances(wrong)  # type: ignore[arg-type]


def test_times_sizes_and_load_can_worsen_by_more_than_all() -> None:
    assert all(map(can_more_than_double, ["rtm", "p99.9", "peak_memory", "asl"]))
    assert not any(map(can_more_than_double, ["throughput", "nmrt(p95<50ms)", "error_rate", "rmt", "nmrt(p95)"]))


def test_tolerances_are_equal_by_what_was_given() -> None:
    assert Tolerances(0.1, source="perf_tolerance") == Tolerances(0.1)


def launches(*values_ms: float) -> list[LaunchValue]:
    return [LaunchValue(value * MS, 0.01) for value in values_ms]


@each_row(("name", "mean"), [("rtm", "latency_mean"), ("ttft", "ttft_mean"), ("tpot", "tpot_mean")])
def test_a_time_is_judged_by_its_median_only_if_the_launches_know_it_clearly_better(name: str, mean: str) -> None:
    metric = METRICS[name]
    for of_median, of_mean, by in (
        (0.02, 0.02, mean),
        (0.02, math.inf, name),
        (0.018, 0.02, name),
        (0.0195, 0.02, mean),
        (0.0, 0.0, mean),
    ):
        known = {name: of_median, mean: of_mean}
        assert judged_statistic(metric, lambda of, known=known: known[of.name]).name == by
    for other in ("itl", "p95", "ttft:p95", "throughput", "cpu_per_request"):
        assert judged_statistic(METRICS[other], lambda _of: 0.02) is METRICS[other]


@each_row(
    ("ratio", "by"),
    (Estimate(1.2, 1.02, 1.4), "latency_mean"),
    (Estimate(1.2, 0.98, 1.5), ""),  # may be chance
    (Estimate(1.05, 1.02, 1.08), ""),  # within the tolerance
)
def test_what_the_median_passes_is_judged_by_a_location_that_is_suspected(ratio: Estimate, by: str) -> None:
    times = {"rtm": (launches(5, 5), launches(5, 5)), "latency_mean": (launches(5.0, 5.5), launches(6.0, 6.6))}

    def judge(of: Metric) -> Verdict:
        return judge_change(of, times[of.name][1], times[of.name][0], tolerance=0.1)

    deviation = {METRICS["rtm"]: 0.01, LOCATIONS["rtm"]: 0.02}.__getitem__
    found = judge_time(METRICS["rtm"], deviation, judge=judge, ratio=lambda _of, _confidence: ratio)
    assert (found.judged_by, found.outcome) == (by, Outcome.INCONCLUSIVE if by else Outcome.PASS)


def test_locations_are_known_by_name_and_are_no_names_in_options() -> None:
    for name, location in LOCATIONS.items():
        assert metric_named(location.name) is location
        assert location.kind == Location(name)
        assert is_known_metric(location.name)
        assert location.name not in comparable_metrics()


def test_a_verdict_on_a_location_is_one_on_the_metric_that_it_stands_for() -> None:
    found = judge_change(LOCATIONS["ttft"], launches(523, 520), launches(303, 301, 305), tolerance=0.25)
    assert (found.metric, found.judged_by, found.figure) == ("ttft", "ttft_mean", "ttft_mean")
    assert found.reason.startswith("mean TTFT 303 ms → 521 ms: 72.")


@each_row(("name", "label"), [("rtm", "median latency"), ("ttft", "median TTFT")])
def test_the_medians_are_at_the_end_of_the_reason_if_they_are_known(name: str, label: str) -> None:
    judged = judge_change(LOCATIONS[name], launches(523), launches(303), tolerance=0.25)
    shown = with_medians(judged, METRICS[name], before=launches(359), now=launches(640))
    assert shown.reason == f"{judged.reason}; {label} 359 ms → 640 ms"
    assert shown.present_value == judged.present_value
    for unknown in ([], [LaunchValue(math.inf, 0.0)]):
        assert with_medians(judged, METRICS[name], before=launches(359), now=unknown) == judged
