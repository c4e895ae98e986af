"""Models of the user's own that raise, answer wrongly, end their process or break it: what the test says of each."""

from pathlib import Path

import pytest
from support.fault_run import FaultRun, run_fault_here
from support.nightly import rarer
from support.project import Project

pytestmark = pytest.mark.processes

TEST = """
import pytest

@pytest.mark.perf(model="served:model", payload=[1, 2, 3], concurrency=4)
@pytest.mark.perf(duration="200ms", warmup="0s", launches=1, {settings})
def test_it(perf):
    perf.assert_rtm_below("60s")
"""
CALLED = """
import itertools, sys

count = itertools.count(1)

def endless():
    return endless()

def model(batch):
    return {fault} if next(count) >= 5 else [2 * value for value in batch]
"""
LOADED = """
import ctypes, os, resource, signal, subprocess, sys, threading, time

class Model:
    def __init__(self):
        {fault}

    def __call__(self, batch):
        return [2 * value for value in batch]

model = Model
"""
BODY = """
import ctypes, itertools, os, signal, subprocess, sys, threading, time

count = itertools.count(1)

def model(batch):
    number = next(count)
    {fault}
    return [2 * value for value in batch]
"""
PASSED, FAILED = {"passed": 1}, {"failed": 1}


def run(directory: Path, model: str, settings: str = "") -> FaultRun:
    files = Project().with_file("served.py", model).with_file("test_it.py", TEST.format(settings=settings))
    return run_fault_here(files, directory)


def at_call(statement: str, number: int = 5) -> str:
    """A model that executes a statement at the call with this number, and answers rightly."""
    return BODY.format(fault=f"if number == {number}:\n        {statement}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("int('x')", "ValueError: invalid literal for int() with base 10: 'x'"),
        *rarer(("bytearray(10**15)", "MemoryError"), ("endless()", "RecursionError: maximum recursion depth exceeded")),
        *rarer(("next(iter(()))", "StopIteration"), ("sys.exit(3)", "SystemExit: 3")),
        *rarer(("(_ for _ in ()).throw(KeyboardInterrupt)", "(500: ")),
    ],
)
def test_a_model_that_fails_under_load_fails_the_test(tmp_path: Path, value: str, message: str) -> None:
    run(tmp_path, CALLED.format(fault=value)).assert_ended(FAILED, "InvalidResultError", "(500: ", message)


@pytest.mark.parametrize(
    ("statement", "end"),
    [
        ("ctypes.string_at(0)", "signal SIGSEGV"),
        *rarer(("os._exit(3)", "exit code 3"), ("os._exit(0)", "exit code 0"), ("os.abort()", "signal SIGABRT")),
        *rarer(("os.kill(os.getpid(), 9)", "signal SIGKILL"), ("os.kill(os.getpid(), 15)", "signal SIGTERM")),
        *rarer(("os.closerange(3, 1000)", "ended with "), ("os.killpg(0, 9)", "signal SIGKILL")),
    ],
)
def test_a_model_that_ends_its_process_is_named_with_its_end(tmp_path: Path, statement: str, end: str) -> None:
    run(tmp_path, at_call(statement)).assert_ended(FAILED, "DeploymentError: service: process ", end)


@pytest.mark.nightly
def test_a_model_that_holds_the_gil_is_asked_about(tmp_path: Path) -> None:
    model = at_call("ctypes.PyDLL(None).sleep(600)")
    run(tmp_path, model).assert_ended(FAILED, "does not respond; does the model hold the GIL?")


SLEEPS = "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)']{more})"


@pytest.mark.parametrize(
    "statement",
    [
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')",
        SLEEPS.format(more=", start_new_session=True"),
        *rarer("[print('x' * 1000) for _ in range(10_000)]", "os.close(1); os.close(2)", "sys.stdin.read()"),
        *rarer("threading.Thread(target=time.sleep, args=(600,)).start()", SLEEPS.format(more="")),
        *rarer("signal.signal(signal.SIGTERM, signal.SIG_IGN) if number == 0 else None", "os.environ.clear()"),
        *rarer("os.fork() or time.sleep(600)", "sys.stdout = sys.stderr = None"),
    ],
)
def test_a_model_that_breaks_its_process_but_answers_passes(tmp_path: Path, statement: str) -> None:
    run(tmp_path, at_call(statement, 20)).assert_ended(PASSED)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("ctypes.string_at(0)", "ended with signal SIGSEGV"),
        *rarer(("raise OSError('no licence')", "OSError: no licence"), ("sys.exit(4)", "SystemExit: 4")),
        *rarer(("os._exit(4)", "ended its process while loading: process "), ("raise GeneratorExit", "GeneratorExit")),
        *rarer(("os.kill(os.getpid(), 9)", "ended with signal SIGKILL")),
        *rarer(("raise KeyboardInterrupt", "KeyboardInterrupt")),
    ],
)
def test_a_model_that_does_not_load_is_named_with_the_reason(tmp_path: Path, statement: str, message: str) -> None:
    run(tmp_path, LOADED.format(fault=statement)).assert_ended(FAILED, "ModelLoadError: perf_model model ", message)


@pytest.mark.nightly
@pytest.mark.parametrize("statement", ["ctypes.PyDLL(None).sleep(600)", "time.sleep(600)"], ids=["GIL", "sleeps"])
def test_a_model_that_loads_too_slowly_ends_in_its_start_up_time(tmp_path: Path, statement: str) -> None:
    ended = run(tmp_path, LOADED.format(fault=statement), 'startup_timeout="2s"')
    ended.assert_ended(FAILED, "is still loading after 2.00 s, the start-up time limit")


def test_a_model_that_needs_more_descriptors_than_it_has_passes(tmp_path: Path) -> None:
    run(tmp_path, LOADED.format(fault="resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))")).assert_ended(PASSED)
