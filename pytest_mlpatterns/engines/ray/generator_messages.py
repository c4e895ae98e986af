"""What pytest, the Ray driver and the hosts of load generators exchange: frozen values, which load without Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mlpatterns.engines.ray.cluster import ClockOffset

__all__ = ["Ended", "Heard", "HostFacts", "Started"]


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The host of one generator: the actor that starts its process on a node.

    Attributes:
        clock: how far its clock is ahead of pytest's.
        allowed_connections: connections that a process there may open; None if the system knows no limit.
    """

    node: str
    machine: str
    clock: ClockOffset
    allowed_connections: int | None


@dataclass(frozen=True, slots=True)
class Started:
    """A generator process has started on its node."""

    pid: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A generator process sends nothing more, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of a generator process, as the driver keeps it until pytest has it.

    Attributes:
        number: counts the messages that the driver took; pytest asks for those after the last one that it has.
    """

    number: int
    key: int
    message: object
