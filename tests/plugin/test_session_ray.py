"""The Ray cluster of a session: begun, awaited and ended only if a test uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.fake_ray import FakeRay, cluster_facts

from pytest_mlpatterns.config.settings import Settings, read_settings
from pytest_mlpatterns.engines.ray.driver_messages import RayJob
from pytest_mlpatterns.engines.ray.session import driver_environment
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.plugin import ray_session
from pytest_mlpatterns.plugin.ray_session import SessionRay

if TYPE_CHECKING:
    from pathlib import Path

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
    monkeypatch.setattr(ray_session, "RaySession", lambda _job, _log: made)
    return made


@pytest.fixture
def ray(tmp_path: Path) -> SessionRay:
    return SessionRay({}, {}, root=tmp_path, directory=tmp_path)


def test_a_run_without_ray_has_no_session(session: Session, ray: SessionRay) -> None:
    ray.begin_for([LOCAL, LOCAL])
    ray.await_ready(LOCAL)
    ray.close()

    assert ray.lines == []
    assert ray.serving(LOCAL, None) is None
    assert ray.use_in(LOCAL, None) is None
    assert not session.begun
    assert not session.closed


@pytest.mark.parametrize("settings", [RAY, FROM_RAY])
def test_one_test_that_uses_ray_begins_the_session_and_every_test_awaits_it(
    settings: Settings, session: Session, ray: SessionRay
) -> None:
    ray.begin_for([LOCAL, settings])
    assert session.begun
    session.notes = ("2 applications were removed",)
    ray.await_ready(LOCAL)
    ray.await_ready(settings)
    ray.close()

    assert ray.lines == ["note: 2 applications were removed"]
    assert ray.use_in(settings, None) is not None
    assert session.closed


def test_a_service_of_the_users_own_is_not_served_by_ray(session: Session, ray: SessionRay) -> None:
    assert ray.serving(RAY, None) is session  # type: ignore[comparison-overlap]
    assert ray.serving(RAY, "http://127.0.0.1:8000") is None


def test_only_a_test_that_uses_ray_fails_if_it_cannot_be_reached(session: Session, ray: SessionRay) -> None:
    session.error = DeploymentError("it is gone")
    ray.begin_for([RAY])
    ray.await_ready(LOCAL)
    with pytest.raises(DeploymentError, match="it is gone"):
        ray.await_ready(RAY)


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
