"""What the processes of a service report, whichever engine started them: readiness, failures, statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mlpatterns.records.telemetry import LayerStats

__all__ = ["LoadFailed", "Ready", "StatsQuestion", "WorkerStats"]


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is built, and requests are accepted."""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model could not be built: the user's traceback, or a reason that says it all."""

    traceback: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StatsQuestion:
    """Asks a process for its statistics."""

    number: int


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """Statistics of one process since its start, in answer to the question of this number."""

    number: int
    predict_requests: int
    tracebacks: tuple[str, ...]
    layers: tuple[LayerStats, ...] = ()
