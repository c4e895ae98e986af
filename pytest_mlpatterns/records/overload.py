"""What a deployment does beyond its NMRT: one measurement of overload, as plain values that travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct

from pytest_mlpatterns.records.codec import Count

__all__ = ["Behaviour", "Overload", "OverloadStep"]


class Behaviour(StrEnum):
    """What the goodput does beyond the NMRT; the value is the text in files."""

    SHEDS = "sheds"
    """It keeps its goodput, and answers the rest with an error at once."""
    HOLDS = "holds"
    """It keeps its goodput, and refuses little."""
    DEGRADES = "degrades"
    """It loses a part of its goodput."""
    COLLAPSES = "collapses"
    """It loses over half of its goodput."""


class OverloadStep(Struct, frozen=True):
    """One rate of arrivals. The five shares are shares of the requests that were due, and sum to 1.

    Attributes:
        load_ratio: rate of the arrivals, as a multiple of the NMRT.
        offered_rps: requests that were due per second.
        requests: number of requests that were due in the window of this step.
        goodput_rps: answers in time per second.
        goodput_error_rps: its standard error, by the scatter of the pieces of the window.
        in_time_ratio: share with a successful answer within the limit.
        late_ratio: share with a successful answer after it.
        rejected_ratio: share that the service refused (429, 503; RESOURCE_EXHAUSTED, UNAVAILABLE).
        timed_out_ratio: share without an answer within the time-out.
        failed_ratio: share that failed in another way, such as a refused or closed connection.
        p99_ns: 99th percentile of the latency of the successful answers, as observed; None without any.
        limited: why the load generator was the limit; None if it was not.
        busy: what took time that the service needed, such as other processes; None if nothing did.
        failed_outcome: the most frequent outcome among those that failed in another way; None without any.
    """

    load_ratio: float
    offered_rps: float
    requests: Count
    goodput_rps: float
    goodput_error_rps: float
    in_time_ratio: float
    late_ratio: float
    rejected_ratio: float
    timed_out_ratio: float
    failed_ratio: float
    p99_ns: float | None
    limited: str | None
    busy: str | None
    failed_outcome: int | None = None


@dataclass(frozen=True, slots=True)
class Overload:
    """Goodput against offered load, up to a multiple of the NMRT and back.

    Attributes:
        nmrt_rps: the NMRT that the loads are multiples of.
        limit_ns: an answer within this time is in time.
        steps: by ascending load; the last is the peak.
        back: the end of the load after the peak, at 0.8 times the NMRT.
        recovery_ns: time from the end of the peak until requests are answered in time as before it; None if that did
            not happen within ``watched_ns``.
        watched_ns: length of the load after the peak.
        behaviour: what the goodput does.
        cut: why the load was shorter than usual; empty if it was not.
    """

    nmrt_rps: float
    limit_ns: float
    steps: tuple[OverloadStep, ...]
    back: OverloadStep
    recovery_ns: float | None
    watched_ns: float
    behaviour: Behaviour
    cut: str = ""

    @property
    def peak(self) -> OverloadStep:
        """The step with the highest load."""
        return self.steps[-1]

    def goodput_ratio(self, at: float) -> float:
        """Goodput at a load that was offered, as a share of the NMRT.

        Args:
            at: the load, as a multiple of the NMRT.

        Raises:
            ValueError: this load was not offered.
        """
        for step in self.steps:
            if abs(step.load_ratio - at) < 1e-9:
                return step.goodput_rps / self.nmrt_rps
        loads = ", ".join(f"{step.load_ratio:g}" for step in self.steps)
        raise ValueError(f"goodput_ratio({at!r}), expected one of the loads that were offered: {loads}")
