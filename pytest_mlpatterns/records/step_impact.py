"""What a function beside the load did, step by step, and what the requests around each step saw.

Plain values that travel as JSON; :mod:`pytest_mlpatterns.analysis.capacity.step_impact` makes them.
"""

from __future__ import annotations

from msgspec import Struct

from pytest_mlpatterns.records.codec import Amount, Count, Record

__all__ = ["DuringStep", "LatencyMoment", "StepImpact"]


class DuringStep(Struct, frozen=True):
    """A named step of the function beside the load, on the clock of ``time.perf_counter_ns``, as the samples.

    A step that had not ended when the load ended has the time of that.
    """

    name: str
    begin_ns: int
    end_ns: int


class StepImpact(Record, frozen=True):
    """What one step of one launch did to the requests around it.

    A request is hurt if it failed, or if its latency is above ``limit_ns``.

    Attributes:
        name: of the step.
        launch: number of the launch, from 1.
        begin_ns: time from the opening of the window to the begin of the step.
        end_ns: the same for its end.
        requests: requests around the step: in flight when it began, or due from then until a second after its end, or
            until the service was well again if that was later.
        hurt: requests among them that were hurt.
        failed: requests among them that failed.
        limit_ns: latency above which a request is hurt; None if no request before the step gave one.
        before_requests: requests before the step, with which it is compared.
        before_ns: the judged percentile of their latencies; None if none was answered.
        around_ns: the same of the requests around the step, in which a failed one counts as infinitely slow; None if
            that falls on a failed one.
        worst_ns: longest latency around the step, failed requests included; None without any request.
        recovery_ns: time from the begin of the step until requests were answered as before it; 0 if none waited for
            that, None if it did not happen while it was watched.
        watched_ns: time from the begin of the step to the next step, or to the end of the window.
    """

    name: str
    launch: Count
    begin_ns: int
    end_ns: int
    requests: Count
    hurt: Count
    failed: Count
    limit_ns: Amount | None
    before_requests: Count
    before_ns: float | None
    around_ns: float | None
    worst_ns: float | None
    recovery_ns: float | None
    watched_ns: float


class LatencyMoment(Record, frozen=True):
    """The requests that were due in a short piece of a window.

    Attributes:
        seconds: end of the piece, since the window opened.
        median_ns: median latency of those that succeeded; None if none did.
        worst_ns: longest latency of them.
        failed: number of those that failed.
    """

    seconds: float
    median_ns: float | None
    worst_ns: float | None
    failed: Count
