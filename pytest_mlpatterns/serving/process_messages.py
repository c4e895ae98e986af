"""What the processes of a service report, whichever engine started them: readiness, failures, figures, environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mlpatterns.records.environment_facts import EnvironmentFacts
    from pytest_mlpatterns.records.telemetry import LayerStats

__all__ = ["FactsQuestion", "LoadFailed", "Ready", "StatsQuestion", "WorkerFacts", "WorkerStats"]


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


@dataclass(frozen=True, slots=True)
class FactsQuestion:
    """Asks a process for its environment."""

    number: int


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """The environment of one process, in answer to the question of this number."""

    number: int
    facts: EnvironmentFacts
