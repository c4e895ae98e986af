"""What a deployment knows of itself: readings subtract, processes add up, and figures follow from the counts."""

from math import sqrt
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import FEW, LAYERS, MS, PROPERTY

from pytest_mlpatterns.records.layer_description import DerivedMetric
from pytest_mlpatterns.records.package_layers import derived_metrics
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats, merged_layers

NAMES = st.sampled_from(["a", "b", "c"])
COUNTS = st.integers(0, 10**6)
SPREADS = st.dictionaries(NAMES, st.dictionaries(st.integers(0, 50), st.integers(1, 1000), max_size=5))
COURSES = st.dictionaries(NAMES, st.lists(st.tuples(COUNTS, COUNTS), max_size=4).map(tuple))
PARTS = st.builds(LayerStats, st.integers(0, 1), NAMES, st.dictionaries(NAMES, COUNTS), SPREADS, COURSES)


def spread_of(values: list[int]) -> dict[int, int]:
    return {value: values.count(value) for value in values}


def whole(layers: tuple[LayerStats, ...]) -> list[Any]:
    """Layers as plain values without what is zero or empty."""
    return [
        (
            layer.position,
            layer.layer,
            {name: count for name, count in layer.counters.items() if count},
            {name: spread for name, spread in layer.histograms.items() if spread},
            {name: course for name, course in layer.series.items() if course},
        )
        for layer in layers
    ]


class TestLayers:
    @PROPERTY
    @given(st.lists(st.integers(0, 10**9), min_size=1, max_size=40))
    def test_mean_and_median_are_those_of_the_values(self, values: list[int]) -> None:
        layer = LayerStats(0, "batched", {}, {"size": spread_of(values)})
        assert layer.mean("size") == pytest.approx(fmean(values))
        assert layer.median("size") == float(np.percentile(values, 50, method="inverted_cdf"))

    @pytest.mark.parametrize("layer", [LayerStats(0, "batched"), LayerStats(0, "batched", {}, {"size": {}})])
    def test_an_empty_histogram_has_no_mean_and_no_median(self, layer: LayerStats) -> None:
        assert layer.mean("size") is None
        assert layer.median("size") is None

    def test_since_an_earlier_reading_only_what_was_gained_counts(self) -> None:
        earlier = LayerStats(1, "queued", {"accepted": 5, "lost": 1}, {"wait_ns": {10: 3, 20: 1}}, {"depth": ((1, 0),)})
        now = LayerStats(
            1,
            "queued",
            {"accepted": 9, "lost": 1, "rejected": 2},
            {"wait_ns": {10: 4, 20: 1, 30: 2}, "new": {1: 1}},
            {"depth": ((1, 0), (5, 2)), "level": ((7, 1),)},
        )
        assert now.since(earlier) == LayerStats(
            1,
            "queued",
            {"accepted": 4, "lost": 0, "rejected": 2},
            {"wait_ns": {10: 1, 30: 2}, "new": {1: 1}},
            {"depth": ((5, 2),), "level": ((7, 1),)},
        )

    @PROPERTY
    @given(PARTS, PARTS)
    def test_the_difference_of_two_readings_is_what_came_between(self, before: LayerStats, after: LayerStats) -> None:
        first = LayerStats(0, "x", before.counters, before.histograms)
        second = LayerStats(0, "x", after.counters, after.histograms)
        (both,) = merged_layers([first, second])
        assert whole((both.since(first),)) == whole((second,))


class TestMerging:
    def test_layers_of_several_processes_add_up_by_place_and_name(self) -> None:
        parts = [
            LayerStats(1, "hop", {"calls": 1, "errors": 1}, {"hop_ns": {5: 1, 7: 2}}),
            LayerStats(0, "cached", {"hits": 3}),
            LayerStats(1, "hop", {"calls": 4}, {"hop_ns": {7: 1}, "other": {1: 1}}),
            LayerStats(1, "batched", {"calls": 2}),
        ]
        assert merged_layers(parts) == (
            LayerStats(0, "cached", {"hits": 3}),
            LayerStats(1, "batched", {"calls": 2}),
            LayerStats(1, "hop", {"calls": 5, "errors": 1}, {"hop_ns": {5: 1, 7: 3}, "other": {1: 1}}),
        )

    def test_courses_of_several_processes_are_one_course_in_time(self) -> None:
        one = LayerStats(0, "queued", {}, {}, {"depth": ((1, 10), (5, 11))})
        other = LayerStats(0, "queued", {}, {}, {"depth": ((3, 20),), "level": ((2, 1),)})
        (both,) = merged_layers([one, other])
        assert both.series == {"depth": ((1, 10), (3, 20), (5, 11)), "level": ((2, 1),)}

    @FEW
    @given(st.lists(PARTS, max_size=6), st.integers(0, 6))
    def test_layers_merge_in_any_grouping(self, parts: list[LayerStats], cut: int) -> None:
        at_once = merged_layers(parts)
        assert merged_layers([*merged_layers(parts[:cut]), *merged_layers(parts[cut:])]) == at_once
        assert merged_layers(at_once) == at_once
        assert merged_layers(reversed(parts)) == at_once
        assert [(layer.position, layer.layer) for layer in at_once] == sorted({(p.position, p.layer) for p in parts})


