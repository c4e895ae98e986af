"""What a session shares of its engines: begun, awaited and ended only if a test uses it."""

from pathlib import Path
from typing import Any

import pytest
from support.fake_ray import FakeRay, cluster_facts

from pytest_mlpatterns.config.settings import Settings, read_settings
from pytest_mlpatterns.engines.ray import engine
from pytest_mlpatterns.engines.ray.generator_host import RayPool
from pytest_mlpatterns.engines.ray.messages import RayJob
from pytest_mlpatterns.engines.ray.session import driver_environment
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.loadgen.generator_process import LocalPool
from pytest_mlpatterns.plugin.engine_sessions import EngineSessions, Generators

LOCAL, RAY = read_settings({}, {}, {}), read_settings({"engine": "ray"}, {}, {})
FROM_RAY = read_settings({"generators_on": "ray"}, {}, {})


class Session(FakeRay):
    """A session that knows notes, and may fail."""

    notes: tuple[str, ...] = ()
    error: DeploymentError | None = None

    @property
    def has_begun(self) -> bool:
        return self.begun

    @property
    def cluster(self) -> Any:
        self.begin()
        if self.error is not None:
            raise self.error
        return self.facts


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    made = Session({"alive_nodes": lambda: ()}, facts=cluster_facts(2))
    monkeypatch.setattr(engine, "RaySession", lambda _job, _log: made)
    return made


@pytest.fixture
def engines(tmp_path: Path) -> EngineSessions:
    return EngineSessions({}, {}, root=tmp_path, directory=tmp_path)


def test_a_run_without_ray_has_no_session(session: Session, engines: EngineSessions) -> None:
    engines.begin_for([LOCAL, LOCAL])
    engines.await_ready(LOCAL)
    engines.close()
    assert engines.lines == []
    assert engines.serving(LOCAL, None) is None
    assert engines.cluster_of(LOCAL, None) is None
    assert not session.begun
    assert not session.closed


@pytest.mark.parametrize("settings", [RAY, FROM_RAY])
def test_one_test_that_uses_ray_begins_the_session_and_every_test_awaits_it(
    settings: Settings, session: Session, engines: EngineSessions
) -> None:
    engines.begin_for([LOCAL, settings])
    assert session.begun
    session.notes = ("2 applications were removed",)
    engines.await_ready(LOCAL)
    engines.await_ready(settings)
    engines.close()
    assert engines.lines == ["note: 2 applications were removed"]
    assert engines.cluster_of(settings, None) is not None
    assert session.closed


def test_a_service_of_the_users_own_is_not_served_by_ray(session: Session, engines: EngineSessions) -> None:
    assert engines.serving(RAY, None) is engines.of("ray")
    assert engines.serving(RAY, "http://127.0.0.1:8000") is None


def test_only_a_test_that_uses_ray_fails_if_it_cannot_be_reached(session: Session, engines: EngineSessions) -> None:
    session.error = DeploymentError("it is gone")
    engines.begin_for([RAY])
    engines.await_ready(LOCAL)
    with pytest.raises(DeploymentError, match="it is gone"):
        engines.await_ready(RAY)


def test_generators_are_made_where_tests_ask(session: Session, engines: EngineSessions, tmp_path: Path) -> None:
    generators = Generators(engines, tmp_path)
    assert not generators
    assert isinstance(generators["local"].pool, LocalPool)
    assert isinstance(generators["ray"].pool, RayPool)
    assert generators["ray"] is generators["ray"]
    assert not session.begun


def test_a_ray_of_ones_own_asks_for_a_new_token_and_stays_on_the_loopback_interface() -> None:
    first, second = driver_environment(RayJob()), driver_environment(RayJob(environment={"MORE": "1"}))
    assert first["RAY_AUTH_MODE"] == second["RAY_AUTH_MODE"] == "token"
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]
    assert first["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert second["MORE"] == "1"


@pytest.mark.parametrize(("address", "is_local"), [("127.0.0.1:6379", True), ("10.0.0.1:6379", False), ("auto", False)])
def test_a_cluster_that_exists_keeps_its_own_token(address: str, is_local: bool) -> None:
    found = driver_environment(RayJob(address, "RAY_ADDRESS"))
    assert "RAY_AUTH_TOKEN" not in found
    assert ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" in found) is is_local
    assert found["RAY_USAGE_STATS_ENABLED"] == "0"
