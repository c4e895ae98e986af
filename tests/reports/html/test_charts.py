"""What is drawn of a result: the tables behind the charts, made of declared results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support.synthetic import LAYERS, MS, capacity, latencies, result, verdict

from pytest_mlpatterns.analysis.metrics.distribution_summary import latency_of, stored_percentiles
from pytest_mlpatterns.records.launch import Step
from pytest_mlpatterns.records.result_parts import Reference
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.html.charts import charts_of, deciding_charts, interval_chart

if TYPE_CHECKING:
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.telemetry import LayerStats
    from pytest_mlpatterns.reports.html.chart import Chart

BASELINE = Reference("baseline", "perf-baseline.json", {}, stored_percentiles(latency_of(latencies(2 * MS))))
NOTHING = {"latency": None, "load_over_time": (), "memory_over_time": ()}


def charts(of: TestResult) -> dict[str, Chart]:
    return {chart.kind: chart for chart in charts_of(of)}


def deciding(of: TestResult) -> dict[str, Chart]:
    return {chart.kind: chart for chart in deciding_charts(of)}


def of_layer(*layers: LayerStats) -> dict[str, Chart]:
    return charts(result(layers=layers, **NOTHING))


def test_a_result_that_knows_nothing_has_no_charts() -> None:
    assert charts_of(result(**NOTHING)) == ()


def test_charts_have_a_fixed_order() -> None:
    found = charts_of(result(capacities=(capacity(),), layers=LAYERS))
    assert [chart.kind for chart in found] == [
        "percentiles",
        "histogram",
        "ladder",
        "latencies",
        "load",
        "memory",
        "parts",
        "sizes",
        "depth",
        "intervals",
    ]


def test_every_row_has_a_cell_for_every_column() -> None:
    for chart in charts_of(result(capacities=(capacity(),), layers=LAYERS, reference=BASELINE)):
        assert chart.rows
        assert {len(row) for row in chart.rows} == {len(chart.columns)}
        assert chart.title
        assert chart.summary


class TestDecision:
    def test_every_change_that_was_judged_stands_beside_what_is_tolerated(self) -> None:
        judged = (
            verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4)),
            verdict(Outcome.INCONCLUSIVE, "throughput", change=(0.1, 0.0, 0.2)),
            verdict(Outcome.FAIL, against="limit", change=(9.0, 9.0, 9.0)),
            verdict(Outcome.PASS, against="pattern"),
        )
        chart = deciding(result(verdicts=judged, reference=BASELINE))["changes"]
        assert chart.rows == (("RTM", 0.3, 0.2, 0.4, "failed"), ("throughput", 0.1, 0.0, 0.2, "undecided"))
        assert chart.marks == {"tolerance": 0.1}
        assert chart.title == "Change against baseline"

    def test_a_mean_that_was_judged_is_named_and_has_its_launches(self) -> None:
        judged = replace(verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4)), judged_by="latency_mean")
        launches = {"rtm": ((100.0, 0.05), (200.0, 0.6)), "latency_mean": ((120.0, 0.05), (130.0, 0.05))}
        found = deciding(result(verdicts=(judged,), launches=launches))
        assert found["changes"].rows == (("mean latency", 0.3, 0.2, 0.4, "failed"),)
        assert found["intervals"].title == "Mean latency by launch"
        assert [row[1] for row in found["intervals"].rows] == [120.0, 130.0]

    def test_no_tolerance_is_drawn_if_an_assertion_had_a_tighter_one(self) -> None:
        tighter = verdict(Outcome.FAIL, against="revision", change=(0.05, 0.03, 0.07))
        chart = deciding(result(verdicts=(tighter,)))["changes"]
        assert chart.marks == {}
        assert chart.title == "Change against the revision"

    def test_launches_stand_side_by_side_with_twice_their_error(self) -> None:
        chart = deciding(result(launches={"rtm": ((100.0, 0.05), (200.0, 0.6))}))["intervals"]
        assert chart.rows == (
            ("launch 1", 100.0, 90.0, pytest.approx(110.0)),
            ("launch 2", 200.0, 0.0, pytest.approx(440.0)),
        )

    def test_one_launch_is_compared_with_nothing(self) -> None:
        assert deciding(result(launches={"rtm": ((100.0, 0.05),)})) == {}


class TestCapacity:
    def test_the_ladder_is_drawn_with_its_windows_and_the_knee(self) -> None:
        found = charts(result(capacities=(capacity(400),)))
        assert found["ladder"].rows[-1] == (4.0, 400.0, 396.0, 404.0, 0.0, None)
        assert found["ladder"].marks == {"NMRT": 4.0}
        assert found["latencies"].rows == ((1.0, 10 * MS), (2.0, 10 * MS), (4.0, 10 * MS))
        assert "10.0 ms at the knee" in found["latencies"].summary

    def test_steps_of_a_search_are_drawn_in_order(self) -> None:
        searched = replace(capacity(), ladder=capacity().ladder[::-1])
        assert [row[0] for row in charts(result(capacities=(searched,)))["ladder"].rows] == [1, 2, 4]

    def test_an_objective_stands_in_the_title(self) -> None:
        found = charts(result(capacities=(capacity(objective="p95<50.0ms"),)))
        assert found["ladder"].title == "Throughput in req/s by concurrency with p95<50.0ms"

    def test_a_search_of_one_step_is_not_drawn(self) -> None:
        assert "ladder" not in charts(result(capacities=(replace(capacity(), ladder=capacity().ladder[:1]),)))

    def test_steps_without_a_latency_have_no_latency_to_draw(self) -> None:
        ladder = tuple(Step(number, (10.0,), None, 1.0, "the generator") for number in (1, 2))
        found = charts(result(capacities=(replace(capacity(), ladder=ladder),)))
        assert "latencies" not in found
        assert [row[4:] for row in found["ladder"].rows] == [(1.0, "the generator")] * 2

    def test_a_knee_between_the_steps_is_not_told_with_a_latency(self) -> None:
        found = charts(result(capacities=(replace(capacity(), concurrency=3),)))
        assert found["latencies"].summary == "10.0 ms at 1 in flight"


class TestReplicas:
    def test_the_share_of_each_replica_is_drawn(self) -> None:
        chart = charts(result(replica_share=((0.25, 0.2, 0.3), (0.75, 0.7, 0.8))))["parts"]
        assert chart.rows == (("replica 1", 0.25, 0.2, 0.3), ("replica 2", 0.75, 0.7, 0.8))
        assert chart.summary == "25.0 % to 75.0 %; an equal share is 50.0 %"

    def test_a_single_process_has_none(self) -> None:
        assert "parts" not in charts(result())


class TestTime:
    def test_a_long_course_keeps_its_peaks(self) -> None:
        memory = tuple((second / 10, 1000.0 if second == 777 else 1.0) for second in range(3000))
        chart = charts(result(memory_over_time=memory))["memory"]
        assert len(chart.rows) <= 240
        assert max(row[1] for row in chart.rows) == 1000  # type: ignore[type-var]
        assert chart.rows[-1][0] == 299.9

    def test_a_short_course_is_drawn_as_it_is(self) -> None:
        of = result()
        assert charts(of)["load"].rows == of.conditions.load_over_time

    def test_one_moment_is_no_course(self) -> None:
        of = result(load_over_time=((0.1, 0.5, 0.6),), memory_over_time=((0.1, 5.0),))
        assert not {"load", "memory"} & charts(of).keys()


class TestSideBySide:
    def test_each_result_has_its_interval_and_the_best_is_named(self) -> None:
        rows = [("slow", result(metrics={"rtm": (3.0, 2.0, 4.0)})), ("fast", result(metrics={"rtm": (1.0, 0.5, 2.0)}))]
        chart = interval_chart("rtm", rows)
        assert chart is not None
        assert chart.rows == (("slow", 3.0, 2.0, 4.0), ("fast", 1.0, 0.5, 2.0))
        assert chart.summary == "lowest: fast, 1.00 ns"

    def test_of_a_rate_the_highest_is_the_best(self) -> None:
        rows = [(name, result(metrics={"throughput": (rate, rate, rate)})) for name, rate in (("a", 5.0), ("b", 9.0))]
        chart = interval_chart("throughput", rows)
        assert chart is not None
        assert chart.summary == "highest: b, 9.00 req/s"

    def test_fewer_than_two_are_not_compared(self) -> None:
        assert interval_chart("rtm", [("a", result()), ("b", result(metrics={}))]) is None
