"""Tolerances: defaults by metric, one number, numbers by name, and what is refused."""

import pytest
from support.each_row import each_row

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances, can_more_than_double
from pytest_mlpatterns.errors import SettingError

_DEFAULTS = {
    "rtm": 0.10,
    "throughput": 0.10,
    "nmrt": 0.10,
    "cpu_per_request": 0.07,
    "p90": 0.20,
    "p95": 0.20,
    "p99": 0.20,
    "error_rate": 0.001,
    "peak_memory": 0.15,
    "memory_growth": 0.50,
    "descriptor_growth": 0.50,
    "thread_growth": 0.50,
    "cold_start": 0.50,
    "request_bytes": 0.10,
    "response_bytes": 0.10,
    "ttft": 0.10,
    "tpot": 0.10,
    "itl": 0.10,
    "output_tokens": 0.10,
}


@each_row(("metric", "expected"), _DEFAULTS.items())
def test_every_metric_compared_by_default_has_a_tolerance_that_fits_its_noise(metric: str, expected: float) -> None:
    assert Tolerances().of(metric) == Tolerances().of(METRICS[metric]) == expected


@each_row(
    ("metric", "expected"), [("nmrt(p95<50ms)", 0.10), ("p99.9", 0.20), ("p75", 0.20), ("asl", 0.10), ("hop", 0.10)]
)
def test_a_metric_without_a_default_has_that_of_its_kind(metric: str, expected: float) -> None:
    assert Tolerances().of(metric) == expected


@each_row(
    ("metric", "expected"),
    [
        ("rtm", 0.05),
        ("throughput", 0.05),
        ("nmrt", 0.05),
        ("nmrt(p95<50ms)", 0.05),
        ("cpu_per_request", 0.05),
        ("asl", 0.05),
        ("p95", 0.10),
        ("p99.9", 0.10),
        ("ttft", 0.05),
        ("ttft:p95", 0.10),
        ("tpot:p99", 0.10),
        ("error_rate", 0.001),
        ("peak_memory", 0.15),
        ("cold_start", 0.50),
        ("response_bytes", 0.10),
    ],
)
def test_a_number_is_that_of_the_speed_and_twice_that_of_the_tail(metric: str, expected: float) -> None:
    assert Tolerances(0.05).of(metric) == expected


@each_row(
    ("metric", "expected"),
    [("rtm", 0.05), ("p99", 0.3), ("p95", 0.2), ("throughput", 0.1), ("error_rate", 0.0), ("nmrt(p95<50ms)", 0.4)],
)
def test_names_set_their_metrics_alone(metric: str, expected: float) -> None:
    given = {"rtm": 0.05, "p99": 0.3, "error_rate": 0, "nmrt": 0.4}
    assert Tolerances(given).of(metric) == expected


def test_an_unknown_name_is_refused_with_the_most_similar_one() -> None:
    with pytest.raises(SettingError, match=r"^tolerance= names the metric 'rmt', did you mean rtm\? expected some of"):
        Tolerances({"rmt": 0.1}, source="tolerance=")
    with pytest.raises(SettingError, match="did you mean p99"):
        Tolerances({"p9x": 0.1})


@pytest.mark.parametrize("name", ["latency_mean", "ttft_mean", "tpot_mean"])
def test_a_tolerance_is_of_the_metric_and_not_of_the_mean_that_is_judged(name: str) -> None:
    with pytest.raises(SettingError, match=f"^tolerance names the metric '{name}', .*expected some of rtm,"):
        Tolerances({name: 0.1})


@each_row("wrong", [-0.1, float("nan"), float("inf"), True, {"rtm": -1}, {"rtm": "5"}])
def test_a_tolerance_is_a_number_that_is_not_negative(wrong: object) -> None:
    with pytest.raises(SettingError, match=r"expected a share such as 0\.1 for 10 %"):
        Tolerances(wrong)  # type: ignore[arg-type]


@each_row(
    ("metric", "can"),
    [
        ("rtm", True),
        ("p99.9", True),
        ("peak_memory", True),
        ("asl", True),
        ("throughput", False),
        ("nmrt(p95<50ms)", False),
        ("error_rate", False),
        ("rmt", False),
        ("nmrt(p95)", False),
    ],
)
def test_times_sizes_and_load_can_worsen_by_more_than_all(metric: str, can: bool) -> None:
    assert can_more_than_double(metric) is can


def test_tolerances_are_equal_by_what_was_given() -> None:
    assert Tolerances(0.1, source="perf_tolerance") == Tolerances(0.1)
