"""What GitHub Actions shows: the job summary and the annotations, whatever stands in ids and messages."""

import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.golden import LESS, LIKELY, SLOWER, check_golden, everything, searched
from support.histories import CHANGE
from support.project import APART, Project
from support.synthetic import CHANGED_FACTS, PROPERTY, SETUP, counterpart, make_setup, result, verdict

from pytest_mlpatterns.records.history import NewChange
from pytest_mlpatterns.records.launch import Busy
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.records.result import FailedTest
from pytest_mlpatterns.records.result_parts import Location
from pytest_mlpatterns.records.verdict import Gate, Kind, Outcome, Unjudged
from pytest_mlpatterns.reports.files.ci_reports import (
    annotation,
    escaped,
    job_summary,
    new_change_annotation,
    probably_slower_annotation,
    properties_of,
)
from pytest_mlpatterns.reports.text.history_text import bisect_command

NASTY = "t.py::test_it[a|b `c` <script>@me $x$ **d**\n::error::e]"
WHERE = Location("tests/test_perf.py", 12)


def test_the_summary_has_every_result_and_why_tests_failed() -> None:
    slower = result(
        "test_perf.py::test_is_slower",
        passed=False,
        verdicts=(SLOWER, LESS),
        reference=counterpart(),
        location=WHERE,
        facts_changed=CHANGED_FACTS[:2],
    )
    results = [*everything()[:1], slower, *everything()[2:], *searched()]
    failures = [
        FailedTest(slower.test, f"{SLOWER.reason}\n{LESS.reason}", WHERE),
        FailedTest("test_perf.py::test_broken", "ModelLoadError: no weights", None),
    ]
    rankings = {"test_perf.py::test_digits": "cached first; then batched and replicated"}
    check_golden("job-summary.md", job_summary(results, failures, rankings, notes=["results written to out.json"]))


@pytest.mark.parametrize(
    ("passed", "headline"), [(True, "### Performance: 1 passed\n"), (False, "### Performance: 1 broken test\n")]
)
def test_the_summary_of_one_test_begins_with_what_came_of_it(passed: bool, headline: str) -> None:
    one = result(passed=passed, latency=None, load_over_time=())
    failures = [] if passed else [FailedTest(one.test, "too slow", None)]
    text = job_summary([one], failures, {})
    assert text.startswith(headline)
    assert "<details>" not in text


def test_a_run_in_which_nothing_was_measured_has_no_table() -> None:
    text = job_summary([], [FailedTest("t.py::test_a", "no model", WHERE)], {})
    assert text == "### Performance: 1 broken test\n\n- ✗ **t.py::test\\_a**: broken test: no model\n"


def test_text_of_users_stays_text() -> None:
    nasty = result(NASTY, passed=False, group=NASTY, setup=make_setup(pattern="a | b\n\n# c"))
    text = job_summary([nasty], [FailedTest(NASTY, f"{NASTY}\nmore", None)], {NASTY: NASTY}, notes=[NASTY])
    assert "<script>" not in text.replace("\\<script\\>", "")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1
    assert not any(line.startswith(("::", "# ")) for line in text.splitlines())


@PROPERTY
@given(st.text())
def test_an_escaped_text_is_one_line_without_markup(text: str) -> None:
    found = escaped(text)
    assert len(found.splitlines()) <= 1
    for sign in "`*_[]<>|$":
        assert found.count(sign) == found.count(f"\\{sign}")


def test_a_change_in_the_history_is_an_item_and_an_annotation() -> None:
    change = replace(CHANGE, test=NASTY)
    worse = NewChange(change, "median latency +4.2 %", bisect_command(change), fails=True, location=WHERE)
    better = NewChange(replace(change, is_worse=False), "median latency -4.2 %", "", fails=False, location=None)
    text = job_summary([], [], {}, changes=[worse, replace(worse, fails=False), better])
    items = [line for line in text.splitlines() if " changed in the history: " in line]
    assert [line[:4] for line in items] == ["- ✗ ", "- ! ", "- ✓ "]
    assert "median latency +4.2 % <br> python -m pytest\\_mlpatterns bisect " in items[0]
    assert "<script>" not in text.replace("\\<script\\>", "")
    found = new_change_annotation(worse)
    assert found.startswith("::error file=tests/test_perf.py,line=12,title=")
    assert "::changed in the history: median latency +4.2 %25%0Apython -m pytest_mlpatterns bisect " in found
    assert new_change_annotation(replace(worse, fails=False)).startswith("::warning ")
    assert new_change_annotation(better).endswith("::changed in the history: median latency -4.2 %25")


def test_an_annotation_stands_at_the_line_of_the_test() -> None:
    failure = FailedTest(
        "tests/test_perf.py::test_digits[a,b]", "median latency 100 % worse\nthroughput 50 % worse", WHERE
    )
    assert annotation(failure) == (
        "::error file=tests/test_perf.py,line=12,title=tests/test_perf.py%3A%3Atest_digits[a%2Cb]"
        "::median latency 100 %25 worse%0Athroughput 50 %25 worse"
    )
    assert annotation(failure, PurePosixPath("models/digits")).startswith(
        "::error file=models/digits/tests/test_perf.py,line=12,"
    )
    assert annotation(replace(failure, location=None)).startswith("::error title=tests/")


