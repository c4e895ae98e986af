"""The kind of each test in every report, and the gate that only warns, through the real plugin."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from support.project import Project, Run

from pytest_mlpatterns.cli import main

pytestmark = pytest.mark.processes

BODY = """
def test_passes(perf):
    perf.assert_rtm_below("10s")

def test_misses_limits(perf):
    perf.assert_rtm_below("1ns")
    perf.assert_asl_below(0.0001)
    print("the body went on")

@pytest.mark.perf(inconclusive="fail")
def test_is_open(perf):
    perf.assert_rtm_below(f"{perf.metrics.rtm_ns.value:.0f}ns")

def test_is_new(perf):
    pass

@pytest.mark.perf(gate="fail")
def test_expects_a_failure(perf):
    with pytest.raises(AssertionError):
        perf.assert_rtm_below("1ns")

def test_misses_a_limit_in_a_subtest(perf, subtests):
    with subtests.test("speed"):
        perf.assert_rtm_below("1ns")

@pytest.mark.skip
def test_is_skipped(perf):
    pass

def test_skips_itself(perf):
    perf.assert_rtm_below("10s")
    pytest.skip("not here")

@pytest.mark.xfail(reason="slow", strict=True)
def test_is_expected_to_fail(perf):
    perf.assert_rtm_below("1ns")

@pytest.fixture
def broken():
    raise OSError("no disk")

@pytest.fixture
def broken_end():
    yield
    raise OSError("no end")

def test_error_at_set_up(perf, broken):
    pass

def test_error_in_body(perf):
    raise KeyError("x")

def test_error_after_a_missed_limit(perf):
    perf.assert_rtm_below("1ns")
    assert 1 == 2

def test_error_in_subtest(perf, subtests):
    perf.assert_rtm_below("10s")
    with subtests.test("answers"):
        assert perf.predict(1) == 3

def test_error_at_the_end(perf, broken_end):
    perf.assert_rtm_below("10s")

@pytest.mark.perf(payload=[])
def test_error_in_settings(perf):
    pass
"""
PROJECT = Project().with_tests(BODY)
CALM = {
    "test_passes": "passed",
    "test_misses_limits": "limit",
    "test_is_open": "undecided",
    "test_is_new": "not_compared",
    "test_expects_a_failure": "passed",
    "test_misses_a_limit_in_a_subtest": "limit",
}
ERRORS = {
    "test_error_at_set_up": "test_error",
    "test_error_in_body": "test_error",
    "test_error_after_a_missed_limit": "test_error",
    "test_error_in_subtest": "test_error",
    "test_error_at_the_end": "test_error",
    "test_error_in_settings": "invalid",
}
WITHOUT_A_KIND = ("test_is_skipped", "test_skips_itself", "test_is_expected_to_fail")
FILES = ("--perf-json=results.json", "--junit-xml=junit.xml")
STOPPED = {**CALM, **ERRORS, "test_error_after_a_missed_limit": "limit"}
"""With a gate that fails, no statement after the failure runs."""


def kinds_in_json(run: Run) -> dict[str, str]:
    data = run.json("results.json")
    tests: list[dict[str, Any]] = [*data["results"], *data["unmeasured"]]
    found = {one["test"].partition("::")[2]: one["kind"] for one in tests}
    assert len(found) == len(tests)
    return found


def kinds_in_junit(directory: Path) -> dict[str, str]:
    found = {}
    for case in ET.parse(directory / "junit.xml").iter("testcase"):
        values = [one.get("value") for one in case.iter("property") if one.get("name") == "perf_kind"]
        assert len(values) == (case.get("name") not in WITHOUT_A_KIND)
        found |= {str(case.get("name")): str(value) for value in values}
    return found


def commands_of_github(run: Run) -> dict[str, str]:
    lines = [line for line in run.out.splitlines() if line.startswith("::")]
    return {line.partition("title=test_perf.py%3A%3A")[2].partition("::")[0]: line.split()[0] for line in lines}


def test_every_report_has_one_kind_of_each_test(tmp_path: Path) -> None:
    github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    run = PROJECT.run(tmp_path, *FILES, environment=github)
    headline = "3 missed limits, 4 broken tests, 1 invalid test, 1 undecided, 1 not compared, 2 passed"
    assert run.exit_code == 1
    assert kinds_in_json(run) == STOPPED
    assert kinds_in_junit(tmp_path) == STOPPED
    assert run.section("performance").split("\n::")[0].splitlines()[-1].startswith(f"performance: {headline}")
    assert (tmp_path / "summary.md").read_text(encoding="utf-8").startswith(f"### Performance: {headline}\n")
    assert main(["verdict", str(tmp_path / "results.json")]) == 1
    assert {*commands_of_github(run).values()} == {"::error"}


def test_a_gate_that_warns_lets_verdicts_pass_and_no_error(tmp_path: Path) -> None:
    github = {"GITHUB_ACTIONS": "true"}
    run = PROJECT.run(tmp_path, *FILES, "--perf-gate=warn", "-Werror", "-n1", environment=github)
    assert run.exit_code == 1
    assert kinds_in_json(run) == CALM | ERRORS
    assert kinds_in_junit(tmp_path) == CALM | ERRORS
    cases = ET.parse(tmp_path / "junit.xml").iter("testcase")
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert failed == {*ERRORS} - {"test_error_at_set_up", "test_error_at_the_end"}
    levels = commands_of_github(run)
    assert {name for name, level in levels.items() if level == "::error"} == {*ERRORS}
    advised = {"test_misses_limits", "test_is_open", "test_misses_a_limit_in_a_subtest"}
    assert {name for name, level in levels.items() if level == "::warning"} == advised
    headline = "2 missed limits, 5 broken tests, 1 invalid test, 1 undecided, 1 not compared, 2 passed"
    busy = r"(; the machine was busy .*)?"
    assert re.search(rf"{headline}{busy}; 3 tests would fail with --perf-gate fail", run.section("performance"))
    assert "3 would fail" in run.out.splitlines()[-1]


def test_a_run_with_nothing_but_verdicts_passes_and_is_neither_rerun_nor_failed(tmp_path: Path) -> None:
    project = PROJECT.with_ini(perf_gate="warn")
    select = ("-k", "not error and not expects and not skip", "-v", "-ppytest_rerunfailures", "--reruns=1")
    run = project.run(tmp_path, *FILES, "--perf-baseline=require", *select)
    assert run.exit_code == 0
    assert "rerun" not in run.out.splitlines()[-1]
    assert run.outcomes["xfailed"] == 1
    assert "(require); a failing verdict fails no test (gate warn)" in run.out
    assert re.search("test_misses_limits MISSED LIMIT +\\[", run.out)
    assert re.search("test_passes NOT COMPARED +\\[", run.out)
    shown = (
        run.section("performance")
        .partition("\ntest_perf.py::test_misses_limits\n  median latency ")[2]
        .split("\n\n")[0]
    )
    assert "is not below 1.00 ns\n" in shown
    assert shown.count("  measured  ") == 1
    assert "\n  CPU share (ASL) " in shown
    assert main(["verdict", str(tmp_path / "results.json")]) == 2
    assert not (tmp_path / ".pytest_cache/v/cache/lastfailed").exists()
