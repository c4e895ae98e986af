"""The process of another revision attaches to the cluster of this run, or is refused: it could not bring its code."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fake_ray import cluster_facts, node_facts

from pytest_mlpatterns.engines.ray.engine import access_options, access_variables
from pytest_mlpatterns.engines.ray.settings import RUN_VARIABLE
from pytest_mlpatterns.errors import SettingError

SEVERAL = cluster_facts(3)
ONE_MACHINE = replace(SEVERAL, nodes=tuple(node_facts(number, machine="here") for number in (1, 2, 3)))
WITH_CODE = {"working_dir": "."}


def test_applications_of_the_revision_belong_to_this_run() -> None:
    assert access_variables(SEVERAL) == {RUN_VARIABLE: SEVERAL.run}


def test_the_revision_gets_the_key_of_a_cluster_that_asks_for_one() -> None:
    variables = access_variables(cluster_facts(token="ab" * 32))
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_AUTH_TOKEN"] == "ab" * 32


def test_the_revision_attaches_to_the_cluster() -> None:
    assert access_options(ONE_MACHINE, {}) == (f"--perf-ray-address={ONE_MACHINE.address}",)


@pytest.mark.parametrize("cluster", [ONE_MACHINE, SEVERAL], ids=["one machine", "several"])
@pytest.mark.parametrize("runtime_env", [WITH_CODE, {"py_modules": ["shop"], "pip": ["numpy"]}])
def test_the_code_of_both_revisions_travels_alike(cluster: Any, runtime_env: dict[str, Any]) -> None:
    _, code = access_options(cluster, runtime_env)
    name, _, value = code.partition("=")
    assert (name, json.loads(value)) == ("--perf-ray-runtime-env", runtime_env)


def test_an_environment_of_its_own_gives_the_interpreter_of_the_replicas() -> None:
    python = Path("there") / "bin" / "python"
    _, code = access_options(ONE_MACHINE, WITH_CODE, python)
    assert json.loads(code.partition("=")[2]) == {**WITH_CODE, "py_executable": str(python)}


@pytest.mark.parametrize("runtime_env", [{}, {"pip": ["numpy"]}])
def test_several_machines_need_the_code(runtime_env: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"needs the code of both .* \{\"working_dir\": \"\.\"\}$"):
        access_options(SEVERAL, runtime_env)


def test_several_machines_have_one_environment_each() -> None:
    with pytest.raises(SettingError, match=r"^--perf-against-env on a Ray cluster of several .* leave it out$"):
        access_options(SEVERAL, WITH_CODE, Path("python"))
