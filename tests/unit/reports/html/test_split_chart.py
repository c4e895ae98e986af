"""The chart of where the time of requests goes."""

from msgspec.structs import replace
from support.splits import split, with_splits
from support.streams import stream_result
from support.synthetic import MS, US, changed, result

from pytest_mlpatterns.reports.html.charts import charts_of, split_charts

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
