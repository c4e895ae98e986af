"""A pattern outside the package describes what its layer counts, and every reader of counts knows it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
from msgspec.structs import replace
from support.synthetic import result

from pytest_mlpatterns import Figure, LayerKind, LevelChart, PartsChart, Pattern, SettingError, SizesChart, Unit
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, metric_named
from pytest_mlpatterns.records.package_layers import LAYER_KINDS, derived_metrics
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats
from pytest_mlpatterns.reports.html.charts import layer_charts, tracks_chart
from pytest_mlpatterns.reports.text.notes import describe_layer

KIND = LayerKind(
    figures=(
        Figure("gated_wait", "wait at the gate", Unit.DURATION, median="wait_ns", note="wait {}", floor=5_000),
        Figure("gated_share", "share held", Unit.RATIO, of=("held",), over=("held", "passed"), note="{} held"),
        Figure("", "queue", Unit.COUNT, level="depth", note="{} at the gate"),
    ),
    words={"turned_away": "turned away"},
    charts=(
        PartsChart("Requests at the gate", "request", "requests", {"held": "held", "passed": "passed"}, "held"),
        SizesChart("Groups", "size", "requests", "group", "openings"),
        LevelChart("Requests before the gate", "depth", "waiting"),
    ),
)
LAYER = LayerStats(
    0,
    "gated",
    {"held": 30, "passed": 10, "turned_away": 2, "depth_ns": 8, "observed_ns": 4},
    {"wait_ns": {3_000_000: 30}, "size": {2: 5}},
    {"depth": ((0, 0), (2, 4))},
)


@pytest.fixture(autouse=True)
def _described() -> Iterator[None]:
    known = dict(LAYER_KINDS)

    @dataclass(frozen=True)
    class Gated(Pattern):
        layer_kind: ClassVar[LayerKind | None] = KIND

    yield
    LAYER_KINDS.clear()
    LAYER_KINDS.update(known)


def test_its_metrics_follow_from_the_counts() -> None:
    found = derived_metrics(PatternStats(layers=(LAYER,)))
    assert {name: value.value for name, value in found.items()} == {"gated_wait": 3_000_000, "gated_share": 0.75}
    assert found["gated_share"].relative_error == pytest.approx((0.25 / 30) ** 0.5)


def test_its_metrics_are_known_by_name_with_label_unit_and_floor() -> None:
    metric = metric_named("gated_wait")
    assert (metric.label, metric.show(3_000_000), metric.floor) == ("wait at the gate", "3.00 ms", 5_000)
    assert "gated_wait" not in METRICS


def test_its_note_has_the_figures_and_the_words_of_counters() -> None:
    assert describe_layer(LAYER) == "gated: wait 3.00 ms, 75.0 % held, 2.00 at the gate; 2 turned away"


def test_a_note_without_the_first_value_or_a_description_has_the_counters() -> None:
    assert describe_layer(LayerStats(0, "gated", {"turned_away": 1})) == "gated: 1 turned away"
    assert describe_layer(LayerStats(0, "other", {"held": 3})) == "other: 3 held"


def test_its_charts_are_drawn() -> None:
    charts = {chart.title: chart for chart in layer_charts([LAYER])}
    assert charts["Requests at the gate"].rows == (("held", 0.75, 30), ("passed", 0.25, 10))
    assert charts["Requests at the gate"].summary == "75.0 % of 40 requests held"
    assert charts["Groups"].summary == "2.00 requests per opening on average, 5 openings"


def test_its_level_is_a_line_over_time() -> None:
    measured = replace(result().measured, layers=(LAYER,))
    course = tracks_chart(replace(result(), measured=measured))
    assert [track.title for track in course.tracks if track.title == "Requests before the gate"]


def test_a_name_of_the_package_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^a pattern named 'cached' has a layer_kind"):
        type("Cached", (Pattern,), {"layer_kind": KIND})


def test_what_is_no_description_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^layer_kind of gated is 'waits', expected a LayerKind; write LayerKind"):
        type("Gated", (Pattern,), {"layer_kind": "waits"})


@pytest.mark.parametrize("name", ["rtm", "gated", "Gated_wait", "gated wait"])
def test_a_metric_begins_with_the_name_of_its_layer(name: str) -> None:
    kind = LayerKind(figures=(Figure(name, "wait", Unit.DURATION, median="wait_ns"),))
    with pytest.raises(SettingError, match="expected a name in lower case that begins with gated_"):
        type("Gated", (Pattern,), {"layer_kind": kind})
