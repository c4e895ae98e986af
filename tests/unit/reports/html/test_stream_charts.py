"""Charts of streams: what each draws, and what it leaves out because it is not known."""

import re

from msgspec.structs import replace
from support.streams import stream_result
from support.synthetic import MS, counterpart, make_setup, result

from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import Beside
from pytest_mlpatterns.reports.html.chart import Chart
from pytest_mlpatterns.reports.html.charts import charts_of, histogram_charts
from pytest_mlpatterns.reports.html.page import overview_section
from pytest_mlpatterns.reports.html.test_page import details_section


def chart(title: str, of: TestResult) -> Chart:
    (found,) = (one for one in charts_of(of) if one.title == title)
    return found


def test_answers_that_come_whole_have_one_distribution() -> None:
    assert [one.title for one in histogram_charts(result()) if one] == ["Latency distribution"]


def test_a_stream_has_its_times_before_its_latency_and_its_tokens_over_time() -> None:
    found = {one.title: one for one in charts_of(stream_result())}
    assert [*found][:5] == [
        "Median TTFT by launch",
        "Time to first token distribution",
        "Inter-token latency distribution",
        "Time per output token distribution",
        "Latency distribution",
    ]
    assert "Output tokens" in [track.title for track in found["Over time"].tracks]


def test_a_distribution_is_beside_the_revision_or_the_percentiles_of_the_baseline() -> None:
    own = stream_result()
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


def test_without_time_there_is_no_chart_of_it() -> None:
    own = stream_result()
    bare = replace(own, stream=replace(own.stream, itl=None, tpot=None))
    assert [one.title for one in histogram_charts(bare) if one] == [
        "Time to first token distribution",
        "Latency distribution",
    ]


def loaded(load: str, rate: float) -> TestResult:
    name = f"test_llm.py::test_load[{load}]"
    metrics = {"goodput(ttft<300ms,tpot<40.0ms)": (rate, 0.9 * rate, 1.1 * rate)}
    return stream_result(name, setup=make_setup("single", load), metrics=metrics)


def test_the_page_of_a_test_has_a_part_for_streams_and_its_tokens() -> None:
    page = str(details_section([loaded("poisson(20/s)", 15), stream_result()]))
    assert '<th scope="rowgroup" colspan="3">Streams<' in page
    assert "<td>p95 TTFT<" in page
    assert "<dt>Tokens<dd>128 input and 40.0 output tokens a request on average<" in page
    assert "Goodput with ttft" in page


def test_the_overview_has_the_columns_that_its_tests_need() -> None:
    def headings(*results: TestResult) -> list[str]:
        text = str(overview_section(results))
        return re.findall(r"<th>([^<]*)", text)

    assert headings(stream_result()) == ["Test", "Verdict", "TTFT", "p95 TTFT", "TPOT", "Tokens", "Throughput", "ASL"]
    assert headings(result()) == ["Test", "Verdict", "Median", "p95", "Throughput", "ASL"]
    assert headings(result(), stream_result()) == [
        *("Test", "Verdict", "TTFT", "TPOT", "Tokens", "Median", "Throughput", "ASL")
    ]
