"""A chart as a value: how its cells are printed."""

import pytest
from support.each_row import each_row

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.reports.html.chart import Cell, Unit, heading_of, printed, thinned, tick_text, unit_of


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
