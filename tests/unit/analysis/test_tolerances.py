"""Tolerances: defaults by metric, one number, numbers by name, and what is refused."""

import pytest
from support.each_row import each_row

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances, can_more_than_double
from pytest_mlpatterns.errors import SettingError

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


def test_times_sizes_and_load_can_worsen_by_more_than_all() -> None:
    assert all(map(can_more_than_double, ["rtm", "p99.9", "peak_memory", "asl"]))
    assert not any(map(can_more_than_double, ["throughput", "nmrt(p95<50ms)", "error_rate", "rmt", "nmrt(p95)"]))


def test_tolerances_are_equal_by_what_was_given() -> None:
    assert Tolerances(0.1, source="perf_tolerance") == Tolerances(0.1)
