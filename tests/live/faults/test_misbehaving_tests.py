"""Tests that change the process they run in, or fail where tests seldom do: the result stands, and nothing is left."""

from pathlib import Path

import pytest
from support.fault_run import run_fault, run_fault_here
from support.nightly import rarer
from support.project import Project

pytestmark = pytest.mark.processes

RARE = pytest.mark.nightly
TEST = """
import os, signal, subprocess, sys, tempfile, threading

def test_it(perf):
    {before}
    perf.assert_rtm_below("60s")
    {after}
"""
TEARDOWN = """
@pytest.fixture
def broken():
    yield
    {fault}

def test_it(perf, broken):
    perf.assert_rtm_below("60s")

def test_after(perf):
    perf.assert_rtm_below("60s")
"""


@pytest.mark.parametrize(
    "statement",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        pytest.param("os.chdir('/'), os.umask(0)", marks=RARE),
        pytest.param("os.fork() or os._exit(0)", marks=RARE),
        "os.environ.clear()",
        pytest.param("signal.signal(signal.SIGINT, signal.SIG_IGN)", marks=RARE),
        pytest.param("signal.signal(signal.SIGPIPE, signal.SIG_DFL)", marks=RARE),
        pytest.param("os.close(0)", marks=RARE),
        pytest.param("sys.path.clear()", marks=RARE),
        pytest.param("sys.setrecursionlimit(150)", marks=RARE),
        pytest.param("threading.Thread(target=threading.Event().wait, daemon=True).start()", marks=RARE),
        pytest.param("subprocess.Popen([sys.executable, '-S', '-c', 'pass'])", marks=RARE),
    ],
)
def test_a_test_that_changes_its_process_is_measured(tmp_path: Path, statement: str) -> None:
    project = Project().with_tests(TEST.format(before=statement, after="pass"))
    run_fault(project, tmp_path).assert_ended({"passed": 1})


@pytest.mark.parametrize("fault", ["pytest.fail('no teardown')", *rarer("raise ValueError('no teardown')")])
def test_a_teardown_that_fails_keeps_the_result(tmp_path: Path, fault: str) -> None:
    run = run_fault_here(Project().with_tests(TEARDOWN.format(fault=fault)), tmp_path)
    run.assert_ended({"passed": 2, "errors": 1}, "no teardown")
    assert run.run.table["test_after"] == "pass"


@pytest.mark.parametrize(
    "statement", ["assert not 'after it'", *rarer("raise ValueError('after it')", "pytest.fail('after it')")]
)
def test_a_body_that_ends_after_its_measurement_shows_it(tmp_path: Path, statement: str) -> None:
    run = run_fault_here(Project().with_tests(TEST.format(before="pass", after=statement)), tmp_path)
    run.assert_left_nothing()
    assert run.outcomes == {"failed": 1}
    assert "after it" in run.text
