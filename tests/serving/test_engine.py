"""Engines by name: each is a module that fulfils the protocol, and an unknown name is refused with the known ones."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from pytest_mlpatterns import SettingError
from pytest_mlpatterns.serving.engine import ENGINES, Engine, engine_named


@pytest.mark.parametrize("name", ENGINES)
def test_registered_engine_fulfils_the_protocol(name: str) -> None:
    engine = engine_named(name, "perf(engine=...)")

    parameters = [*inspect.signature(Engine.launch).parameters][1:]
    assert [*inspect.signature(engine.launch).parameters] == parameters


@pytest.mark.parametrize("name", ["steam", "", None, 3])
def test_unknown_engine_is_refused_with_the_known_ones(name: object) -> None:
    with pytest.raises(SettingError) as caught:
        engine_named(name, "perf(engine=...)")
    assert str(caught.value) == f"perf(engine=...) is {name!r}, this version serves 'local'"


@pytest.mark.processes
def test_engine_is_imported_when_first_used() -> None:
    code = f"import sys; import pytest_mlpatterns.serving.engine; print(*sys.modules.keys() & {set(ENGINES.values())})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
