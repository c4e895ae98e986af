"""Models of the user's own that raise, answer wrongly, end their process or break it: what the test says of each."""

from pathlib import Path

import pytest
from support.fault_run import FaultRun, run_fault_here
from support.nightly import rarer
from support.project import Project

pytestmark = pytest.mark.processes

RARE = pytest.mark.nightly
TEST = """
import pytest

@pytest.fixture
def perf_model():
    return "served:model"

@pytest.mark.perf(payload=[1, 2, 3], duration="200ms", warmup="0s", launches=1, concurrency=4, {settings})
def test_it(perf):
    perf.assert_rtm_below("60s")
"""
CALLED = """
import ctypes, functools, itertools, math, os, resource, signal, subprocess, sys, threading, time

count = itertools.count(1)

def endless():
    return endless()

def model(batch):
    return {fault} if next(count) >= {first} else [2 * value for value in batch]
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


def called(fault: str, first: int = 5) -> str:
    """A model whose value is another from a call on."""
    return CALLED.format(fault=fault, first=first)


def at_call(statement: str, number: int = 5) -> str:
    """A model that executes a statement at the call with this number, and answers rightly."""
    return BODY.format(fault=f"if number == {number}:\n        {statement}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(
            "int('x')", "the model raised ValueError: invalid literal for int() with base 10: 'x'", marks=RARE
        ),
        ("[1, 2]", "the model returned 2 outputs for 1 input; it must return one for each"),
        pytest.param(
            "[object() for _ in batch]",
            "the model returned outputs that cannot be sent: Type is not JSON serializable",
            marks=RARE,
        ),
        pytest.param(
            "[10**5000 for _ in batch]",
            "the model returned outputs that cannot be sent: Integer exceeds 64-bit range",
            marks=RARE,
        ),
        ("[math.nan for _ in batch]", "output 0 has NaN, which JSON cannot carry"),
        pytest.param(
            "[(lambda x: (x.append(x), x)[1])([])]",
            "the model returned outputs that cannot be sent: Recursion limit",
            marks=RARE,
        ),
        pytest.param("['\\ud800']", "outputs that cannot be sent: str is not valid UTF-8", marks=RARE),
        pytest.param("[functools.reduce(lambda a, _: [a], range(5000), 1)]", "Recursion limit reached", marks=RARE),
        pytest.param("[b'x' for _ in batch]", "Type is not JSON serializable: bytes", marks=RARE),
    ],
)
def test_a_first_answer_that_is_no_list_of_outputs_is_described(tmp_path: Path, value: str, message: str) -> None:
    """Everything else that a model may return: tests/unit/patterns/test_layer.py."""
    run(tmp_path, called(value, first=1)).assert_ended(FAILED, "failed on its first inference", message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("int('x')", "ValueError: invalid literal for int() with base 10: 'x'"),
        pytest.param("bytearray(10**15)", "MemoryError", marks=RARE),
        pytest.param("endless()", "RecursionError: maximum recursion depth exceeded", marks=RARE),
        pytest.param("next(iter(()))", "StopIteration", marks=RARE),
        pytest.param("sys.exit(3)", "SystemExit: 3", marks=RARE),
        pytest.param("(_ for _ in ()).throw(KeyboardInterrupt)", "(500: ", marks=RARE),
    ],
)
def test_a_model_that_fails_under_load_fails_the_test(tmp_path: Path, value: str, message: str) -> None:
    run(tmp_path, called(value)).assert_ended(FAILED, "InvalidResultError", "(500: ", message)


@pytest.mark.parametrize(
    ("statement", "end"),
    [
        pytest.param("os._exit(3)", "exit code 3", marks=RARE),
        pytest.param("os._exit(0)", "exit code 0", marks=RARE),
        ("ctypes.string_at(0)", "signal SIGSEGV"),
        ("os.kill(os.getpid(), 9)", "signal SIGKILL"),
        pytest.param("os.closerange(3, 1000)", "ended with ", marks=RARE),
        pytest.param("os.abort()", "signal SIGABRT", marks=RARE),
        pytest.param("os.kill(os.getpid(), 15)", "signal SIGTERM", marks=RARE),
        pytest.param("os.killpg(0, 9)", "signal SIGKILL", marks=RARE),
    ],
)
def test_a_model_that_ends_its_process_is_named_with_its_end(tmp_path: Path, statement: str, end: str) -> None:
    run(tmp_path, at_call(statement)).assert_ended(FAILED, "DeploymentError: service: process ", end)


def test_a_model_that_holds_the_gil_is_asked_about(tmp_path: Path) -> None:
    model = at_call("ctypes.PyDLL(None).sleep(600)")
    run(tmp_path, model).assert_ended(FAILED, "does not respond; does the model hold the GIL?")


SLEEPS = "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)']{more})"


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("[print('x' * 1000) for _ in range(10_000)]", marks=RARE),
        pytest.param("os.close(1); os.close(2)", marks=RARE),
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')",
        pytest.param("threading.Thread(target=time.sleep, args=(600,)).start()", marks=RARE),
        pytest.param(SLEEPS.format(more=""), marks=RARE),
        SLEEPS.format(more=", start_new_session=True"),
        pytest.param("sys.stdin.read()", marks=RARE),
        pytest.param("signal.signal(signal.SIGTERM, signal.SIG_IGN) if number == 0 else None", marks=RARE),
        pytest.param("os.fork() or time.sleep(600)", marks=RARE),
        pytest.param("os.environ.clear()", marks=RARE),
        pytest.param("sys.stdout = sys.stderr = None", marks=RARE),
    ],
)
def test_a_model_that_breaks_its_process_but_answers_passes(tmp_path: Path, statement: str) -> None:
    run(tmp_path, at_call(statement, 20)).assert_ended(PASSED)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        pytest.param("raise OSError('no licence')", "OSError: no licence", marks=RARE),
        pytest.param("sys.exit(4)", "SystemExit: 4", marks=RARE),
        ("os._exit(4)", "ended its process while loading: process "),
        ("ctypes.string_at(0)", "ended with signal SIGSEGV"),
        pytest.param("os.kill(os.getpid(), 9)", "ended with signal SIGKILL", marks=RARE),
        pytest.param("raise KeyboardInterrupt", "KeyboardInterrupt", marks=RARE),
        pytest.param("raise GeneratorExit", "GeneratorExit", marks=RARE),
    ],
)
def test_a_model_that_does_not_load_is_named_with_the_reason(tmp_path: Path, statement: str, message: str) -> None:
    run(tmp_path, LOADED.format(fault=statement)).assert_ended(FAILED, "ModelLoadError: perf_model model ", message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("def model(batch)\n", "SyntaxError: expected ':'", marks=RARE),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        pytest.param("x = 1\n", "served has no attribute model", marks=RARE),
        pytest.param("model = 5\n", "is int, which cannot be called with a batch", marks=RARE),
        pytest.param("import sys; sys.exit('bye')\n", "SystemExit: bye", marks=RARE),
        pytest.param("import os; os._exit(3)\n", "exit code 3", marks=RARE),
    ],
)
def test_a_module_that_gives_no_model_is_named_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    run(tmp_path, text).assert_ended(FAILED, "ModelLoadError: perf_model ", message)


@pytest.mark.parametrize(
    "statement", ["ctypes.PyDLL(None).sleep(600)", *rarer("time.sleep(600)")], ids=["GIL", "sleeps"]
)
def test_a_model_that_loads_too_slowly_ends_in_its_start_up_time(tmp_path: Path, statement: str) -> None:
    ended = run(tmp_path, LOADED.format(fault=statement), 'startup_timeout="2s"')
    ended.assert_ended(FAILED, "is still loading after 2.00 s, the start-up time limit")


def test_a_model_that_needs_more_descriptors_than_it_has_passes(tmp_path: Path) -> None:
    run(tmp_path, LOADED.format(fault="resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))")).assert_ended(PASSED)
