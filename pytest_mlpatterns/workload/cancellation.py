"""Requests that the load generator cancels on purpose, as users do who close the page."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_mlpatterns.units import format_duration, format_percent

__all__ = ["Cancellation"]


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Cancels a share of the requests.

    Attributes:
        share_ratio: share of the requests, above 0 and at most 1.
        after_ns: time from when a request was due until it is cancelled, in nanoseconds. An answer that was complete
            before counts as usual.
    """

    share_ratio: float
    after_ns: int

    def __str__(self) -> str:
        return f"{format_percent(self.share_ratio)} after {format_duration(self.after_ns)}"
