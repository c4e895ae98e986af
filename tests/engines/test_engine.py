"""Engines by name: each is a module that fulfils the protocol, and an unknown name is refused with the known ones."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_mlpatterns import MissingExtraError, SettingError
from pytest_mlpatterns.engines import engine as engine_module
from pytest_mlpatterns.engines.engine import ENGINES, Engine, engine_named, launch


@pytest.mark.parametrize("name", ENGINES)
def test_registered_engine_fulfils_the_protocol(name: str) -> None:
    engine = import_module(ENGINES[name])

    parameters = [*inspect.signature(Engine.launch).parameters][1:]
    assert [*inspect.signature(engine.launch).parameters] == parameters


@pytest.mark.parametrize("name", ["steam", "", None, 3])
def test_unknown_engine_is_refused_with_the_known_ones(name: object) -> None:
    with pytest.raises(SettingError) as caught:
        engine_named(name, "perf(engine=...)")
    assert str(caught.value) == f"perf(engine=...) is {name!r}, expected one of 'local', 'ray'"


def test_the_local_engine_needs_no_package() -> None:
    assert engine_named("local", "perf(engine=...)") is import_module(ENGINES["local"])


@pytest.mark.parametrize("missing", ["ray", "fastapi"])
def test_ray_needs_its_packages(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = {"ray": "ray/__init__.py", "fastapi": "fastapi/__init__.py", missing: None}  # a folder, and no package
    monkeypatch.setattr(engine_module, "find_spec", lambda name: SimpleNamespace(origin=origin[name]))
    with pytest.raises(MissingExtraError) as caught:
        engine_named("ray", "perf(engine=...)")
    install = "install it: pip install 'pytest-mlpatterns[ray]'"
    assert str(caught.value) == f'engine="ray" needs the package {missing}, which is not installed; {install}'


def test_ray_with_its_packages_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "find_spec", lambda _name: SimpleNamespace(origin="__init__.py"))
    assert engine_named("ray", "perf(engine=...)") is import_module(ENGINES["ray"])


def test_an_engine_that_gives_the_cores_itself_gets_the_options_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    options: Any = SimpleNamespace(engine="ray", cpus=3, replica_cores="two each")
    engine = SimpleNamespace(GIVES_CORES=True, launch=lambda plan, given: (plan, given))
    monkeypatch.setattr(engine_module, "engine_named", lambda _name, _source: engine)
    plan: Any = "plan"
    assert launch(plan, options) == (plan, options)


@pytest.mark.processes
def test_engine_is_imported_when_first_used() -> None:
    code = f"import sys; import pytest_mlpatterns.engines.engine; print(*sys.modules.keys() & {set(ENGINES.values())})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
