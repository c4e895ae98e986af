"""What pytest and the Ray driver exchange: frozen values, which load without Ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.engines.ray.cluster import ClusterFacts
    from pytest_mlpatterns.errors import MlpatternsError

__all__ = ["Call", "DriverFailed", "DriverReady", "Leave", "Raised", "RayJob", "Returned"]


@dataclass(frozen=True, slots=True)
class RayJob:
    """What a driver connects to.

    Attributes:
        address: ``host:port`` of a cluster, or ``auto`` for the one on this machine; None starts one.
        source: where the address was given, such as ``RAY_ADDRESS``, for messages.
        runtime_env: Ray's runtime environment of the processes on the nodes.
        root: directory to which paths in the runtime environment are relative.
        run: name of the run that this driver belongs to, if another driver began it.
        temporary: where the driver makes a directory for a Ray of this run's own, and then that directory, which no
            other user may enter; its path has to be short.
        environment: environment variables of the driver, beside those of this process.
    """

    address: str | None = None
    source: str = ""
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    root: Path = Path()
    run: str = ""
    temporary: Path = Path("/tmp")  # noqa: S108 - Ray's sockets need a short path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def subject(self) -> str:
        """The beginning of a message about a connection that failed."""
        return "Ray did not start" if self.address is None else f"{self.source}={self.address}: Ray did not connect"


@dataclass(frozen=True, slots=True)
class Call:
    """Asks the driver to call a function, ``package.module:function``."""

    number: int
    function: str
    arguments: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Returned:
    """What a call returned."""

    number: int
    value: object


@dataclass(frozen=True, slots=True)
class Raised:
    """What a call raised: an error of this package, or the traceback of another one."""

    number: int
    error: MlpatternsError | None
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class DriverReady:
    """The driver is connected; the notes are for the user."""

    cluster: ClusterFacts
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DriverFailed:
    """The driver cannot connect."""

    error: MlpatternsError


@dataclass(frozen=True, slots=True)
class Leave:
    """Asks the driver to remove its applications and to end."""
