"""What one launch sends and for how long: the load of a test as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.workload.payload import Payload
    from pytest_mlpatterns.workload.schedule import Schedule

__all__ = ["LoadPlan"]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is sent to a deployment, and for how long. ``warmup_ns`` None lets the data decide."""

    payload: Payload
    schedule: Schedule
    duration_ns: int
    warmup_ns: int | None
    timeout_ns: int
    check: Callable[[Sequence[Any], Sequence[Any]], object] | None
    generators: int = 1
