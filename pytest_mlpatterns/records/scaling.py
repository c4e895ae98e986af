"""The record of a scaling measurement, as reports see it: plain values that travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Interval", "ScalingRecord", "ScalingStepRecord"]

Interval = tuple[float, float, float]
"""``(value, low, high)`` of a 95 % confidence interval."""


@dataclass(frozen=True, slots=True)
class ScalingStepRecord:
    """One number of replicas.

    Attributes:
        replicas: how many.
        concurrency: requests in flight with which NMRT is reached.
        figures: by the metric's name: ``nmrt``, ``scaling_efficiency``, and at NMRT ``asl``, ``cpu_per_request``,
            ``peak_memory`` and ``cost``; without those that are not known.
        machine_ratio: share of the machine's cores that all processes used at NMRT; None if not known.
        bound: why NMRT is only a lower bound; empty if it is known.
    """

    replicas: int
    concurrency: float
    figures: Mapping[str, Interval]
    machine_ratio: float | None
    bound: str


@dataclass(frozen=True, slots=True)
class ScalingRecord:
    """All numbers of replicas, and the universal scalability law.

    Attributes:
        steps: by number of replicas, ascending.
        law: ``contention`` and, from three numbers of replicas on, ``coherency``; empty if the law is not known.
        peak_replicas: number of replicas with the largest capacity by the law; None if each further one adds some.
        ended_by: what ended the scaling, if it was not the pattern; empty otherwise.
    """

    steps: tuple[ScalingStepRecord, ...]
    law: Mapping[str, Interval]
    peak_replicas: float | None
    ended_by: str

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ScalingRecord:
        """The inverse of ``dataclasses.asdict``, also after a trip through JSON."""
        steps = tuple(ScalingStepRecord(**{**step, "figures": _intervals(step["figures"])}) for step in data["steps"])
        return cls(steps, _intervals(data["law"]), data["peak_replicas"], data["ended_by"])


def _intervals(data: Mapping[str, Any]) -> dict[str, Interval]:
    return {name: (value, low, high) for name, (value, low, high) in data.items()}
