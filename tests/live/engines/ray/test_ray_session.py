"""A session with a driver process that stands for Ray's: values, errors, deaths and ends."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support import ROOT
from support.fake_ray import cluster_facts
from support.fault_run import await_true

from pytest_mlpatterns.engines.ray import session as session_module
from pytest_mlpatterns.engines.ray.messages import RayJob
from pytest_mlpatterns.engines.ray.session import RaySession
from pytest_mlpatterns.errors import ChildError, DeploymentError, SettingError
from pytest_mlpatterns.system import orphans

pytestmark = [pytest.mark.processes, pytest.mark.covered_processes]
HERE = "support.ray_drivers"
PATIENT_S = 60.0


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RaySession]]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT)]))
    made: list[RaySession] = []

    def make(**changes: object) -> RaySession:
        job = RayJob(**{"source": "RAY_ADDRESS", **changes})  # type: ignore[arg-type]
        made.append(RaySession(job, tmp_path / f"driver-{len(made)}.log", HERE))
        return made[-1]

    yield make
    for session in made:
        session.close()


def test_a_session_starts_on_first_use_and_returns_what_a_function_in_the_driver_returns(
    connect: Callable[..., RaySession], tmp_path: Path
) -> None:
    left = tmp_path / "left"
    session = connect(runtime_env={"left": str(left)})
    assert not session.has_begun
    assert session.notes == ()
    assert session.log_tail() == ""
    assert session.call(f"{HERE}:add", 2, 3, timeout_s=PATIENT_S) == 5
    assert session.has_begun
    assert session.cluster == cluster_facts(3)
    assert session.notes == ("a note",)
    session.begin()  # runs already
    assert not left.exists()
    session.close()
    session.close()
    assert left.read_text(encoding="ascii") == "left"
    with pytest.raises(ChildError, match="the Ray driver, process"):
        session.call(f"{HERE}:add", 2, 3)


def test_our_errors_are_raised_as_they_are_and_others_with_their_traceback(connect: Callable[..., RaySession]) -> None:
    session = connect()
    with pytest.raises(DeploymentError, match="it is full"):
        session.call(f"{HERE}:refuse", timeout_s=PATIENT_S)
    with pytest.raises(ChildError, match="ZeroDivisionError"):
        session.call(f"{HERE}:divide", 1, timeout_s=PATIENT_S)
    with pytest.raises(ChildError, match="pickle"):
        session.call(f"{HERE}:unsendable", timeout_s=PATIENT_S)
    with pytest.raises(ChildError, match="no_such_function"):
        session.call(f"{HERE}:no_such_function", timeout_s=PATIENT_S)


def test_a_call_that_waits_does_not_hold_up_another_one(connect: Callable[..., RaySession], tmp_path: Path) -> None:
    session, file, found = connect(), tmp_path / "go", []
    _ = session.cluster
    waiting = threading.Thread(target=lambda: found.append(session.call(f"{HERE}:wait_for", str(file), timeout_s=60)))
    waiting.start()
    with pytest.raises(TimeoutError, match=r"wait_for gave no result within 0\.01 s"):
        session.call(f"{HERE}:wait_for", str(tmp_path / "later"), timeout_s=0.01)
    assert session.call(f"{HERE}:add", 1, 1, timeout_s=PATIENT_S) == 2
    assert not found
    file.touch()
    waiting.join(PATIENT_S)
    assert found == [str(file)]
    (tmp_path / "later").touch()  # its answer comes too late
    assert session.call(f"{HERE}:add", 1, 1, timeout_s=PATIENT_S) == 2


def test_every_waiting_call_hears_of_the_end_of_the_driver(connect: Callable[..., RaySession], tmp_path: Path) -> None:
    session, errors = connect(), []
    _ = session.cluster

    def wait() -> None:
        with pytest.raises(ChildError) as caught:
            session.call(f"{HERE}:wait_for", str(tmp_path / "never"), timeout_s=PATIENT_S)
        errors.append(str(caught.value))

    waiting = threading.Thread(target=wait)
    waiting.start()
    with pytest.raises(ChildError, match=r"the Ray driver, process \d+ ended with signal SIGKILL"):
        session.call(f"{HERE}:end", timeout_s=PATIENT_S)
    waiting.join(PATIENT_S)
    assert len(errors) == 1
    with pytest.raises(ChildError, match="SIGKILL"):
        session.call(f"{HERE}:add", 1, 1)


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("refuse:1", SettingError, "RAY_ADDRESS=refuse:1: no"),
        ("break:1", DeploymentError, "RAY_ADDRESS=break:1: Ray did not connect:\n(?s:.*)OSError: the disk is full"),
        ("end:1", DeploymentError, "RAY_ADDRESS=end:1: Ray did not connect: the Ray driver, process .*SIGKILL"),
    ],
)
def test_a_connection_that_fails_says_why_each_time(
    connect: Callable[..., RaySession], address: str, error: type[Exception], text: str
) -> None:
    session = connect(address=address)
    for _ in range(2):
        with pytest.raises(error, match=text):
            _ = session.cluster
    assert session.notes == ()


def test_a_late_driver_is_ended(connect: Callable[..., RaySession], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_START_S", 0.0)
    session = connect(runtime_env={"never": True})
    session.begin()
    with pytest.raises(DeploymentError, match="Ray did not start within 0s; it printed last:"):
        _ = session.cluster
    with pytest.raises(DeploymentError, match="Ray did not start within 0s"):
        session.call(f"{HERE}:add", 1, 1)


def test_a_session_that_is_closed_starts_nothing(connect: Callable[..., RaySession]) -> None:
    session = connect()
    session.close()
    with pytest.raises(DeploymentError, match="has been left already"):
        _ = session.cluster
    assert not session.has_begun


def test_the_driver_leaves_in_good_order_when_its_parent_is_killed(tmp_path: Path) -> None:
    left, started = tmp_path / "left", tmp_path / "pid"
    script = f"""
