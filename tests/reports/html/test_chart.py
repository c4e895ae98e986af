"""A chart as a value: how its cells are printed and written."""

from __future__ import annotations

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.reports.html.chart import Chart, heading_of, thinned, unit_of


def test_every_metric_has_a_unit_and_a_heading() -> None:
    assert {unit_of(name) for name in METRICS} == {"duration", "rate", "ratio", "size", "count"}
    assert [heading_of(METRICS[name]) for name in ("rtm", "p95", "hop")] == ["RTM", "p95 latency", "Hop"]


def test_numbers_are_written_to_five_digits_and_counts_in_full() -> None:
    chart = Chart("load", "", "", (), ((1.23456789, 123456, 2.0, float("inf"), None, "x"),), {"NMRT": 4.0})
    assert chart.to_json()["rows"] == [[1.2346, 123456, 2, None, None, "x"]]
    assert chart.to_json()["marks"] == {"NMRT": 4}


def test_a_course_is_thinned_to_its_peaks() -> None:
    assert thinned([(0.0, 1.0), (1.0, 2.0)]) == [(0.0, 1.0), (1.0, 2.0)]
    assert thinned([]) == []
    course = [(float(moment), float(moment == 777), 5.0) for moment in range(3000)]
    found = thinned(course)
    assert len(found) <= 240
    assert found[-1] == (2999.0, 0.0, 5.0)
    assert max(value for _, value, _ in found) == 1.0
