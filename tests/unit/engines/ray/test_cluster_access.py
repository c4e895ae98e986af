"""The process of another revision attaches to the cluster of this run, or is refused: it could not bring its code."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fake_ray import FakeRay, cluster_facts, node_facts

from pytest_mlpatterns.engines.ray.engine import SharedRay
from pytest_mlpatterns.engines.ray.settings import RUN_VARIABLE
from pytest_mlpatterns.errors import SettingError

SEVERAL = cluster_facts(3)
ONE_MACHINE = replace(SEVERAL, nodes=tuple(node_facts(number, machine="here") for number in (1, 2, 3)))
WITH_CODE = {"working_dir": "."}


def shared(cluster: Any, runtime_env: Any = None) -> SharedRay:
    return SharedRay(FakeRay(facts=cluster, runtime_env=runtime_env or {}))  # type: ignore[arg-type]


def test_applications_of_the_revision_belong_to_this_run() -> None:
    assert shared(SEVERAL).access_variables() == {RUN_VARIABLE: SEVERAL.run}


def test_the_revision_gets_the_key_of_a_cluster_that_asks_for_one() -> None:
    variables = shared(cluster_facts(token="ab" * 32)).access_variables()
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_AUTH_TOKEN"] == "ab" * 32


def test_the_revision_attaches_to_the_cluster() -> None:
    assert shared(ONE_MACHINE).access_options(None) == (f"--perf-ray-address={ONE_MACHINE.address}",)


@pytest.mark.parametrize("cluster", [ONE_MACHINE, SEVERAL], ids=["one machine", "several"])
@pytest.mark.parametrize("runtime_env", [WITH_CODE, {"py_modules": ["shop"], "pip": ["numpy"]}])
def test_the_code_of_both_revisions_travels_alike(cluster: Any, runtime_env: dict[str, Any]) -> None:
    _, code = shared(cluster, runtime_env).access_options(None)
    name, _, value = code.partition("=")
    assert (name, json.loads(value)) == ("--perf-ray-runtime-env", runtime_env)


def test_an_environment_of_its_own_gives_the_interpreter_of_the_replicas() -> None:
    python = Path("there") / "bin" / "python"
    _, code = shared(ONE_MACHINE, WITH_CODE).access_options(python)
    assert json.loads(code.partition("=")[2]) == {**WITH_CODE, "py_executable": str(python)}


@pytest.mark.parametrize("runtime_env", [{}, {"pip": ["numpy"]}])
def test_several_machines_need_the_code(runtime_env: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"needs the code of both .* \{\"working_dir\": \"\.\"\}$"):
        shared(SEVERAL, runtime_env).access_options(None)


def test_several_machines_have_one_environment_each() -> None:
    with pytest.raises(SettingError, match=r"^--perf-against-env on a Ray cluster of several .* leave it out$"):
        shared(SEVERAL, WITH_CODE).access_options(Path("python"))