import os, signal, pathlib
from pytest_mlpatterns.engines.ray.messages import RayJob
from pytest_mlpatterns.engines.ray.session import RaySession
session = RaySession(RayJob(runtime_env={{"left": {str(left)!r}}}), pathlib.Path({str(tmp_path / "log")!r}), {HERE!r})
session.cluster
pathlib.Path({str(started)!r}).write_text(str(session._child.pid))
os.kill(os.getpid(), signal.SIGKILL)
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    subprocess.run([sys.executable, "-c", script], env=environ, check=False, timeout=PATIENT_S)
    pid = int(started.read_text(encoding="ascii"))
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.wait_procs([psutil.Process(pid)], PATIENT_S)
    assert left.read_text(encoding="ascii") == "left"


def test_a_driver_whose_parent_is_killed_while_it_connects_ends_at_once_with_its_processes_and_files(
    tmp_path: Path,
) -> None:
    script = f"""
import pathlib
from pytest_mlpatterns.engines.ray.messages import RayJob
from pytest_mlpatterns.engines.ray.session import RaySession
here = pathlib.Path({str(tmp_path)!r})
job = RayJob(runtime_env={{"never": str(here / "child")}}, temporary=here)
RaySession(job, here / "log", {HERE!r}).cluster
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    child = tmp_path / "child"
    with subprocess.Popen([sys.executable, "-c", script], env=environ) as parent:
        await_true(child.exists, PATIENT_S, "the child does not run")
        (directory,) = tmp_path.glob("mlp-*")
        assert directory.stat().st_mode & 0o777 == 0o700
        left = [psutil.Process(int(child.read_text(encoding="ascii")))]
        left += psutil.Process(parent.pid).children()
        parent.kill()
    await_true(lambda: not directory.exists() and not orphans.alive(left), PATIENT_S, "something is left")
