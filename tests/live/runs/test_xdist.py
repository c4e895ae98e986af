"""Distributed runs end with what a serial run gives: one table, one file, the same failures."""

from pathlib import Path

import pytest
from support.project import Project

pytestmark = pytest.mark.processes

TESTS = """
from pytest_mlpatterns import Replicated

@pytest.mark.perf(pattern=[Replicated()])
def test_patterns(perf):
    perf.assert_rtm_below("60s")

def test_fails(perf):
    perf.assert_rtm_below("1ns")

def test_plain():
    pass
"""


def test_the_controller_shows_every_result_once(tmp_path: Path) -> None:
    run = Project().with_tests(TESTS).run(tmp_path, "-W", "ignore", "--perf-json", "out.json", "-n", "2")
    assert run.outcomes == {"passed": 2, "failed": 1}
    assert run.table == {"test_patterns": "pass", "test_fails": "FAIL"}
    assert run.out.count(" performance ---") == 1
    assert sorted(result["test"] for result in run.json("out.json")["results"]) == [
        "test_perf.py::test_fails",
        "test_perf.py::test_patterns[replicated]",
    ]
    assert run.err == ""
