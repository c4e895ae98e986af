"""Which lines hold the memory of a deployment, on both sides of a comparison: plain values that travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HELD_LAYER", "HeldMemory", "HeldRecord", "MemorySite"]

HELD_LAYER = "held memory"
"""Name of the layer of the telemetry with which the processes of a deployment report what their lines hold.

Its counters are bytes by ``LINE:FILE``, and ``total`` for all of them.
"""


@dataclass(frozen=True, slots=True)
class HeldMemory:
    """What the processes of one side held, by the line that allocated it.

    Attributes:
        sites: bytes by file and line: the innermost line of the user's code, or of any code if there is none.
        total_bytes: of all lines, also those that are not among the largest.
        requests: answered between the two readings whose difference this is; 0 for a reading since the start.
    """

    sites: Mapping[tuple[str, int], float]
    total_bytes: float
    requests: int = 0


@dataclass(frozen=True, slots=True)
class MemorySite:
    """A function that holds memory.

    Attributes:
        function: qualified name; ``<module>`` for the code of a module itself.
        file: relative to pytest's root directory, to site-packages or to the standard library.
        line: the one that holds most at present.
        source: its text; empty if unknown.
        before: bytes at the reference, or bytes per request for a growth.
        now: the same at present.
    """

    function: str
    file: str
    line: int
    source: str
    before: float
    now: float

    @property
    def change(self) -> float:
        """Now less before."""
        return self.now - self.before


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """Where the memory of a test went that holds more, or leaks, at present.

    Attributes:
        note: why that is not known; empty if it is.
        per_request: whether the figures are bytes per request instead of bytes.
        before: held by all lines at the reference.
        now: the same at present.
        sites: functions that hold more, the largest first.
    """

    note: str = ""
    per_request: bool = False
    before: float = 0.0
    now: float = 0.0
    sites: tuple[MemorySite, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HeldRecord:
        """The inverse of ``dataclasses.asdict``, also after a trip through JSON."""
        return cls(**{**data, "sites": tuple(MemorySite(**site) for site in data["sites"])})
