"""Charts of how latency is distributed: both sides, over the same bins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.synthetic import MS, PROPERTY, latencies, result

from pytest_mlpatterns.analysis.metrics.distribution_summary import latency_of, stored_percentiles
from pytest_mlpatterns.records.latency import Latency, LatencyHistogram
from pytest_mlpatterns.records.result_parts import Beside, Reference
from pytest_mlpatterns.reports.html.charts import histogram_chart

BASELINE = Reference("baseline", "perf-baseline.json", {}, stored_percentiles(latency_of(latencies(2 * MS))))


def test_a_distribution_marks_its_percentiles() -> None:
    of = result()
    known = dict(of.measured.latency.percentiles)
    assert histogram_chart(of).marks == {"p50": known[50], "p95": known[95], "p99": known[99]}


def test_against_a_revision_both_sides_are_those_that_were_measured_together() -> None:
    both = Reference(
        "revision",
        "main (05428cb)",
        {},
        ((0.0, MS), (50.0, 2 * MS), (100.0, 4 * MS)),
        Beside({}, ((0.0, 2 * MS), (50.0, 4 * MS), (100.0, 8 * MS))),
    )
    drawn = histogram_chart(result(reference=both))
    assert drawn.columns[3].name == "main (05428cb)"
    assert drawn.marks == {"p50": 4 * MS}
    assert drawn.summary.endswith("; both measured together")
    shares = [sum(row[column] for row in drawn.rows) for column in (2, 3)]  # type: ignore[misc]
    assert shares == pytest.approx([1.0, 1.0])


def test_a_reference_without_percentiles_changes_nothing() -> None:
    without = replace(BASELINE, latency_percentiles=())
    assert histogram_chart(result(reference=without)) == histogram_chart(result())


def test_charts_need_a_successful_request() -> None:
    assert histogram_chart(result(latency=None)) is None


def test_the_histogram_holds_every_request_once() -> None:
    chart = histogram_chart(result())
    assert sum(row[2] for row in chart.rows) == pytest.approx(1.0)  # type: ignore[misc]
    assert all(row[1] == after[0] for row, after in zip(chart.rows, chart.rows[1:], strict=False))


@PROPERTY
@given(st.floats(0.01, 100))
def test_the_histogram_reaches_as_far_as_the_other_side(times: float) -> None:
    other = stored_percentiles(latency_of((latencies(4 * MS) * times).astype(int)))
    chart = histogram_chart(result(reference=replace(BASELINE, latency_percentiles=other)))
    assert len(chart.rows) <= 18
    for column in (2, 3):
        assert sum(row[column] for row in chart.rows) == pytest.approx(1.0)  # type: ignore[misc]
    assert chart.rows[0][0] <= other[0][1] * 1.001  # type: ignore[operator]
    assert chart.rows[-1][1] >= other[-1][1] * 0.999  # type: ignore[operator]


def test_equal_latencies_have_a_histogram_too() -> None:
    flat = ((0.0, MS), (50.0, MS), (100.0, MS))
    same = Latency(flat, LatencyHistogram((MS, 1.01 * MS), (5,)), MS, 0.0)
    chart = histogram_chart(result(latency=same, reference=replace(BASELINE, latency_percentiles=flat)))
    assert [sum(row[column] for row in chart.rows) for column in (2, 3)] == pytest.approx([1.0, 1.0])  # type: ignore[misc]
    assert chart.rows[-1][1] == pytest.approx(1.01 * MS)
