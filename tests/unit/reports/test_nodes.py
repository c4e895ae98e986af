"""The nodes of a cluster in the reports: a line in the verbose summary, a table in the HTML report."""

from support.synthetic import changed, result

from pytest_mlpatterns.records.launch import GeneratorPart, NodeFigures
from pytest_mlpatterns.reports.html.test_page import details_section, node_table
from pytest_mlpatterns.reports.text.notes import generators_text, nodes_text
from pytest_mlpatterns.reports.text.summary_table import summary_lines
from pytest_mlpatterns.reports.text.terminal_text import text_of

MIB = 2**20
NODES = (
    NodeFigures("10.0.0.2", 16.0, 2, 0.43, 210 * MIB, 0.021),
    NodeFigures("10.0.0.3", 1.0, 1, 0.5, 100 * MIB, 0.01),
)
LINE = "10.0.0.2 2 replicas 43.0 % of 16 cores 210 MiB · 10.0.0.3 1 replica 50.0 % of 1 core 100 MiB"


def test_each_node_is_told_with_its_replicas_cpu_and_memory() -> None:
    assert nodes_text(NODES) == LINE
    assert nodes_text(()) == ""


def test_the_verbose_summary_has_the_nodes_and_the_short_one_has_not() -> None:
    on_nodes = changed(result("test_perf.py::test_one"), nodes=NODES)
    verbose, short = ("\n".join(map(text_of, summary_lines([on_nodes], 200, verbose=wordy))) for wordy in (True, False))
    assert f"nodes     {LINE}" in verbose
    assert "10.0.0.2" not in short


def test_the_html_report_has_a_table_of_nodes_if_there_was_a_cluster() -> None:
    one = result("test_perf.py::test_one")
    page = details_section([changed(one, nodes=NODES)])
    assert "<td>10.0.0.3<" in page
    for text in ("16", "43.0 %", "210 MiB", "2.1 %"):
        assert f"<td>{text}<" in page
    assert node_table(()) is None
    without = details_section([one])
    assert "CPU of engine" not in without


def test_generators_on_nodes_tell_where_they_ran_and_how_evenly_they_began() -> None:
    parts = (
        GeneratorPart("10.0.0.2", 1000, 0.3, 9000.0, opened_late_ns=100_000),
        GeneratorPart("10.0.0.3", 1000, 0.3, 9000.0, opened_late_ns=1_300_000, clock_error_ns=400_000),
        GeneratorPart("10.0.0.2", 1000, 0.3, 9000.0, opened_late_ns=200_000),
    )
    assert generators_text(parts) == (
        "2 on 10.0.0.2, 1 on 10.0.0.3, begun within 1.20 ms of each other, clocks known to ±400 µs"
    )
    assert generators_text(parts[:1]) == "1 on 10.0.0.2"
    assert generators_text(()) == ""
