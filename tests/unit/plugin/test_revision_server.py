"""What the server of another revision answers for a deployment on Ray, without Ray, and how its daemons end."""

import queue
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.fake_ray import FakeRay
from support.services.processes import survivors
from support.synthetic import SETUP

from pytest_mlpatterns.engines.ray.engine import SharedRay
from pytest_mlpatterns.engines.ray.messages import RayApplication
from pytest_mlpatterns.engines.ray.processes import RayProcesses
from pytest_mlpatterns.engines.ray.settings import RUN_VARIABLE
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.plugin.revision_server import _Server
from pytest_mlpatterns.revision.messages import (
    DeploymentStarted,
    InheritedOptions,
    Question,
    Reason,
    ReferenceJob,
    RevisionFailed,
    RevisionSetup,
    StartDeployment,
)
from pytest_mlpatterns.serving.deployment import Deployment, Traits
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.wire import REST_JSON
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload

APPLICATION = RayApplication("mlpatterns-1764146400-0123abcd-0f0f-1", "mlpatterns-1764146400-0123abcd-0f0f")


def answers_of(directory: Path, deployment: Deployment | None, cluster: FakeRay, *others: object) -> list[Any]:
    """What the server sends if it is asked to start this deployment, to stop it, and then the other side ends."""
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for request in (StartDeployment(), *others, Question.STOP, *others, None):
        requests.put(request)
    sent: list[Any] = []
    job = ReferenceJob("t.py::test", directory, directory / "here", directory / "there", InheritedOptions((), {}, ()))
    server = _Server(SimpleNamespace(send=sent.append), requests, job)  # type: ignore[arg-type]
    shared = SharedRay(cluster)  # type: ignore[arg-type]
    system = SimpleNamespace(start=lambda **_: deployment, options=SimpleNamespace(session=shared))
    plan, settings = SimpleNamespace(payload=read_payload([1], REST_JSON)), SimpleNamespace(accept=())
    server.serve(SimpleNamespace(system=system, setup=SETUP, plan=plan, settings=settings))  # type: ignore[arg-type]
    return sent


def on_ray(cluster: FakeRay) -> Deployment:
    processes = RayProcesses(cluster, APPLICATION)  # type: ignore[arg-type]
    traits = Traits(make_monitor=processes.make_monitor, shared=APPLICATION)
    return Deployment(Endpoint((("127.0.0.1", 8000),), "/v1/models/m:predict"), processes, traits)


def test_a_deployment_on_ray_says_which_application_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "mlpatterns-1764146400-0123abcd")
    cluster = FakeRay({"delete": lambda _: None, "forget": lambda _run, _app: None})
    setup, started, stopped = answers_of(tmp_path, on_ray(cluster), cluster)
    assert cluster.begun
    assert isinstance(setup, RevisionSetup)
    assert isinstance(started, DeploymentStarted)
    assert (started.traits.shared, started.pids) == (APPLICATION, ())
    assert stopped is Question.STOP
    assert ("delete", (APPLICATION.app,)) in cluster.calls


def test_the_revision_attaches_to_no_cluster_of_its_own_before_it_is_asked(tmp_path: Path) -> None:
    cluster = FakeRay()
    deployment = Deployment(Endpoint((("127.0.0.1", 8000),), "/v1/models/m:predict"), ForeignProcesses((4711,)))
    _, started, _ = answers_of(tmp_path, deployment, cluster)
    assert not cluster.begun
    assert (started.traits.shared, started.pids) == (None, (4711,))


def test_a_cluster_that_cannot_be_reached_is_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(FakeRay):
        @property
        def cluster(self) -> Any:
            raise DeploymentError("Ray did not connect")

    monkeypatch.setenv(RUN_VARIABLE, "mlpatterns-1764146400-0123abcd")
    assert answers_of(tmp_path, None, Unreachable()) == [RevisionFailed(Reason.FAILED, "Ray did not connect")]


HIDING = """
import os

if not os.fork():
    os.setsid()
    if not os.fork():
        open("daemon", "w").write(str(os.getpid()))
        os.execve("/bin/sleep", ["sleep", "300"], {})
    os._exit(0)
os.wait()
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="no other system lets a process adopt orphans")
def test_a_daemon_of_a_conftest_that_drops_every_trace_ends_with_the_server(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(HIDING, encoding="utf-8")
    child = Child("pytest_mlpatterns.plugin.revision_server", log=tmp_path / "log")
    inherited = InheritedOptions((), {}, tuple(sys.path))
    child.send(ReferenceJob("test_a.py::test_a", tmp_path, tmp_path / "here", tmp_path, inherited))
    answer = child.receive(60)
    child.stop()
    assert answer.reason is Reason.ABSENT
    assert survivors([int((tmp_path / "daemon").read_text(encoding="utf-8"))], 0) == set()
