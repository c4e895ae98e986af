"""A process that was stopped is found, with those below it."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from support.fault_run import await_true

from pytest_mlpatterns.system.process_tree import describe_stopped


def test_this_process_and_one_that_is_gone_are_not_stopped() -> None:
    assert describe_stopped([os.getpid(), 2**22 + 1]) == ""


@pytest.mark.processes
def test_a_stopped_process_is_named_and_found_below_its_parent() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        child.send_signal(signal.SIGSTOP)
        process = psutil.Process(child.pid)
        await_true(lambda: process.status() == psutil.STATUS_STOPPED, 10, "it does not stop")
        expected = f"process {child.pid} ({process.name()}) is stopped (SIGSTOP)"
        assert describe_stopped([child.pid]) == expected
        assert describe_stopped([os.getpid()]) == expected
        child.send_signal(signal.SIGCONT)
        await_true(lambda: describe_stopped([child.pid]) == "", 10, "it does not go on")
    finally:
        child.kill()
        child.communicate()
