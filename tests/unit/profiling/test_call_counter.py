"""Calls of Python functions: counted in a process and in what it forks, read while it runs, and named."""

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_mlpatterns.profiling import call_counter
from pytest_mlpatterns.profiling.call_counter import CallCounter
from pytest_mlpatterns.profiling.frame_names import SourceNames
from pytest_mlpatterns.profiling.python_calls import PythonCalls

SERVICE = """
import os, sys, threading

class Shop:
    def find(self):
        return part()

def part():
    return 1

for _ in range(3):
    Shop().find()
thread = threading.Thread(target=part)
thread.start()
thread.join()
if os.fork() == 0:
    part()
    os._exit(0)
os.wait()
print("ready", flush=True)
sys.stdin.read()
"""


def test_files_hold_names_and_counts(tmp_path: Path) -> None:
    counter = CallCounter(str(tmp_path))
    calls = PythonCalls(tmp_path, SourceNames(Path(__file__).parent))
    for _ in range(5):
        counter.on_call(test_files_hold_names_and_counts.__code__)
    counter.on_event(sys._getframe(), "return", None)
    counter.on_event(sys._getframe(), "call", None)
    name = ("test_call_counter.py", "test_files_hold_names_and_counts")
    assert calls.read(0.0).functions == {name: 6}
    counter.on_call(test_files_hold_names_and_counts.__code__)
    assert calls.read(0.0).functions == {name: 1}
    assert calls.read(0.0).total == 0


def test_calls_inside_a_function_are_not_its_own(tmp_path: Path) -> None:
    def total(numbers: list[int]) -> object:
        return (number for number in numbers)

    counter = CallCounter(str(tmp_path))
    for code in (total.__code__, total([]).gi_code, total([]).gi_code):  # type: ignore[attr-defined]
        counter.on_call(code)
    found = PythonCalls(tmp_path, SourceNames(Path(__file__).parent)).read(0.0).functions
    assert found == {("test_call_counter.py", "total"): 1, ("test_call_counter.py", "<genexpr> in total"): 2}


def test_functions_of_this_package_are_those_of_a_library(tmp_path: Path) -> None:
    CallCounter(str(tmp_path)).on_call(CallCounter.pause.__code__)
    found = PythonCalls(tmp_path, SourceNames(tmp_path)).read(0.0).functions
    assert found == {("pytest_mlpatterns", "all functions"): 1}


def test_more_functions_than_places_share_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_counter, "MOST", 2)
    counter = CallCounter(str(tmp_path))
    for number in range(4):
        counter.on_call(compile("", f"file{number}", "exec"))
    assert PythonCalls(tmp_path, SourceNames(tmp_path)).read(0.0).total == 4


@pytest.mark.processes
def test_a_process_and_its_forks_are_counted_without_a_thread(tmp_path: Path) -> None:
    (tmp_path / "counts").mkdir()
    (tmp_path / "service.py").write_text(SERVICE)
    calls = PythonCalls(tmp_path / "counts", SourceNames(tmp_path))
    env = calls.under.environment({"PYTHONPATH": "/elsewhere"})
    assert env == {"PYTHONPATH": f"{tmp_path}/counts:/elsewhere"}
    words = [sys.executable, str(tmp_path / "service.py")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = calls.read(0.0).functions
        assert found["service.py", "Shop.find"] == 3
        assert found["service.py", "part"] == 5
        assert found["threading", "all functions"] > 0
        process.communicate()
