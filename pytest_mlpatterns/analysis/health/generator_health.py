"""Whether the load generator, not the deployment, was the limit; the only module that decides it.

It also names whose fault an invalid measurement is: a generator or machine at its limit shows nothing of the service,
so that it is no verdict; a service that answers nothing is a failure.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from pytest_mlpatterns.units import format_duration, format_percent, format_rate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_mlpatterns.records.launch import GeneratorReport

__all__ = ["Fault", "GeneratorMetrics", "InvalidReason", "spread_note", "why_limited"]

_LIMITED_SHARE = 0.70
"""Share of a core, and of the generator's ceiling, above which it counts as the limit."""
_LIMITED_LAG_NS = 1_000_000
"""Lag of the median request from which the generator is the limit, in nanoseconds: a timer is late by less."""
_SPREAD_NS = 5_000_000
"""From here on a note reports how far apart the generators on the nodes of a cluster began."""
_CLOCK_ERROR_NS = 2_500_000
"""Error of a clock from which a note reports it, in nanoseconds: half of the spread above."""


class Fault(Enum):
    """What made a measurement invalid."""

    GENERATOR = "generator"
    """The load generator, or the machine that it shares with others."""
    SERVICE = "service"
    """The service, or a load under which it answers too little."""


class InvalidReason(Struct, frozen=True):
    """Why a measurement supports no verdict, and whose fault that is."""

    text: str
    fault: Fault

    def __str__(self) -> str:
        return self.text


class GeneratorMetrics(Struct, frozen=True):
    """Figures of the load generator, which decide whether a measurement is valid.

    Attributes:
        cpu_ns_per_request: CPU time of the generator per completed request.
        send_lag: how late each request was sent, int64, shape ``(requests,)``.
        limited: why the generator, not the deployment, was the limit; None if it was not.
    """

    cpu_ns_per_request: float
    send_lag: NDArray[np.int64]
    limited: str | None

    def send_lag_ns(self, percentile: float) -> float:
        """A percentile of how late requests were sent; 0 in a closed loop."""
        return float(np.percentile(self.send_lag, percentile)) if self.send_lag.size else 0.0


def why_limited(
    report: GeneratorReport, *, send_lag_ns: NDArray[np.int64] | None = None, latency_ns: float = 0.0
) -> str | None:
    """Why the load generator may have been the limit; None if it was not.

    It is the limit if it used over 70 % of a core, if it reached over 70 % of its rate against a server that does
    nothing, or if, in an open loop, it sent 1 % of its requests late by over 1 ms and over a tenth of the latency. Of
    generators on several nodes each may use 70 % of a core, and all together 70 % of the sum of their ceilings.

    Args:
        report: the figures of the generator, over the measured window.
        send_lag_ns: how late each request of an open loop was sent; None for a closed loop.
        latency_ns: median latency, or a longer one that is judged, which the lag is compared with.
    """
    if why := _why_busy(report) or _why_near_ceiling(report):
        return why
    if send_lag_ns is not None and send_lag_ns.size:
        lag = float(np.percentile(send_lag_ns, 99, method="lower"))  # one late request of a few does not count
        allowed = max(_LIMITED_LAG_NS, 0.1 * latency_ns)
        if lag > allowed:
            return (
                f"the load generator was behind its schedule: 1 % of the requests were sent over "
                f"{format_duration(lag)} late, allowed are {format_duration(allowed)}"
            )
    return None


def spread_note(report: GeneratorReport) -> str | None:
    """How far apart the generators on the nodes of a cluster began, and how well their clocks are known.

    None if they began within 5 ms of each other, by clocks that are known to 2.5 ms.
    """
    if not report.parts:
        return None
    late = [part.opened_late_ns for part in report.parts]
    spread_ns, error_ns = max(late) - min(late), max(part.clock_error_ns for part in report.parts)
    if spread_ns <= _SPREAD_NS and error_ns <= _CLOCK_ERROR_NS:
        return None
    return (
        f"the load generators began within {format_duration(spread_ns)} of each other "
        f"(their clocks are known to ±{format_duration(error_ns)})"
    )


def _why_busy(report: GeneratorReport) -> str | None:
    """Why the generator's processor may have been the limit."""
    busiest = max(report.parts, key=lambda part: part.core_share, default=None)
    share = report.core_share if busiest is None else busiest.core_share
    if share <= _LIMITED_SHARE:
        return None
    if busiest is None:
        return f"the load generator used {format_percent(share)} of a core and may itself be the limit"
    return (
        f"the load generator on node {busiest.node} used {format_percent(share)} of a core and may itself be the limit"
    )


def _why_near_ceiling(report: GeneratorReport) -> str | None:
    """Why the generator's speed may have been the limit."""
    if report.ceiling_rps is None or report.rate_rps <= _LIMITED_SHARE * report.ceiling_rps:
        return None
    if not report.parts:
        return (
            f"the load generator did {format_rate(report.rate_rps)}, over "
            f"{format_percent(_LIMITED_SHARE)} of the {format_rate(report.ceiling_rps)} that it reaches "
            "on this machine against a server that does nothing"
        )
    return (
        f"the load generators did {format_rate(report.rate_rps * report.processes)} together, over "
        f"{format_percent(_LIMITED_SHARE)} of the {format_rate(report.ceiling_rps * report.processes)} that they reach "
        "on their nodes against servers that do nothing"
    )
