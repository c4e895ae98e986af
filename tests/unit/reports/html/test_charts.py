"""What is drawn of a result: the tables behind the charts, made of declared results."""

import pytest
from msgspec.structs import replace
from support.synthetic import LAYERS, MS, capacity, latencies, result, verdict

from pytest_mlpatterns.analysis.metrics.distribution_summary import latency_of, stored_percentiles
from pytest_mlpatterns.records.launch import Step
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import Reference
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.html.chart import Chart
from pytest_mlpatterns.reports.html.charts import charts_of

BASELINE = Reference("baseline", "perf-baseline.json", {}, stored_percentiles(latency_of(latencies(2 * MS))))
NOTHING = {"latency": None, "launches": {}, "load_over_time": (), "memory_over_time": ()}


def charts(of: TestResult) -> dict[str, Chart]:
    return {chart.title: chart for chart in charts_of(of)}


def test_a_result_that_knows_nothing_has_no_charts() -> None:
    assert charts_of(result(**NOTHING)) == ()


def test_charts_have_a_fixed_order() -> None:
    found = charts_of(result(capacities=(capacity(),), layers=LAYERS))
    assert [chart.kind for chart in found] == ["ranges", "histogram", "ranges", "tracks", "bars", "bars", "ranges"]


def test_every_row_has_a_cell_for_every_column() -> None:
    for chart in charts_of(result(capacities=(capacity(),), layers=LAYERS, reference=BASELINE)):
        assert chart.rows or chart.tracks
        assert {len(row) for row in chart.rows} <= {len(chart.columns)}
        assert {len(row) for track in chart.tracks for row in track.rows} <= {2, 3}
        assert chart.title
        assert chart.summary


class TestLaunches:
    def test_a_mean_that_was_judged_has_its_launches(self) -> None:
        judged = replace(verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4)), judged_by="latency_mean")
        launches = {"rtm": ((100.0, 0.05), (200.0, 0.6)), "latency_mean": ((120.0, 0.05), (130.0, 0.05))}
        chart = charts(result(verdicts=(judged,), launches=launches))["Mean latency by launch"]
        assert [row[1] for row in chart.rows] == [120.0, 130.0]

    def test_launches_stand_side_by_side_with_twice_their_error(self) -> None:
        chart = charts(result(launches={"rtm": ((100.0, 0.05), (200.0, 0.6))}))["Median latency by launch"]
        assert chart.rows == (("1", 100.0, 90.0, pytest.approx(110.0)), ("2", 200.0, 0.0, pytest.approx(440.0)))

    def test_one_launch_is_compared_with_nothing(self) -> None:
        assert "Median latency by launch" not in charts(result(launches={"rtm": ((100.0, 0.05),)}))


LADDER = "Throughput by concurrency"


class TestCapacity:
    def test_the_ladder_has_its_windows_its_latency_and_the_knee(self) -> None:
        chart = charts(result(capacities=(capacity(400),)))[LADDER]
        assert chart.rows[-1] == ("4 (NMRT)", 400.0, 396.0, 404.0, 10 * MS, 0.0, None)
        assert [row[0] for row in chart.rows] == ["1", "2", "4 (NMRT)"]

    def test_steps_of_a_search_are_in_order(self) -> None:
        searched = replace(capacity(), ladder=capacity().ladder[::-1])
        found = charts(result(capacities=(searched,)))[LADDER]
        assert [row[0] for row in found.rows] == ["1", "2", "4 (NMRT)"]

    def test_an_objective_stands_in_the_title(self) -> None:
        assert f"{LADDER} with p95<50.0ms" in charts(result(capacities=(capacity(objective="p95<50.0ms"),)))

    def test_a_search_of_one_step_is_not_drawn(self) -> None:
        assert LADDER not in charts(result(capacities=(replace(capacity(), ladder=capacity().ladder[:1]),)))

    def test_steps_without_a_latency_have_none(self) -> None:
        ladder = tuple(Step(number, (10.0,), None, 1.0, "the generator") for number in (1, 2))
        found = charts(result(capacities=(replace(capacity(), ladder=ladder),)))[LADDER]
        assert [row[4:] for row in found.rows] == [(None, 1.0, "the generator")] * 2

    def test_a_knee_between_the_steps_has_no_row(self) -> None:
        found = charts(result(capacities=(replace(capacity(), concurrency=3),)))[LADDER]
        assert not [row for row in found.rows if "NMRT" in str(row[0])]


class TestReplicas:
    def test_the_share_of_each_replica_is_drawn(self) -> None:
        chart = charts(result(replica_share=((0.25, 0.2, 0.3), (0.75, 0.7, 0.8))))["Share of requests per replica"]
        assert chart.rows == (("replica 1", 0.25, 0.2, 0.3), ("replica 2", 0.75, 0.7, 0.8))
        assert chart.summary == "25.0 % to 75.0 %; an equal share is 50.0 %"

    def test_a_single_process_has_none(self) -> None:
        assert "Share of requests per replica" not in charts(result())


class TestTime:
    def test_a_long_course_keeps_its_peaks(self) -> None:
        memory = tuple((second / 10, 1000.0 if second == 777 else 1.0) for second in range(3000))
        (_, track) = charts(result(memory_over_time=memory))["Over time"].tracks
        assert len(track.rows) <= 80
        assert max(row[1] for row in track.rows) == 1000
        assert track.rows[-1][0] == 299.9

    def test_a_short_course_is_drawn_as_it_is(self) -> None:
        of = result()
        chart = charts(of)["Over time"]
        assert chart.tracks[0].rows == of.conditions.load_over_time
        assert chart.summary.endswith(" s of the last launch")

    def test_one_moment_is_no_course(self) -> None:
        of = result(load_over_time=((0.1, 0.5, 0.6),), memory_over_time=((0.1, 5.0),))
        assert "Over time" not in charts(of)
