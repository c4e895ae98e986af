"""Engines by name: each fulfils the protocol and is loaded when named; an unknown one is refused."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.each_row import each_row

from pytest_mlpatterns import DeploymentError, MissingExtraError, SettingError, Single
from pytest_mlpatterns.engines import engine as engine_module
from pytest_mlpatterns.engines.engine import Engine, engine_named, engine_names, launch
from pytest_mlpatterns.engines.local.launcher import LocalEngine
from pytest_mlpatterns.engines.ray import engine as ray_engine
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.model import ServicePlan, StartOptions, service_plan

PLAN = service_plan(Single(), len)


class Recorded(Engine):
    """Notes what it is asked for, and refuses what it is told to refuse."""

    def __init__(self, refused: str = "") -> None:
        self.asked: list[str] = []
        self.refused = refused

    def check(self, plan: ServicePlan, options: StartOptions) -> None:
        self.asked.append("check")
        if self.refused:
            raise SettingError(self.refused)

    def launch(self, plan: ServicePlan, options: StartOptions) -> Deployment:
        self.asked.append("launch")
        return plan, options  # type: ignore[return-value]


def options(**changes: Any) -> Any:
    return SimpleNamespace(**{"engine": "own", "cpus": None, "replica_cores": None, "setup": None, **changes})


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder on ``sys.path`` with a distribution that registers engines, as an installed one would."""
    (tmp_path / "engines_of_a_test.py").write_text("ENGINE = 3\n", encoding="utf-8")
    (tmp_path / "own-1.0.dist-info").mkdir()
    (tmp_path / "own-1.0.dist-info" / "METADATA").write_text("Name: own\nVersion: 1.0\n", encoding="utf-8")
    names = "[pytest_mlpatterns.engines]\nabsent = no_such_module:ENGINE\nnumber = engines_of_a_test:ENGINE\n"
    (tmp_path / "own-1.0.dist-info" / "entry_points.txt").write_text(names, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["local", "ray"])
def test_a_registered_engine_fulfils_the_protocol(name: str) -> None:
    assert isinstance(engine_named(name), Engine)


@pytest.mark.parametrize("name", ["steam", "", None, 3])
def test_an_unknown_engine_is_refused_with_the_known_ones(name: object) -> None:
    with pytest.raises(SettingError) as caught:
        engine_named(name)
    assert str(caught.value) == f"perf(engine=...) is {name!r}, expected one of 'local', 'ray'"


def test_an_engine_of_another_distribution_has_its_name(registered: Path) -> None:
    assert engine_names() == ("absent", "local", "number", "ray")


@each_row(
    ("name", "message"),
    ("absent", r"^engine=\"absent\": no_such_module:ENGINE cannot be imported: No module named 'no_such_module'$"),
    ("number", r"^engine=\"number\": engines_of_a_test:ENGINE is 3, expected an engine; derive its class from "),
)
def test_an_engine_that_is_none_is_refused(name: str, message: str, registered: Path) -> None:
    with pytest.raises(SettingError, match=message):
        engine_named(name)


def test_an_installation_without_engines_is_said_to_be_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_registered", lambda _path: {})
    with pytest.raises(SettingError, match=r"and no engine is registered; install pytest-mlpatterns anew$"):
        engine_named("local")


@pytest.mark.parametrize("missing", ["ray", "fastapi"])
def test_ray_needs_its_packages(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = {"ray": "ray/__init__.py", "fastapi": "fastapi/__init__.py", missing: None}  # a folder, and no package
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: SimpleNamespace(origin=origin[name]))
    with pytest.raises(MissingExtraError) as caught:
        engine_named("ray").require_installed('engine="ray"')
    install = "install it: pip install 'pytest-mlpatterns[ray]'"
    assert str(caught.value) == f'engine="ray" needs the package {missing}, which is not installed; {install}'


def test_ray_with_its_packages_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda _name: SimpleNamespace(origin="__init__.py"))
    engine_named("ray").require_installed('engine="ray"')


def test_an_engine_that_gives_the_cores_itself_gets_the_options_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Recorded()
    engine.gives_cores = True
    monkeypatch.setattr(engine_module, "engine_named", lambda _name: engine)
    given = options(cpus=3, replica_cores="two each")
    assert launch(PLAN, given) == (PLAN, given)  # type: ignore[comparison-overlap]


def test_each_server_of_a_model_is_set_up_and_a_failure_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    clients = {0: "first", 1: "second"}
    engine: Any = Recorded()
    engine.launch = lambda *_: SimpleNamespace(
        addresses=clients, client_of=clients.get, log_tail=str, close=lambda: closed.append(True)
    )
    monkeypatch.setattr(engine_module, "engine_named", lambda _name: engine)
    seen: list[str] = []
    launch(PLAN, options(setup=seen.append))
    assert (seen, closed) == (["first", "second"], [])
    with pytest.raises(DeploymentError, match=r"(?s)perf_setup failed:.*KeyError: 'first'"):
        launch(PLAN, options(setup=lambda client: {}[client]))
    assert closed == [True]


def test_a_composition_is_checked_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Recorded(refused="no queues here")
    monkeypatch.setattr(engine_module, "engine_named", lambda _name: engine)
    with pytest.raises(SettingError, match="no queues here"):
        launch(PLAN, options())
    assert engine.asked == ["check"]


def test_an_engine_that_says_nothing_more_shares_nothing() -> None:
    engine = Recorded()
    assert engine.session(options()) is None
    assert {engine.gives_cores, engine.adds_replicas, engine.sends_load, engine.is_readable} == {False}
    assert LocalEngine().adds_replicas


@pytest.mark.processes
def test_an_engine_is_imported_when_first_named() -> None:
    code = "import sys; import pytest_mlpatterns.engines.engine as e; e.engine_names(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "pytest_mlpatterns.engines.engine" in loaded
    assert not [
        name for name in loaded if name.startswith(("pytest_mlpatterns.engines.local", "pytest_mlpatterns.engines.ray"))
    ]
