"""What counts the work of processes. Its methods raise CountError if they cannot be counted."""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from pytest_mlpatterns.records.count import RunUnder


class Reading(Struct, frozen=True):
    """What processes did since the last look."""

    total: int
    functions: Mapping[tuple[str, str], int] = {}  # the same by library and function
    at: float = 0.0  # when it was read, on the clock of ``time.monotonic``


class WorkCounter(Protocol):
    """Counts what processes do. ``tool``: its name, for reports. ``under``: how the processes are run."""

    tool: str = ""
    under: RunUnder = RunUnder()

    def begin(self, deadline: float) -> None:
        """Count the processes that run under it from now on. ``deadline``: on the clock of ``time.monotonic``."""
        return

    def read(self, deadline: float) -> Reading:
        """What was done since the last look."""
        ...

    def refusal(self) -> str:
        """Why a process cannot be run under it; empty if nothing is known."""
        return ""
