"""What is drawn of a result: the tables behind the charts, made of declared results."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import LAYERS, MS, PROPERTY, S, capacity, judgement, latencies, result

from pytest_mlpatterns.catalog import METRICS
from pytest_mlpatterns.insight import LayerStats
from pytest_mlpatterns.records import Outcome, Step
from pytest_mlpatterns.reports.charts import Chart, charts_of, deciding_charts, heading_of, interval_chart, unit_of
from pytest_mlpatterns.result import Counterpart, Latency, LatencyHistogram
from pytest_mlpatterns.shape import latency_of, stored_percentiles

if TYPE_CHECKING:
    from pytest_mlpatterns.result import TestResult

BASELINE = Counterpart("baseline", "perf-baseline.json", {}, stored_percentiles(latency_of(latencies(2 * MS))))
NOTHING = {"latency": None, "load_over_time": (), "memory_over_time": ()}


def charts(of: TestResult) -> dict[str, Chart]:
    return {chart.kind: chart for chart in charts_of(of)}


def deciding(of: TestResult) -> dict[str, Chart]:
    return {chart.kind: chart for chart in deciding_charts(of)}


def of_layer(*layers: LayerStats) -> dict[str, Chart]:
    return charts(result(layers=layers, **NOTHING))


def test_a_result_that_knows_nothing_has_no_charts() -> None:
    assert charts_of(result(**NOTHING)) == ()


def test_what_is_drawn_comes_in_a_fixed_order() -> None:
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
            judgement(Outcome.FAIL, change=(0.3, 0.2, 0.4)),
            judgement(Outcome.INCONCLUSIVE, "throughput", change=(0.1, 0.0, 0.2)),
            judgement(Outcome.FAIL, against="limit", change=(9.0, 9.0, 9.0)),
            judgement(Outcome.PASS, against="pattern"),
        )
        chart = deciding(result(judgements=judged, reference=BASELINE))["changes"]
        assert chart.rows == (("RTM", 0.3, 0.2, 0.4, "failed"), ("throughput", 0.1, 0.0, 0.2, "undecided"))
        assert chart.marks == {"tolerance": 0.1}
        assert chart.title == "Change against baseline"

    def test_where_less_was_tolerated_no_line_says_otherwise(self) -> None:
        tighter = judgement(Outcome.FAIL, against="revision", change=(0.05, 0.03, 0.07))
        chart = deciding(result(judgements=(tighter,)))["changes"]
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


class TestLatency:
    def test_percentiles_stand_beside_those_of_the_baseline_where_both_know_them(self) -> None:
        chart = charts(result(reference=BASELINE))["percentiles"]
        assert [column.name for column in chart.columns] == ["percentile", "this run", "baseline"]
        rows = {row[0]: row[1:] for row in chart.rows}
        assert rows[50][0] > rows[50][1] > 0
        assert rows[80][1] is None
        assert chart.summary.startswith("this run: p50 ")
        assert "; baseline: p50 " in chart.summary

    def test_against_a_revision_both_sides_are_those_that_were_measured_together(self) -> None:
        both = Counterpart(
            "revision",
            "main (05428cb)",
            {},
            ((0.0, MS), (50.0, 2 * MS), (100.0, 4 * MS)),
            {},
            ((0.0, 2 * MS), (50.0, 4 * MS), (100.0, 8 * MS)),
        )
        found = charts(result(reference=both))
        assert found["percentiles"].rows == ((0.0, 2 * MS, MS), (50.0, 4 * MS, 2 * MS), (100.0, 8 * MS, 4 * MS))
        assert found["percentiles"].columns[2].name == "main (05428cb)"
        shares = [sum(row[column] for row in found["histogram"].rows) for column in (2, 3)]  # type: ignore[misc]
        assert shares == pytest.approx([1.0, 1.0])

    def test_a_reference_without_percentiles_changes_nothing(self) -> None:
        without = replace(BASELINE, latency_percentiles=())
        assert charts_of(result(reference=without)) == charts_of(result())

    def test_the_histogram_holds_every_request_once(self) -> None:
        chart = charts(result())["histogram"]
        assert sum(row[2] for row in chart.rows) == pytest.approx(1.0)  # type: ignore[misc]
        assert all(row[1] == after[0] for row, after in zip(chart.rows, chart.rows[1:], strict=False))

    @PROPERTY
    @given(st.floats(0.01, 100))
    def test_the_histogram_reaches_as_far_as_the_other_side(self, times: float) -> None:
        other = stored_percentiles(latency_of((latencies(4 * MS) * times).astype(int)))
        chart = charts(result(reference=replace(BASELINE, latency_percentiles=other)))["histogram"]
        assert len(chart.rows) <= 96
        for column in (2, 3):
            assert sum(row[column] for row in chart.rows) == pytest.approx(1.0)  # type: ignore[misc]
        assert chart.rows[0][0] <= other[0][1] * 1.001  # type: ignore[operator]
        assert chart.rows[-1][1] >= other[-1][1] * 0.999  # type: ignore[operator]

    def test_equal_latencies_have_a_histogram_too(self) -> None:
        flat = ((0.0, MS), (50.0, MS), (100.0, MS))
        same = Latency(flat, LatencyHistogram((MS, 1.01 * MS), (5,)), MS, 0.0)
        chart = charts(result(latency=same, reference=replace(BASELINE, latency_percentiles=flat)))["histogram"]
        assert [row[2:] for row in chart.rows] == [(1.0, 1.0)]


class TestCapacity:
    def test_the_ladder_is_drawn_with_its_windows_and_the_knee(self) -> None:
        found = charts(result(capacities=(capacity(400),)))
        assert found["ladder"].rows[-1] == (4.0, 400.0, 396.0, 404.0, 0.0, None)
        assert found["ladder"].marks == {"NMRT": 4.0, "NMRT_rps": 400.0}
        assert found["latencies"].rows == ((1.0, 10 * MS), (2.0, 10 * MS), (4.0, 10 * MS))
        assert "10.0 ms at the knee" in found["latencies"].summary

    def test_its_steps_are_drawn_in_order(self) -> None:
        searched = replace(capacity(), ladder=capacity().ladder[::-1])
        assert [row[0] for row in charts(result(capacities=(searched,)))["ladder"].rows] == [1, 2, 4]

    def test_an_objective_stands_in_the_title(self) -> None:
        found = charts(result(capacities=(capacity(objective="p95<50.0 ms"),)))
        assert found["ladder"].title == "Throughput in req/s by concurrency with p95<50.0 ms"

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


class TestTime:
    def test_a_long_course_keeps_its_peaks(self) -> None:
        memory = tuple((second / 10, 1000.0 if second == 777 else 1.0) for second in range(3000))
        chart = charts(result(memory_over_time=memory))["memory"]
        assert len(chart.rows) <= 240
        assert max(row[1] for row in chart.rows) == 1000  # type: ignore[type-var]
        assert chart.rows[-1][0] == 299.9

    def test_a_short_course_is_drawn_as_it_is(self) -> None:
        of = result()
        assert charts(of)["load"].rows == of.load_over_time

    def test_one_moment_is_no_course(self) -> None:
        of = result(load_over_time=((0.1, 0.5, 0.6),), memory_over_time=((0.1, 5.0),))
        assert not {"load", "memory"} & charts(of).keys()


class TestLayers:
    def test_the_answers_of_a_cache(self) -> None:
        chart = of_layer(LAYERS[0])["parts"]
        assert chart.rows == (("remembered", 0.75, 300), ("asked the model", 0.25, 100))
        assert chart.summary == "75.0 % of 400 inputs without a model call of their own"

    def test_inputs_that_joined_a_call_are_told_where_there_are_any(self) -> None:
        layer = LayerStats(0, "cached", {"hits": 1, "coalesced": 1, "misses": 2})
        assert of_layer(layer)["parts"].rows[1] == ("joined a call under way", 0.25, 1)

    def test_the_sizes_of_batches(self) -> None:
        chart = of_layer(LAYERS[1])["sizes"]
        assert chart.rows == ((2, 0.4, 10), (4, 0.2, 5), (6, 0.4, 10))
        assert chart.summary == "4.00 inputs a call on average, 25 calls"

    def test_the_depth_of_a_queue_lasts_until_its_window_ends(self) -> None:
        chart = of_layer(LAYERS[2])["depth"]
        assert chart.rows == ((0.0, 0.0), (1.0, 3.0), (3.0, 3.0))
        assert chart.summary == "2.00 on average, at most 3 waiting"

    def test_a_depth_that_was_not_observed_has_no_average(self) -> None:
        layer = LayerStats(0, "queued", {}, {}, {"depth": ((S, 1), (2 * S, 0))})
        chart = of_layer(layer)["depth"]
        assert chart.summary == "at most 1 waiting"
        assert chart.rows[-1] == (1.0, 0.0)

    def test_everything_that_is_timed_stands_side_by_side(self) -> None:
        stages = LayerStats(3, "pipeline", {}, {"stage:model": {MS: 10, 5 * MS: 1}, "stage:none": {}})
        rows = of_layer(*LAYERS, stages)["intervals"].rows
        assert [row[0] for row in rows] == [
            "cached: hit",
            "cached: miss",
            "batched: wait",
            "batched: call",
            "queued: wait",
            "hop",
            "stage model",
        ]
        assert rows[0] == ("cached: hit", 20_000, 20_000, 40_000)
        assert rows[-1] == ("stage model", MS, MS, 5 * MS)

    @pytest.mark.parametrize("name", ["cached", "batched", "queued", "hop", "pipeline"])
    def test_a_layer_that_saw_nothing_is_not_drawn(self, name: str) -> None:
        assert of_layer(LayerStats(0, name)) == {}


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


def test_every_metric_has_a_unit_and_a_heading() -> None:
    assert {unit_of(name) for name in METRICS} == {"duration", "rate", "ratio", "size", "count"}
    assert [heading_of(METRICS[name]) for name in ("rtm", "p95", "hop")] == ["RTM", "p95 latency", "Hop"]


def test_numbers_are_written_to_five_digits_and_counts_in_full() -> None:
    chart = Chart("load", "", "", (), ((1.23456789, 123456, 2.0, float("inf"), None, "x"),), {"NMRT": 4.0})
    assert chart.to_json()["rows"] == [[1.2346, 123456, 2, None, None, "x"]]
    assert chart.to_json()["marks"] == {"NMRT": 4}