def test_what_is_probably_slower_is_a_warning_with_its_figures_and_its_reason() -> None:
    likely = result(
        verdicts=(LIKELY,), reference=counterpart(), location=WHERE, busy=Busy(1.6, cores=2), probably_slower=("rtm",)
    )
    text = probably_slower_annotation(likely)
    assert text.startswith(
        "::warning file=tests/test_perf.py,line=12,title=test_perf.py%3A%3Atest_digits::probably slower:%0Amean"
    )
    assert text.endswith("the machine was busy: other processes used 1.6 of the 2 cores")


def test_a_failure_that_the_gate_lets_pass_is_a_warning_and_counted() -> None:
    slower = result("t.py::test_slower", passed=False, verdicts=(SLOWER,), gate=Gate.WARN)
    failure = FailedTest(slower.test, SLOWER.reason, WHERE, Kind.REGRESSION, Gate.WARN)
    assert annotation(failure).startswith("::warning file=tests/test_perf.py,line=12,")
    text = job_summary([slower], [failure], {})
    assert text.startswith("### Performance: 1 regression\n\n1 test would fail with --perf-gate fail.\n\n- ✗ ")


def test_the_summary_counts_each_kind() -> None:
    results = [
        result("t.py::test_passes"),
        result("t.py::test_new", unjudged=Unjudged(Kind.NOT_COMPARED, "no baseline")),
        result("t.py::test_slower", passed=False, verdicts=(SLOWER,)),
    ]
    failures = [FailedTest("t.py::test_slower", "slower", None), FailedTest("t.py::test_broken", "no disk", None)]
    text = job_summary(results, failures, {})
    assert text.startswith("### Performance: 1 regression, 1 broken test, 1 not compared, 1 passed\n")
    assert "- ✗ **t.py::test\\_slower**: regression: slower" in text


@PROPERTY
@given(st.text(), st.text())
def test_an_annotation_is_one_line_whatever_stands_in_it(test: str, reason: str) -> None:
    told = annotation(FailedTest(test, reason, Location(test, 1)))
    assert "\n" not in told
    assert "\r" not in told
    assert told.count("::") >= 2
    properties = told.split("::")[1].removeprefix("error ")
    assert len(properties.split(",")) == 3


def test_a_cost_has_its_price_beside_it() -> None:
    priced = result(metrics={"cost": (0.41, 0.4, 0.42)}, price=Price(0.0425, 0.0, "USD"))
    found = dict(properties_of(priced))
    assert found["perf_price"] == "0.0425 USD per core-hour"
    assert found["perf_cost_per_million_requests"] == "0.41"
    assert "perf_price" not in dict(properties_of(result()))


def test_every_metric_has_its_unit_in_its_name_and_its_interval_beside_it() -> None:
    failed = verdict(Outcome.FAIL)
    found = dict(properties_of(result(passed=False, verdicts=(failed,))))
    assert found["perf_kind"] == "regression"
    assert (found["perf_outcome"], found["perf_pattern"], found["perf_requests"]) == (
        "failed",
        str(SETUP.pattern),
        "7406",
    )
    assert [found[f"perf_rtm_ns{end}"] for end in ("", "_low", "_high")] == ["4120000", "4050000", "4190000"]
    assert found["perf_throughput_rps"] == "1234.4"
    assert found["perf_asl_ratio"] == "0.512"
    assert found["perf_peak_memory_bytes"] == str(256 * 2**20)
    assert found["perf_rtm_against_baseline"] == failed.reason


@each_row(
    ("metric", "name"),
    ("request_bytes", "perf_request_bytes"),
    ("batch_size", "perf_batch_size"),
    ("cache_hit_ratio", "perf_cache_hit_ratio"),
    ("nmrt(p95<50.0ms)", "perf_nmrt(p95<50.0ms)_rps"),
)
def test_a_unit_stands_in_a_name_once(metric: str, name: str) -> None:
    assert name in dict(properties_of(result(metrics={metric: (1.0, 1.0, 1.0)})))


@pytest.mark.processes
def test_a_junit_report_has_the_figures_of_every_perf_test(tmp_path: Path) -> None:
    body = """
    def test_passes(perf, record_property):
        record_property("mine", 1)

    def test_fails(perf):
        perf.assert_rtm_below("1ns")

    def test_plain(): pass
    """
    long = 'pytest.mark.perf(duration="1s", warmup="0s")'  # each eighth has an answer, however the machine stalls
    Project().with_tests(body, marker=long).run(tmp_path, "--junit-xml", "junit.xml", *APART)
    cases = {case.get("name"): case for case in ET.parse(tmp_path / "junit.xml").iter("testcase")}
    names = {test: [one.get("name") for one in case.iter("property")] for test, case in cases.items()}
    assert names["test_plain"] == []
    assert names["test_passes"][:2] == ["mine", "perf_outcome"]
    for test in ("test_passes", "test_fails"):
        assert {"perf_rtm_ns", "perf_rtm_ns_low", "perf_throughput_rps"} <= set(names[test])
        assert len(names[test]) == len(set(names[test]))
