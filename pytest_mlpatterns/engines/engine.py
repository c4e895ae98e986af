"""Engines by name: what starts the processes of a service plan.

An engine fulfils :class:`Engine`. A new one is a module and a line in :data:`ENGINES`, imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from itertools import filterfalse
from typing import TYPE_CHECKING, Protocol

from pytest_mlpatterns.errors import MissingExtraError, SettingError, missing_extra
from pytest_mlpatterns.serving.start_options import start_with_cpus, start_with_replica_cores
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.serving.model import ServicePlan
    from pytest_mlpatterns.serving.start_options import StartOptions

__all__ = ["ENGINES", "Engine", "engine_named", "launch", "require_ray"]


ENGINES = {
    "local": "pytest_mlpatterns.engines.local.launcher",
    "ray": "pytest_mlpatterns.engines.ray.launcher",
}
"""The module of each engine, by the name that ``perf(engine=...)`` takes."""
_OF_RAY = ("ray", "fastapi")
"""Packages of Ray and of Ray Serve."""


class Engine(Protocol):
    """Starts deployments; a module with this function is one.

    A module with ``GIVES_CORES = True`` gives the cores that the options name itself; for the others, :func:`launch`
    does.
    """

    def launch(self, plan: ServicePlan, options: StartOptions) -> Deployment:
        """Start a service and wait until it is ready.

        Args:
            plan: the process tree, with the models packed.
            options: how it is started.

        Raises:
            ModelLoadError: the model could not be built or failed on its first inference; with its traceback.
            DeploymentError: a process ended, or was not ready in time.
        """
        ...


def engine_named(name: object, source: str) -> Engine:
    """The engine of this name.

    Args:
        name: a key of :data:`ENGINES`.
        source: where the name was given, for the message.

    Raises:
        SettingError: there is no such engine.
        MissingExtraError: its packages are not installed.
    """
    if not isinstance(name, str) or name not in ENGINES:
        raise SettingError(f"{source} is {shown(name)}, expected one of {', '.join(map(repr, ENGINES))}")
    if name == "ray":
        require_ray('engine="ray"')
    return import_module(ENGINES[name])


def require_ray(what: str) -> None:
    """Check that Ray is installed, without importing it.

    Args:
        what: what needs it, in the user's words.

    Raises:
        MissingExtraError: it is not.
    """
    if missing := [*filterfalse(_is_installed, _OF_RAY)]:
        raise MissingExtraError(missing_extra(what, missing[0], "ray"))


def _is_installed(package: str) -> bool:
    """Whether there is such a package; a folder of this name that is no package does not count."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def launch(plan: ServicePlan, options: StartOptions) -> Deployment:
    """Start a service with the engine that the options name, and wait until it is ready.

    Raises:
        ModelLoadError: the model could not be built or failed on its first inference; with its traceback.
        DeploymentError: a process ended, or was not ready in time.
        SettingError: there is no such engine, or this machine cannot give the cores that the options name.
    """
    engine = engine_named(options.engine, "engine")
    if getattr(engine, "GIVES_CORES", False):
        return engine.launch(plan, options)
    if options.replica_cores is not None:
        return start_with_replica_cores(options.replica_cores, plan.root.replicas, lambda: engine.launch(plan, options))
    return start_with_cpus(options.cpus, lambda: engine.launch(plan, options))
