"""The replicas of an application as one: when it is loaded, what it counted, how it fails, and its end."""

import time
from pathlib import Path
from typing import Any

import pytest
from support.each_row import each_row
from support.fake_ray import FakeRay
from support.nodes import APPLICATION, counted, reading, replica

from pytest_mlpatterns.engines.ray import processes as processes_module
from pytest_mlpatterns.engines.ray.cluster_monitor import ClusterMonitor
from pytest_mlpatterns.engines.ray.messages import NodeReading, ReplicaState
from pytest_mlpatterns.engines.ray.processes import RayProcesses
from pytest_mlpatterns.errors import ChildError, DeploymentError, ModelLoadError
from pytest_mlpatterns.serving.model import StartOptions
from pytest_mlpatterns.serving.processes import Unusable

READY, ENDED, FAILED, LOADING = ReplicaState.READY, ReplicaState.ENDED, ReplicaState.FAILED, ReplicaState.LOADING
OPTIONS = StartOptions(60_000_000_000, None, Path())


class Cluster:
    """A cluster that gives one reading after the other, and the last one again."""

    def __init__(self, *readings: tuple[NodeReading, ...], status: str = "DEPLOYING", log: str = "") -> None:
        self.readings = list(readings)
        self.status = status
        self.log = log
        self.deleted: list[str] = []
        self.forgotten: list[str] = []
        self.session = FakeRay(
            {
                "read": self.read,
                "offsets": lambda run: {},
                "status": lambda app: self.status,
                "log_tail": lambda run, app: self.log,
                "delete": self.deleted.append,
                "forget": lambda run, app: self.forgotten.append(app),
            }
        )

    def read(self, run: str, app: str) -> tuple[NodeReading, ...]:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    def processes(self, **changes: Any) -> RayProcesses:
        session: Any = self.session
        return RayProcesses(session, APPLICATION, **changes)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes_module, "_POLL_S", 0.0)
    monkeypatch.setattr(processes_module, "_STATUS_S", 0.0)


def loaded(made: RayProcesses, *, within_s: float = 60.0) -> None:
    made.await_loaded(time.perf_counter_ns() + round(within_s * 1e9), "iris", OPTIONS)


def both(*states: ReplicaState, **changes: Any) -> tuple[NodeReading, ...]:
    return tuple(
        reading(number, replica(name, state, **changes))
        for number, (name, state) in enumerate(zip("ab", states, strict=False), 1)
    )


def test_a_service_is_loaded_as_soon_as_all_replicas_are_ready() -> None:
    cluster = Cluster((), both(LOADING), both(READY, LOADING), both(READY, READY))
    loaded(cluster.processes())
    assert len(cluster.readings) == 1


def test_a_model_that_cannot_be_built_is_told_as_the_local_engine_does() -> None:
    with pytest.raises(ModelLoadError, match=r"^perf_model iris failed to load:\nTraceback of the user$"):
        loaded(Cluster(both(READY, FAILED, text="Traceback of the user")).processes())
    with pytest.raises(ModelLoadError, match=r"^perf_model has no module on sys\.path \(rootdir \.\); correct"):
        loaded(Cluster(both(FAILED, reason=Unusable("has no module on sys.path", is_absent=True))).processes())


@pytest.mark.parametrize(("log", "printed"), [("", ""), ("a last word", "; it printed last:\na last word")])
def test_a_process_that_ends_while_it_loads_is_told_with_its_output(log: str, printed: str) -> None:
    with pytest.raises(ModelLoadError) as told:
        loaded(Cluster(both(ENDED), log=log).processes())
    where = "process 97 on node 10.0.0.1 ended"
    assert str(told.value) == f"perf_model iris ended its process while loading: {where}{printed}"


def test_a_service_that_is_not_loaded_in_time() -> None:
    cluster = Cluster(both(LOADING, role="stage scale"), log="still reading")
    with pytest.raises(
        DeploymentError, match=r"(?s)^stage scale is still loading after .*printed last:\nstill reading$"
    ):
        loaded(cluster.processes(), within_s=0)
    with pytest.raises(DeploymentError, match=r"^perf_model iris is still loading after"):
        loaded(Cluster(()).processes(), within_s=0)


@pytest.mark.parametrize("log", ["", "no such file"])
def test_what_ray_serve_cannot_start_is_told(log: str) -> None:
    cluster = Cluster((), status="DEPLOY_FAILED; the constructor failed", log=log)
    with pytest.raises(DeploymentError) as told:
        loaded(cluster.processes())
    said = "perf_model iris: Ray Serve could not start it: DEPLOY_FAILED; the constructor failed"
    assert str(told.value) == said + (f"\nIt printed last:\n{log}" if log else "")


def test_statistics_are_those_of_all_nodes() -> None:
    cluster = Cluster(both(READY, READY, stats=counted(4)))
    made = cluster.processes()
    assert made.stats().replica_requests == (4, 4)
    made.stats()
    assert [name for name, _ in cluster.session.calls] == ["read", "offsets", "read", "offsets"]
    assert (made.pids, made.traceback_from_now()()) == ((), "")
    assert isinstance(made.make_monitor(), ClusterMonitor)


def test_a_replica_that_ends_while_it_is_waited_for_is_told() -> None:
    cluster = Cluster(both(READY, READY), both(READY, READY), both(READY, ENDED))
    with pytest.raises(DeploymentError, match=r"^replica 2 of 2|^replica \(process 98"):
        cluster.processes().check(60.0)
    made = Cluster(both(READY, READY)).processes()
    made.check()
    made.check(0.001)


@each_row(
    ("error", "said"),
    (TimeoutError(), "the Ray cluster at 10.0.0.1:6379 no longer answers"),
    (ChildError("process 5 ended"), "the Ray cluster at 10.0.0.1:6379 no longer answers: process 5 ended"),
)
def test_a_cluster_that_does_not_answer_is_told(error: Exception, said: str) -> None:
    cluster = Cluster(())

    def gone(*_: object) -> None:
        raise error

    cluster.session.functions = dict.fromkeys(("read", "log_tail", "status"), gone)
    made = cluster.processes()
    with pytest.raises(DeploymentError) as told:
        made.stats()
    assert str(told.value) == said
    assert made.log_tail() == ""


def test_the_state_in_ray_serve_is_left_to_the_readings_if_it_is_not_known() -> None:
    cluster = Cluster((), (), both(READY, READY))

    def gone(app: str) -> str:
        raise TimeoutError

    cluster.session.functions = {**cluster.session.functions, "status": gone}
    loaded(cluster.processes())


def test_the_end_deletes_the_application_once() -> None:
    cluster = Cluster(())
    made = cluster.processes()
    made.stop()
    made.stop()
    assert (cluster.deleted, cluster.forgotten) == ([APPLICATION.app], [APPLICATION.app])


def test_an_application_of_another_process_is_ended_by_it() -> None:
    cluster, ended = Cluster(()), []
    made = cluster.processes(on_stop=lambda: ended.append(1))
    made.stop()
    made.stop()
    assert (ended, cluster.deleted, cluster.forgotten) == ([1], [], [APPLICATION.app])


def test_an_end_that_takes_too_long_is_told_and_one_of_the_driver_is_not() -> None:
    cluster = Cluster(())

    def slow(app: str) -> None:
        raise TimeoutError

    def gone(app: str) -> None:
        raise ChildError("process 5 ended")

    cluster.session.functions = {"delete": slow}
    with pytest.raises(DeploymentError, match=r"has not deleted the application .*serve\.delete\('mlpatterns-"):
        cluster.processes().stop()
    cluster.session.functions = {"delete": gone}
    cluster.processes().stop()