class TestReadings:
    def test_counters_since_an_earlier_reading_are_what_was_gained(self) -> None:
        earlier = PatternStats((10, 20), ("one",), (LayerStats(0, "cached", {"hits": 3}),), replaced=1)
        now = PatternStats(
            (15, 40), ("one", "two"), (LayerStats(0, "cached", {"hits": 5}), LayerStats(0, "hop", {"calls": 2})), 3
        )
        assert now.since(earlier) == PatternStats(
            (5, 20), ("one", "two"), (LayerStats(0, "cached", {"hits": 2}), LayerStats(0, "hop", {"calls": 2})), 2
        )

    def test_replicas_that_were_added_meanwhile_had_counted_nothing(self) -> None:
        assert PatternStats((15, 40)).since(PatternStats((10,))).replica_requests == (5, 40)

    def test_readings_of_different_deployments_cannot_be_subtracted(self) -> None:
        with pytest.raises(ValueError, match=r"zip\(\) argument 2 is longer"):
            PatternStats(replica_requests=(1,)).since(PatternStats(replica_requests=(1, 2)))

    def test_layers_of_one_name_are_found_the_outermost_first(self) -> None:
        stats = PatternStats(layers=(LayerStats(0, "hop"), LayerStats(1, "cached"), LayerStats(2, "hop")))
        assert [layer.position for layer in stats.layers_named("hop")] == [0, 2]
        assert stats.layers_named("queued") == ()


class TestFigures:
    @each_row(
        "stats",
        None,
        PatternStats(),
        PatternStats((5, 5), ("traceback",), (), 1),
        PatternStats(layers=tuple(LayerStats(0, layer.layer) for layer in LAYERS)),
        PatternStats(layers=(LayerStats(0, "wire", {"requests": 0}),)),
        PatternStats(
            layers=(
                LayerStats(0, "cached", {"hits": 0, "misses": 0}, {"hit_ns": {}}),
                LayerStats(1, "batched", {"calls": 0}, {"size": {}}),
                LayerStats(2, "queued", {"depth_ns": 0, "observed_ns": 0}),
            )
        ),
    )
    def test_empty_telemetry_has_no_metrics(self, stats: PatternStats | None) -> None:
        assert derived_metrics(stats) == {}

    @each_row(
        ("counters", "ratio"),
        ({"hits": 3, "misses": 1}, 0.75),
        ({"hits": 2, "coalesced": 1, "misses": 1}, 0.75),
        ({"misses": 7}, 0.0),
        ({"hits": 7}, 1.0),
    )
    def test_inputs_that_waited_for_a_call_under_way_are_hits(self, counters: dict[str, int], ratio: float) -> None:
        found = derived_metrics(PatternStats(layers=(LayerStats(0, "cached", counters),)))["cache_hit_ratio"]
        hits = ratio * sum(counters.values())
        assert found.value == ratio
        assert found.relative_error == pytest.approx(sqrt((1 - ratio) / hits) if hits else 0.0)

    @PROPERTY
    @given(st.lists(st.integers(1, 1000), min_size=1, max_size=50))
    def test_the_size_of_a_batch_is_as_sure_as_the_scatter_of_its_calls(self, sizes: list[int]) -> None:
        found = derived_metrics(PatternStats(layers=(LayerStats(0, "batched", {}, {"size": spread_of(sizes)}),)))
        mean = fmean(sizes)
        assert found["batch_size"].value == pytest.approx(mean)
        assert found["batch_size"].relative_error == pytest.approx(pstdev(sizes) / sqrt(len(sizes)) / mean)

    def test_every_figure_follows_from_the_counts_of_the_outermost_layer_that_has_some(self) -> None:
        empty = tuple(LayerStats(0, name) for name in ("cached", "queued", "batched", "wire"))
        inner = LayerStats(8, "cached", {"hits": 9, "misses": 1})
        wire = LayerStats(8, "wire", {"requests": 2, "decode_ns": 6, "encode_ns": 8})
        found = derived_metrics(PatternStats(layers=(*empty, *LAYERS, inner, wire)))
        assert {name: figure.value for name, figure in found.items()} == {
            "cache_hit_ratio": 0.75,
            "cache_hit": 20_000,
            "cache_miss": 4 * MS,
            "batch_size": 4,
            "batch_wait": 2 * MS,
            "queue_depth": 2,
            "queue_wait": MS,
            "hop": 200_000,
            "decode": 3.0,
            "encode": 4.0,
        }
        of_nothing = PatternStats(layers=(LayerStats(0, "batched", {}, {"size": {0: 3}}),))
        assert derived_metrics(of_nothing) == {"batch_size": DerivedMetric(0.0, 0.0)}
