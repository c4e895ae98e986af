"""A cluster that others use too: a run leaves nothing of its own there, however it ends, and touches nothing else."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
from conftest import PATIENT_S, wait_until
from support.on_cluster import FOREIGN
from support.project import Project, clean_environment, command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import ThreeNodes
    from support.project import Run

    from pytest_mlpatterns.system.ray.session import RaySession

HERE = "support.on_cluster"
SHORT = Project().with_tests("def test_rtm(perf):\n    perf.assert_rtm_below('60s')")


@pytest.fixture
def applications(on_cluster: RaySession) -> Callable[[], dict[str, str]]:
    """The applications on the cluster, one of which is foreign."""

    def found() -> dict[str, str]:
        return on_cluster.call(f"{HERE}:applications", timeout_s=PATIENT_S)  # type: ignore[no-any-return]

    if FOREIGN not in found():
        on_cluster.call(f"{HERE}:deploy_foreign", timeout_s=PATIENT_S)
    return found


def ours(applications: dict[str, str]) -> set[str]:
    return set(applications) - {FOREIGN}


def still_here(on_cluster: RaySession) -> str:
    _, port = on_cluster.cluster.http
    return httpx.get(f"http://127.0.0.2:{port}/{FOREIGN}", timeout=PATIENT_S, trust_env=False).text


def test_a_run_removes_its_applications_and_leaves_those_of_others(
    applications: Callable[[], dict[str, str]], on_cluster: RaySession, run_on: Callable[..., Run]
) -> None:
    run = run_on(SHORT, "--perf-generators-on=local")

    assert run.outcomes == {"passed": 1}
    assert applications() == {FOREIGN: "RUNNING"}
    assert still_here(on_cluster) == "still here"
    wait_until(lambda: on_cluster.call(f"{HERE}:actors") == [on_cluster.cluster.run])


@pytest.fixture
def long_run(three_nodes: ThreeNodes, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose load takes longer than a test may, from when its model is loaded on."""
    called = tmp_path / "called"
    body = f"""
        from pathlib import Path

        def note(batch):
            Path({str(called)!r}).touch()
            return batch

        @pytest.mark.perf(model=note, duration="10min", warmup="0s", budget="10min", launches=1)
        def test_long(perf):
            perf.assert_rtm_below("60s")
    """
    Project().with_tests(body, marker=None).write(tmp_path)
    options = ("--perf-engine=ray", "--perf-generators-on=local", f"--perf-ray-address={three_nodes.address}")
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            command(*options),
            cwd=tmp_path,
            env={**clean_environment(), "RAY_AUTH_MODE": "disabled"},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    wait_until(lambda: called.exists() or process.poll() is not None)
    assert process.poll() is None, (tmp_path / "out").read_text(encoding="utf-8")
    yield process
    process.kill()  # its children end with it
    process.wait()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_a_run_that_is_ended_from_outside_leaves_nothing(
    how: signal.Signals,
    applications: Callable[[], dict[str, str]],
    on_cluster: RaySession,
    *,
    long_run: subprocess.Popen[bytes],
) -> None:
    assert len(ours(applications())) == 1

    long_run.send_signal(how)
    long_run.wait(PATIENT_S)

    wait_until(lambda: not ours(applications()))
    assert still_here(on_cluster) == "still here"


def test_what_a_run_left_that_could_not_clean_up_the_next_one_removes(
    applications: Callable[[], dict[str, str]],
    on_cluster: RaySession,
    run_on: Callable[..., Run],
    *,
    long_run: subprocess.Popen[bytes],
) -> None:
    (left,) = ours(applications())
    (run,) = {*on_cluster.call(f"{HERE}:actors")} - {on_cluster.cluster.run} - _monitors(on_cluster)
    assert left.startswith(f"{run}-")
    family: list[Any] = [psutil.Process(long_run.pid), *psutil.Process(long_run.pid).children(recursive=True)]
    for process in family:  # the driver among them, before it can notice
        process.suspend()
    for process in family:
        process.kill()
    long_run.wait(PATIENT_S)
    wait_until(lambda: run not in on_cluster.call(f"{HERE}:actors"))
    assert ours(applications()) == {left}

    next_run = run_on(SHORT, "--perf-generators-on=local")

    assert next_run.outcomes == {"passed": 1}
    assert "note: 1 application of a run that began " in next_run.out
    assert " ago and was killed was removed from the Ray cluster" in next_run.out
    assert applications() == {FOREIGN: "RUNNING"}
    assert still_here(on_cluster) == "still here"


def _monitors(on_cluster: RaySession) -> set[str]:
    return {name for name in on_cluster.call(f"{HERE}:actors") if "monitor" in name}
