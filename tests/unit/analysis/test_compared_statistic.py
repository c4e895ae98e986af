"""Which statistic a comparison judges, and how its verdict has the medians too."""

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
from pytest_mlpatterns.analysis.verdicts.tolerances import judge_time, judged_statistic, with_medians
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.verdict import Outcome, Verdict


def launches(*values_ms: float) -> list[LaunchValue]:
    return [LaunchValue(value * MS, 0.01) for value in values_ms]


@pytest.mark.parametrize(("name", "mean"), [("rtm", "latency_mean"), ("ttft", "ttft_mean"), ("tpot", "tpot_mean")])
def test_a_time_is_judged_by_what_the_launches_know_better(name: str, mean: str) -> None:
    metric = METRICS[name]
    assert judged_statistic(metric, lambda _of: 0.02).name == mean
    assert judged_statistic(metric, lambda of: math.inf if of.name == mean else 0.02) is metric


def test_a_time_whose_median_the_launches_know_clearly_better_is_judged_by_it() -> None:
    metric, mean = METRICS["rtm"], LOCATIONS["rtm"]
    assert judged_statistic(metric, {metric: 0.018, mean: 0.02}.__getitem__) is metric
    assert judged_statistic(metric, {metric: 0.0195, mean: 0.02}.__getitem__) is mean
    assert judged_statistic(metric, {metric: 0.0, mean: 0.0}.__getitem__) is mean


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


@each_row("name", ["itl", "p95", "ttft:p95", "throughput", "cpu_per_request"])
def test_other_metrics_are_judged_themselves(name: str) -> None:
    assert judged_statistic(METRICS[name], lambda _of: 0.02) is METRICS[name]


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


@pytest.mark.parametrize(
    ("name", "said"), [("rtm", "; median latency 359 ms → 640 ms"), ("ttft", "; median TTFT 359 ms → 640 ms")]
)
def test_the_medians_are_at_the_end_of_the_reason(name: str, said: str) -> None:
    judged = judge_change(LOCATIONS[name], launches(523), launches(303), tolerance=0.25)
    shown = with_medians(judged, METRICS[name], before=launches(359), now=launches(640))
    assert shown.reason == judged.reason + said
    assert shown.present_value == judged.present_value


@pytest.mark.parametrize("now", [[], [LaunchValue(math.inf, 0.0)]])
def test_a_median_that_is_not_known_is_not_shown(now: list[LaunchValue]) -> None:
    judged = judge_change(LOCATIONS["rtm"], launches(523), launches(303), tolerance=0.25)
    assert with_medians(judged, METRICS["rtm"], before=launches(359), now=now) == judged
