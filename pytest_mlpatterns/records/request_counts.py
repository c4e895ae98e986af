"""The requests of one launch as counts: how many were due, how many failed, and how long each of the others took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mlpatterns.records.telemetry import Histogram

__all__ = ["RequestCounts"]


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Requests of one launch.

    Attributes:
        requests: number of requests that were due in the window.
        failed: those without a 2xx answer.
        latencies: count of each latency of the others, in nanoseconds, rounded to seven leading bits (0.8 %).
    """

    requests: int
    failed: int
    latencies: Histogram
