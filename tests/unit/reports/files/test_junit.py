"""Properties of a JUnit report: every metric with its unit and interval, serial and over workers."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from support.each_row import each_row
from support.project import APART, Project
from support.synthetic import SETUP, result, verdict

from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.files.ci_reports import properties_of


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
