"""What was measured, how, and on which machine: the facts that make two results comparable."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = ["Environment", "Setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What was measured and how; two results are comparable when these are equal.

    ``model`` is the model's version, as its ``perf_version`` says it; empty where it says none.
    """

    pattern: str
    load: str
    wire: str
    payload: str
    model: str = ""

    @property
    def in_flight(self) -> int | None:
        """How many requests are in flight at any time, as a closed loop keeps them; None for other loads."""
        found = re.match(r"closed\((\d+)", self.load)
        return None if found is None else int(found[1])

    def differences(self, other: Setup) -> tuple[str, ...]:
        """Name what differs, as ``load: closed(8) → closed(16)``, from ``other`` to this."""
        mine, theirs = asdict(self), asdict(other)
        return tuple(
            f"{name}: {theirs[name] or 'none'} → {mine[name] or 'none'}" for name in mine if mine[name] != theirs[name]
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine and software that gave a result: stable facts only, so that the same machine stays the same."""

    processor: str
    cores: int
    architecture: str
    python: str
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def machine(self) -> str:
        """The machine's identity, as it stands in the baseline file."""
        return f"{self.processor}, {self.cores} cores, {self.architecture}, Python {self.python}"
