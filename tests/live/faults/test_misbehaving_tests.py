"""Tests that change the process they run in: the result stands, and nothing is left."""

from pathlib import Path

import pytest
from support.fault_run import run_fault
from support.nightly import rarer
from support.project import Project

pytestmark = pytest.mark.processes

TEST = """
import os, signal, subprocess, sys, tempfile, threading

def test_it(perf):
    {statement}
    perf.assert_rtm_below("60s")
"""


@pytest.mark.parametrize(
    "statement",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "os.environ.clear()",
        *rarer("os.chdir('/'), os.umask(0)", "os.fork() or os._exit(0)", "os.close(0)", "sys.path.clear()"),
        *rarer("signal.signal(signal.SIGINT, signal.SIG_IGN)", "signal.signal(signal.SIGPIPE, signal.SIG_DFL)"),
        *rarer("sys.setrecursionlimit(150)", "subprocess.Popen([sys.executable, '-S', '-c', 'pass'])"),
        *rarer("threading.Thread(target=threading.Event().wait, daemon=True).start()"),
    ],
)
def test_a_test_that_changes_its_process_is_measured(tmp_path: Path, statement: str) -> None:
    run_fault(Project().with_tests(TEST.format(statement=statement)), tmp_path).assert_ended({"passed": 1})
