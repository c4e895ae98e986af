"""What every pattern has: a name as it is written, and the processes that it asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from enum import StrEnum

__all__ = ["MAX_PROCESSES", "Pattern", "Spread", "Topology"]

MAX_PROCESSES = 64
"""Most service processes that one pattern may ask for."""


class Spread(StrEnum):
    """How requests reach the replicas of a service."""

    ROUND_ROBIN = "round-robin"
    LEAST_OUTSTANDING = "least-outstanding"
    SHARED_SOCKET = "shared-socket"


@dataclass(frozen=True, slots=True)
class Topology:
    """What an engine has to start: so many processes that each hold the whole service."""

    replicas: int
    spread: Spread


class Pattern(ABC):
    """A serving pattern: a frozen, comparable value that prints as it is written.

    ``str()`` leaves out what is default, so that it can stand in test ids and baseline keys and stays stable.
    """

    __slots__ = ()

    @abstractmethod
    def topology(self) -> Topology:
        """The processes that the pattern asks for."""

    def __str__(self) -> str:
        changed = [
            f"{field.name}={getattr(self, field.name)}"
            for field in fields(self)  # type: ignore[arg-type]  # every pattern is a dataclass
            if getattr(self, field.name) != field.default
        ]
        name = type(self).__name__.lower()
        return f"{name}({','.join(changed)})" if changed else name
