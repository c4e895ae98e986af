"""What is drawn of a result: the tables behind the charts, made of declared results."""

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.splits import split, with_splits
from support.streams import stream_result
from support.synthetic import LAYERS, MS, US, S, capacity, changed, latencies, result, verdict

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.distribution_summary import latency_of, stored_percentiles
from pytest_mlpatterns.records.launch import Step
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import Reference
from pytest_mlpatterns.records.samples import GrowthRecord
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.html.chart import (
    Cell,
    Chart,
    Track,
    Unit,
    heading_of,
    printed,
    thinned,
    tick_text,
    unit_of,
)
from pytest_mlpatterns.reports.html.charts import charts_of, growth_chart, layer_charts, split_charts, tracks_chart

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


MIB = 2**20
REQUESTS = (0, 1000, 2000, 3000, 4000)
SIZES = tuple(100 * MIB + 1024 * requests for requests in REQUESTS)


def test_memory_is_drawn_over_requests_with_the_growth_of_the_second_half_in_words() -> None:
    chart = growth_chart(result(growth=GrowthRecord(REQUESTS, SIZES, (1024.0, 1000.0, 1048.0), levels_off=False)))
    assert (chart.title, chart.summary) == ("Memory over requests", "4,000 requests")
    (track,) = chart.tracks
    assert track.note == "1.00 KiB (±24.0 B) per request in the second half, not levelling off"
    assert track.rows == tuple(zip(REQUESTS, SIZES, strict=True))
    assert chart in charts_of(result(growth=GrowthRecord(REQUESTS, SIZES, (1024.0, 1000.0, 1048.0), levels_off=False)))


@pytest.mark.parametrize(
    ("low", "levels_off", "said"),
    [(10.0, True, "in the second half, levelling off"), (-10.0, True, "in the second half")],
)
def test_the_summary_says_whether_it_goes_on(low: float, levels_off: bool, said: str) -> None:
    chart = growth_chart(result(growth=GrowthRecord(REQUESTS, SIZES, (20.0, low, 30.0), levels_off)))
    assert chart.tracks[0].note.endswith(said)


def test_without_a_slope_nothing_is_said_of_it() -> None:
    chart = growth_chart(result(growth=GrowthRecord(REQUESTS, SIZES, None, levels_off=False)))
    assert chart.tracks[0].note == ""


@pytest.mark.parametrize("growth", [None, GrowthRecord((1,), (1,), None, levels_off=False)])
def test_without_a_long_load_there_is_no_chart(growth: GrowthRecord | None) -> None:
    assert growth_chart(result(growth=growth)) is None


BEFORE = split({"wire": 200 * US, "model_cpu": 9 * MS, "hop": 100 * US})
NOW = split({"wire": 200 * US, "model_cpu": 20 * MS, "queue_wait": MS})


def test_both_sides_have_every_part_of_one_of_them() -> None:
    found = with_splits({"rtm": BEFORE}, {"rtm": NOW})
    (chart,) = split_charts(found)
    assert chart.title == "Where the time of a median request goes"
    assert chart.summary == "9.30 ms → 21.2 ms; most of it: model on CPU, 20.0 ms"
    assert [column.name for column in chart.columns] == ["part", "this run", "baseline", "kind"]
    assert chart.rows == (
        ("wire", 200 * US, 200 * US, "worked on"),
        ("model on CPU", 20 * MS, 9 * MS, "worked on"),
        ("queue wait", MS, 0.0, "waits"),
        ("hop", 0.0, 100 * US, "worked on"),
    )
    assert chart in charts_of(found)


def test_beside_a_revision_the_present_is_that_of_the_same_run() -> None:
    found = with_splits({"rtm": BEFORE}, {"rtm": NOW}, kind="revision")
    elsewhere = changed(found, split={"rtm": BEFORE})
    assert split_charts(elsewhere) == split_charts(found)
    assert [column.name for column in split_charts(found)[0].columns][2] == "main (05428cb)"


def test_without_a_reference_there_is_one_bar() -> None:
    (chart,) = split_charts(result(split={"rtm": NOW}))
    assert [column.name for column in chart.columns] == ["part", "this run", "kind"]
    assert chart.summary == "21.2 ms; most of it: model on CPU, 20.0 ms"


def test_streams_have_a_bar_for_the_first_and_for_further_tokens() -> None:
    splits = {metric: split({"model_cpu": MS}, metric=metric) for metric in ("rtm", "ttft", "tpot")}  # type: ignore[arg-type]
    titles = [chart.title for chart in split_charts(stream_result(split=splits))]
    assert titles == ["Where the time to a median first token goes", "Where the time of a median token goes"]


def test_nothing_known_gives_no_chart() -> None:
    assert split_charts(result()) == ()
    assert split_charts(with_splits({"rtm": BEFORE}, {})) == ()
    assert split_charts(result(split={"rtm": replace(NOW, parts=())})) == ()


