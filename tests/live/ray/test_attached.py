"""A cluster that others use too: a run leaves nothing of its own there, however it ends, and touches nothing else."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Any

import conftest
import httpx
import psutil
import pytest
from conftest import PATIENT_S, wait_until
from support.nightly import rarer
from support.on_cluster import FOREIGN
from support.project import Project

from pytest_mlpatterns.engines.ray.session import base_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import ThreeNodes
    from support.project import Run

    from pytest_mlpatterns.engines.ray.session import RaySession

HERE = "support.on_cluster"
SHORT = Project().with_tests("def test_rtm(perf):\n    perf.assert_rtm_below('60s')")


def test_an_address_where_nothing_listens(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        run = SHORT.run_apart(tmp_path, "--perf-engine=ray", f"--perf-ray-address={address}")
    assert run.outcomes == {"failed": 1}
    assert f"SettingError: --perf-ray-address={address}: nothing answers there within 5s (" in run.failure("test_rtm")
    assert "start Ray there (ray start --head), or leave it out for a Ray of this run's own" in run.out


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


def test_serve_on_several_nodes_listens_on_all_interfaces_and_the_run_says_so(on_cluster: RaySession) -> None:
    host, port = on_cluster.cluster.http
    assert host == ""
    assert on_cluster.notes == (
        "Ray Serve was started on the 3 nodes of the cluster; its HTTP proxies listen on all interfaces of each node, "
        f"port {port}, ask for no token, and go on after this run; `serve shutdown` ends them",
    )
    assert listeners(port) == {"0.0.0.0"}


def test_serve_on_a_single_node_listens_for_its_machine_only(on_cluster: RaySession) -> None:
    port, options, notes = on_cluster.call(f"{HERE}:start_serve_on_a_single_node", timeout_s=PATIENT_S)
    assert options == {"host": "127.0.0.1", "port": port}
    assert notes == ()


def listeners(port: int) -> set[str]:
    """The addresses of this machine on which Ray Serve listens with this port."""
    of_serve = [process for process in map(process_of, psutil.pids()) if process is not None]
    return {
        one.laddr.ip.removeprefix("::ffff:")
        for process in of_serve
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port
    }


def process_of(pid: int) -> psutil.Process | None:
    """A process if it is a proxy of Ray Serve."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.name().startswith("ray::ProxyActor"):
            return process
    return None


@pytest.fixture
def long_run(three_nodes: ThreeNodes, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run on the three nodes, while its load runs."""
    options = ("--perf-engine=ray", "--perf-generators-on=local", f"--perf-ray-address={three_nodes.address}")
    with conftest.long_run(tmp_path, tmp_path / "called", *options, environment={"RAY_AUTH_MODE": "disabled"}) as run:
        yield run


@pytest.mark.parametrize("how", [signal.SIGKILL, *rarer(signal.SIGINT)], ids=["killed", "ctrl-c"])
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


def test_a_run_removes_what_a_killed_one_left_and_what_is_its_own_and_leaves_the_rest(
    applications: Callable[[], dict[str, str]],
    on_cluster: RaySession,
    run_on: Callable[..., Run],
    *,
    long_run: subprocess.Popen[bytes],
) -> None:
    (left,) = ours(applications())
    run = base_of(left)
    assert run in on_cluster.call(f"{HERE}:actors", timeout_s=PATIENT_S)
    family: list[Any] = [psutil.Process(long_run.pid), *psutil.Process(long_run.pid).children(recursive=True)]
    for process in family:  # the driver among them, before it can notice
        process.suspend()
    for process in family:
        process.kill()
    long_run.wait(PATIENT_S)
    wait_until(lambda: run not in on_cluster.call(f"{HERE}:actors", timeout_s=PATIENT_S))
    assert ours(applications()) == {left}
    next_run = run_on(SHORT, "--perf-generators-on=local")
    assert next_run.outcomes == {"passed": 1}
    assert "note: 1 application of a run that began " in next_run.out
    assert " ago and was killed was removed from the Ray cluster" in next_run.out
    assert applications() == {FOREIGN: "RUNNING"}
    assert still_here(on_cluster) == "still here"
    wait_until(lambda: on_cluster.call(f"{HERE}:actors", timeout_s=PATIENT_S) == [on_cluster.cluster.run])
