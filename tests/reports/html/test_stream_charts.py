"""Charts of streams: what each draws, and what it leaves out because it is not known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support.streams import stream_result
from support.synthetic import MS, counterpart, make_setup, result

from pytest_mlpatterns.records.result_parts import Beside
from pytest_mlpatterns.reports.html.charts import charts_of
from pytest_mlpatterns.reports.html.evaluation import patterns_section
from pytest_mlpatterns.reports.html.latency_charts import goodput_charts, is_goodput, stream_charts
from pytest_mlpatterns.reports.html.overview import overview_section
from pytest_mlpatterns.reports.html.test_page import details_section

if TYPE_CHECKING:
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.reports.html.chart import Chart

GOODPUT = "goodput(ttft<300ms,tpot<40.0ms)"


def chart(title: str, of: TestResult) -> Chart:
    (found,) = (one for one in charts_of(of) if one.title == title)
    return found


def test_answers_that_come_whole_have_none() -> None:
    assert stream_charts(result()) == ()


def test_a_stream_has_its_times_tokens_and_requests_before_its_latency() -> None:
    assert [one.title for one in charts_of(stream_result())][:7] == [
        "TTFT by launch",
        "Time to first token distribution",
        "Inter-token latency distribution",
        "Time per output token distribution",
        "Output tokens per second over time",
        "Some requests, one below the other",
        "Latency distribution",
    ]


def test_a_distribution_is_beside_the_revision_or_the_percentiles_of_the_baseline() -> None:
    own = stream_result()
    assert own.stream is not None
    assert own.stream.ttft is not None
    then = tuple((percent, value * 0.8) for percent, value in own.stream.ttft.percentiles)
    revision = replace(
        counterpart(kind="revision"),
        stream_percentiles={"ttft": then},
        present=Beside(stream_percentiles={"ttft": own.stream.ttft.percentiles}),
    )
    both = replace(own, reference=revision)
    assert [column.name for column in chart("Time to first token distribution", both).columns][2:] == [
        "this run",
        "main (05428cb)",
    ]
    assert chart("Time to first token distribution", both).summary.endswith("both measured together")
    assert len(chart("Inter-token latency distribution", both).columns) == 3
    baseline = replace(counterpart(), metrics={"ttft": (150.0 * MS,) * 3, "ttft:p95": (240.0 * MS,) * 3})
    stored = replace(own, reference=baseline)
    assert len(chart("Time to first token distribution", stored).columns) == 3


def test_a_waterfall_has_a_row_for_each_request_and_says_how_it_ended() -> None:
    own = stream_result()
    assert own.stream is not None
    first, second, third = own.stream.requests[:3]
    cut = replace(second, outcome=-8, first_byte_ns=None, chunks_ns=())
    shown = chart(
        "Some requests, one below the other",
        replace(own, stream=replace(own.stream, requests=(first, cut, replace(third, outcome=-6)))),
    )
    assert [row[-1] for row in shown.rows] == ["answered", "stream cut off", "cancelled"]
    assert [row[1] for row in shown.rows] == [0.0, 50.0 * MS, 100.0 * MS]
    assert shown.rows[1][2:4] == (None, None)
    assert len(shown.points) == 3
    assert shown.points[1] == ()


def test_without_requests_or_time_there_is_no_chart_of_them() -> None:
    own = stream_result()
    assert own.stream is not None
    bare = replace(own.stream, requests=(), tokens_over_time=(), itl=None, tpot=None)
    assert [one.title for one in stream_charts(replace(own, stream=bare))] == [
        "Time to first token distribution",
    ]


def loaded(load: str, rate: float) -> TestResult:
    name = f"test_llm.py::test_load[{load}]"
    metrics = {GOODPUT: (rate, 0.9 * rate, 1.1 * rate)}
    return stream_result(name, setup=make_setup("single", load), metrics=metrics)


def test_goodput_is_drawn_by_load_where_one_test_was_measured_under_several() -> None:
    (drawn,) = goodput_charts([loaded("poisson(20/s)", 15), loaded("poisson(5/s, seed=3)", 5), loaded("trace(a)", 3)])
    assert drawn.title == "Goodput in req/s by load: test_load, single"
    assert drawn.summary == "goodput (ttft<300ms,tpot<40.0ms): at most 15.0 req/s, at 20.0 req/s"
    assert drawn.rows == ((5, 5, 4.5, 5.5, 5), (20, 15, 13.5, 16.5, 20))
    (closed,) = goodput_charts([loaded("closed(2)", 4), loaded("closed(8)", 9)])
    assert closed.summary.endswith("at 8 requests in flight")
    assert closed.columns[0].name == "requests in flight"
    assert len(closed.columns) == 4


def test_one_load_or_two_kinds_of_load_are_no_curve() -> None:
    assert goodput_charts([loaded("poisson(20/s)", 15), loaded("closed(8)", 9), result()]) == ()
    assert patterns_section([loaded("poisson(20/s)", 15)], ()) is None
    assert "Goodput in req/s by load" in str(
        patterns_section([loaded("constant(1/s)", 1), loaded("constant(2/s)", 2)], ())
    )


@pytest.mark.parametrize(("name", "known"), [(GOODPUT, True), ("goodput(never<1s)", False), ("ttft", False)])
def test_a_goodput_has_its_objective_in_its_name(name: str, known: bool) -> None:
    assert is_goodput(name) is known


def test_the_page_of_a_test_has_a_part_for_streams_and_its_tokens() -> None:
    page = str(details_section([loaded("poisson(20/s)", 15), stream_result()]))
    assert '<th scope="rowgroup" colspan="3">Streams<' in page
    assert "<td>p95 TTFT<" in page
    assert "<dt>Tokens<dd>128 input and 40.0 output tokens a request on average<" in page
    assert "Goodput (ttft" in page


def test_the_overview_has_the_columns_that_its_tests_need() -> None:
    def headings(*results: TestResult) -> list[str]:
        text = str(overview_section(results))
        return re.findall(r"<th>([^<]*)", text)

    assert headings(stream_result()) == ["Test", "Verdict", "TTFT", "p95 TTFT", "TPOT", "Tokens", "Throughput", "ASL"]
    assert headings(result()) == ["Test", "Verdict", "RTM", "p95", "Throughput", "ASL"]
    assert headings(result(), stream_result()) == [
        *("Test", "Verdict", "TTFT", "TPOT", "Tokens", "RTM", "Throughput", "ASL"),
    ]