def of_layer(*layers: LayerStats) -> dict[str, Chart]:
    return {chart.title: chart for chart in layer_charts(layers)}


def test_the_answers_of_a_cache() -> None:
    chart = of_layer(LAYERS[0])["Cache hits and misses"]
    assert chart.rows == (("hit", 0.75, 300), ("miss", 0.25, 100))
    assert chart.summary == "75.0 % of 400 inputs without a model call of their own"


def test_inputs_that_joined_a_call_are_told_where_there_are_any() -> None:
    layer = LayerStats(0, "cached", {"hits": 1, "coalesced": 1, "misses": 2})
    assert of_layer(layer)["Cache hits and misses"].rows[1] == ("shared a running call", 0.25, 1)


def test_the_sizes_of_batches() -> None:
    chart = of_layer(LAYERS[1])["Batch sizes"]
    assert chart.rows == (("2", 0.4, 10), ("4", 0.2, 5), ("6", 0.4, 10))
    assert chart.summary == "4.00 inputs per call on average, 25 calls"


def test_of_batches_that_are_known_by_their_mean_nothing_is_drawn() -> None:
    assert of_layer(LayerStats(0, "batched", {"size_sum": 100, "size_count": 25})) == {}


def depth_of(layer: LayerStats) -> Track:
    chart = tracks_chart(result(layers=(layer,)))
    return chart.tracks[-1]


def test_the_depth_of_a_queue_lasts_until_its_window_ends() -> None:
    track = depth_of(LAYERS[2])
    assert (track.title, track.names, track.note) == ("Queue depth over time", ("waiting",), "2.00 on average")
    assert track.rows == ((0.0, 0.0), (1.0, 3.0), (3.0, 3.0))
    assert track.is_level


def test_a_depth_that_was_not_observed_has_no_average() -> None:
    track = depth_of(LayerStats(0, "queued", {}, {}, {"depth": ((S, 1), (2 * S, 0))}))
    assert track.note == ""
    assert track.rows[-1] == (1.0, 0.0)


def test_everything_that_is_timed_stands_side_by_side() -> None:
    stages = LayerStats(3, "pipeline", {}, {"stage:model": {MS: 10, 5 * MS: 1}, "stage:none": {}})
    rows = of_layer(*LAYERS, stages)["Times in the layers"].rows
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


def test_the_model_that_keeps_the_others_waiting_is_told() -> None:
    counted = LayerStats(0, "ensemble", {"last:a": 1, "last:b": 3}, {"model:a": {MS: 4}, "model:b": {MS: 4}})
    chart = of_layer(counted)["Which model answered last"]
    assert chart.rows == (("a", 0.25, 1), ("b", 0.75, 3))
    assert chart.summary == "most often b"


@each_row("name", ["cached", "batched", "queued", "hop", "pipeline"])
def test_a_layer_that_saw_nothing_is_not_drawn(name: str) -> None:
    assert of_layer(LayerStats(0, name)) == {}


def test_every_metric_has_a_unit_and_a_heading() -> None:
    assert {unit_of(name) for name in METRICS} == {"duration", "rate", "ratio", "size", "instructions", "count"}
    assert [heading_of(METRICS[name]) for name in ("rtm", "p95", "hop")] == ["Median latency", "p95 latency", "Hop"]


@each_row(
    ("unit", "value", "text"),
    ("duration", 4_120_000.0, "4.12 ms"),
    ("ratio", 0.25, "25.0 %"),
    ("change", 0.25, "+25.0 %"),
    ("size", 2.0**20, "1.00 MiB"),
    ("seconds", 1.25, "1.25 s"),
    ("count", 123456, "123,456"),
    ("rate", 12.345, "12.3"),
    ("text", "x", "x"),
    ("count", None, "–"),
)
def test_a_cell_is_printed_in_the_unit_of_its_column(unit: Unit, value: Cell, text: str) -> None:
    assert printed(unit, value) == text


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [("duration", 5e6, "5 ms"), ("duration", 2.5e6, "2.5 ms"), ("ratio", 0.1, "10 %"), ("size", 2.0**20, "1 MiB")],
)
def test_a_tick_has_no_zeros_behind_its_point(unit: Unit, value: float, text: str) -> None:
    assert tick_text(unit, value) == text


def test_a_course_is_thinned_to_its_peaks() -> None:
    assert thinned([(0.0, 1.0), (1.0, 2.0)]) == [(0.0, 1.0), (1.0, 2.0)]
    assert thinned([]) == []
    course = [(float(moment), float(moment == 777), 5.0) for moment in range(3000)]
    found = thinned(course)
    assert len(found) <= 80
    assert found[-1] == (2999.0, 0.0, 5.0)
    assert max(value for _, value, _ in found) == 1.0
