"""The evaluation of the HTML report: the indices of each pattern, the curves, and the decision with its reason."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs
from support.reported import EVALUATED, OVERLOAD, RANKING
from support.synthetic import changed, result

from pytest_mlpatterns.records.capacity import Behaviour
from pytest_mlpatterns.reports.html.drawing import chart_figure
from pytest_mlpatterns.reports.html.page import overload_chart, patterns_section
from pytest_mlpatterns.reports.text.notes import describe_overload


def section(*results: Any, ranking: Any = ()) -> str:
    return str(patterns_section(results, ranking))


def row(page: str, heading: str) -> str:
    """The row of an index."""
    return page[page.index(f"<tr><td>{heading}<td>") :].split("<tr>")[1].partition("</table>")[0]


def test_there_is_none_of_one_pattern_without_a_measurement_of_the_limit() -> None:
    assert patterns_section([result("t::a", group="")], ()) is None


class TestIndices:
    def test_every_index_has_its_value_and_its_interval_for_each_pattern(self) -> None:
        page = section(*EVALUATED)
        efficiency = row(page, "Scaling efficiency of 2 replicas")
        assert '>95.0 %<div class="less">92.0 % to 98.0 %</div>' in efficiency
        assert row(page, "Median latency").count("4.12 ms<div") == 2
        assert "0.050" in row(page, "Contention σ")
        assert "51.0 %" in row(page, "CPU share (ASL) at NMRT")
        assert row(page, "Cost per million at NMRT").count(">0.0500 USD<div") == 2

    def test_scaling_out_has_its_time_and_what_callers_noticed(self) -> None:
        page = section(*EVALUATED)
        assert '>840 ms<div class="less">2 passes: 820 ms, 860 ms</div>' in row(page, "Scale-out time")
        assert ">45.0 ms<" in row(page, "Highest p99 while scaling out")
        assert ">2 of 1,234<" in row(page, "Failed requests while scaling out")

    def test_a_pattern_without_a_measurement_has_a_dash(self) -> None:
        page = section(EVALUATED[0], changed(EVALUATED[1], scaling=None))
        assert row(page, "Contention σ").endswith("<td>–")

    def test_an_index_that_no_pattern_has_is_left_out(self) -> None:
        page = section(changed(EVALUATED[0], overloads=()))
        assert "Goodput" not in page
        assert "Beyond the limit" not in page

    def test_the_goodput_has_an_interval_by_the_error_of_its_pieces_and_of_nmrt(self) -> None:
        cells = row(section(EVALUATED[0]), "Goodput at 2 times the capacity (NMRT), as a share of it")
        assert "97.0 %<div" in cells
        assert row(section(EVALUATED[0]), "Time to recover").count("at once") == 1

    def test_a_service_that_did_not_recover_says_for_how_long_it_was_watched(self) -> None:
        slow = changed(EVALUATED[0], overloads=(replace(OVERLOAD, recovery_ns=None),))
        assert "over 6.00 s" in row(section(slow), "Time to recover")

    def test_the_scalability_of_the_framework_has_its_rows(self) -> None:
        figures = {"sc": (1.8, 1.7, 1.9), "hsx": (0.9, 0.88, 0.92), "asl_at_nmrt": (0.7, 0.69, 0.71)}
        page = section(structs.replace(EVALUATED[0], metrics={**EVALUATED[0].metrics, **figures}), EVALUATED[1])
        assert '>1.80<div class="less">1.70 to 1.90</div>' in row(page, "SC")
        assert "90.0 %" in row(page, "HSX")
        loads = row(page, "CPU share (ASL) at NMRT")
        assert loads.index("70.0 %") < loads.index("51.0 %")  # its own search, and the scaling of the other

    def test_what_is_missing_for_an_index_stands_below_the_table(self) -> None:
        page = section(changed(EVALUATED[0], missing_indices={"hsx": "no price", "sc": "no price"}), EVALUATED[1])
        assert "<li>cached: HSX and SC are not known: no price<" in page
        assert "not known" not in section(*EVALUATED)


class TestDecision:
    def test_the_scores_have_what_they_are_made_of_and_what_excluded_others_is_said(self) -> None:
        page = section(*EVALUATED, ranking=RANKING)
        assert "<b>Decision:</b> cached first; then batched and single." in page
        assert "<td>1. cached<td" in page
        assert "<td>4.12 ms, 90.0 % of the best<td>80.0 % of the best<" in page
        assert "<li>queued is excluded: median latency 31.0 ms is not below 20.0 ms<" in page
        assert "<li>NMRT of cached is only known to be at least 400 req/s<" in page

    def test_without_a_ranking_the_reader_sees_how_to_get_one(self) -> None:
        assert "--perf-rank" in section(*EVALUATED)
        assert "--perf-rank" not in section(EVALUATED[0])

    def test_if_every_pattern_is_excluded_only_that_is_said(self) -> None:
        rows = [{**one, "score": None, "rank": None, "excluded": "it failed"} for one in RANKING[0]["rows"]]
        page = section(*EVALUATED, ranking=[{**RANKING[0], "rows": rows}])
        assert page.count("is excluded: it failed<") == 4
        assert "of the best" not in page


class TestCurves:
    def test_each_pattern_has_the_loads_beyond_its_limit(self) -> None:
        assert section(*EVALUATED).count("<b>Goodput by offered load: ") == 2

    def test_each_number_of_replicas_has_its_capacity(self) -> None:
        page = section(*EVALUATED)
        assert "200 req/s" in row(page, "NMRT of 1 replica")
        assert "380 req/s" in row(page, "NMRT of 2 replicas")

    def test_overload_is_drawn_in_shares_of_nmrt(self) -> None:
        chart = overload_chart("single", OVERLOAD)
        assert [(cells[0], cells[1]) for cells in chart.rows] == [("50.0 %", 0.5), ("100 %", 0.99), ("200 %", 0.97)]
        assert chart.summary == "sheds load; it recovers at once"
        assert chart_figure(chart).count("rejected, of offered") == 1

    @pytest.mark.parametrize("behaviour", Behaviour)
    def test_the_chart_says_what_the_terminal_says(self, behaviour: Behaviour) -> None:
        overload = replace(OVERLOAD, behaviour=behaviour)
        chart = overload_chart("single", overload)
        assert chart.summary.partition(";")[0] in describe_overload(overload)

    def test_one_load_is_no_curve(self) -> None:
        assert overload_chart("single", replace(OVERLOAD, steps=OVERLOAD.steps[:1])) is None
