"""Charts of what a pattern's layers know of themselves, made of declared counts."""

from support.each_row import each_row
from support.synthetic import LAYERS, MS, S, result

from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.reports.html.chart import Chart, Track
from pytest_mlpatterns.reports.html.charts import layer_charts, tracks_chart


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
