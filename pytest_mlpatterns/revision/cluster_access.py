"""How the process of another revision reaches the Ray cluster of this run, and brings its code there. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.config.ray_settings import RUN_VARIABLE
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.ray.runtime_env import brings_code

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_mlpatterns.system.ray.cluster import ClusterFacts

__all__ = ["access_options", "access_variables"]


def access_variables(cluster: ClusterFacts) -> dict[str, str]:
    """Environment variables of the process: the run that its applications belong to, and the key of the cluster."""
    key = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token} if cluster.token else {}
    return {RUN_VARIABLE: cluster.run, **key}


def access_options(
    cluster: ClusterFacts, runtime_env: Mapping[str, Any], interpreter: Path | None = None
) -> tuple[str, ...]:
    """Options of the process: the cluster of this run, and the runtime environment of the replicas there.

    Paths in it are relative; each process reads them from the root of its own tree.

    Args:
        cluster: the cluster of this run.
        runtime_env: that of this run's replicas.
        interpreter: that of an environment of the revision's own; None if it runs in this one.

    Raises:
        SettingError: replicas may lie on other machines, which have not the code of the revision.
    """
    several = len({node.machine for node in cluster.nodes}) > 1
    if several and interpreter is not None:
        raise SettingError(
            "--perf-against-env on a Ray cluster of several machines, expected one machine: replicas run in the "
            "environment of their node; leave it out"
        )
    if several and not brings_code(runtime_env):
        raise SettingError(
            "--perf-against on a Ray cluster of several machines needs the code of both revisions there; name it: "
            'perf_ray_runtime_env = {"working_dir": "."}'
        )
    own = {} if interpreter is None else {"py_executable": str(interpreter)}
    found = {**runtime_env, **own}
    code = [f"--perf-ray-runtime-env={json.dumps(found)}"] if found else []
    return (f"--perf-ray-address={cluster.address}", *code)
