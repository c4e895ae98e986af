"""Whether a service sustains an open loop: whether its answers keep up with the requests that arrive.

Above its capacity a service builds up a backlog, and every latency depends on the length of the window alone. Below it
the backlog rises and falls by chance. Pure; it must not know limits, baselines or tests.

Two signs count, each against the scatter of its own pieces of the window (pieces of 0.25 s, and pieces of 8 requests;
the larger standard error counts, so that a pause of the service is scatter and no overload):

- *growth*: more requests arrived in the window than were answered in it;
- *shortfall*: every request had to wait, so that the answers came at the rate of the capacity, and that is below the
  rate of the load. It finds an overload that the chance of random arrivals hides from the first.

Either has to exceed 3 % of the arrivals, five requests, and its standard error by Student's t at 99.95 %.

In a closed loop a service that deadlocks fails only as many requests as there are callers, 4 of 46,000, so a share of
failed requests never shows it. What shows it is the last request of each caller. Since every caller asks again as soon
as it has its answer (and has paused), nothing was answered any more if the last answer came before the end of the
window.

An open loop shows its end by its failed requests: over 5 % of them make it invalid anyway. There, and wherever a single
request got no answer, one more request shows whether the service is dead or lost a request.

This module alone decides whether the load generator was the limit, and whose fault an invalid measurement is: a
generator or machine at its limit shows nothing of the service, so that it is no verdict; a service
that answers nothing is a failure.
"""

import math
from collections import Counter
from collections.abc import Sequence
from enum import Enum

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.statistics.intervals import t_quantile
from pytest_mlpatterns.errors import GeneratorLimitError, InvalidResultError
from pytest_mlpatterns.records.launch import GeneratorReport, Launch
from pytest_mlpatterns.records.outcomes import Failure, describe_failures
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.units import SECOND_NS, format_duration, format_percent, format_rate

_LIMITED_SHARE = 0.70  # Share of a core, and of the generator's ceiling, above which it counts as the limit
_LIMITED_LAG_NS = 1_000_000
"""Lag of 1 % of the requests from which the generator is the limit, in nanoseconds: a timer is late by less."""
_SHARED_LAG = 0.10
"""Mean lag, as a share of the latency, up to which it hides little of a change: 20 % show as 18 %."""
_SPREAD_NS = 5_000_000  # From here on a note reports how far apart the generators on the nodes of a cluster began
_CLOCK_ERROR_NS = 2_500_000  # Error of a clock from which a note reports it, in nanoseconds: half of the spread above


class Fault(Enum):
    """What made a measurement invalid."""

    GENERATOR = "generator"  # The load generator, or the machine that it shares with others
    CLIENT = "client"  # A client of the user's own, which will be the limit again
    SERVICE = "service"  # The service, or a load under which it answers too little


class InvalidReason(Struct, frozen=True):
    """Why a measurement supports no verdict, and whose fault that is."""

    text: str
    fault: Fault

    def __str__(self) -> str:
        return self.text

    def error(self, before: str = "") -> InvalidResultError:
        """The error of such a measurement; ``before``: with which it begins."""
        if self.fault is Fault.SERVICE:
            return InvalidResultError(f"{before}{self}")
        return GeneratorLimitError(f"{before}{self}", by_client=self.fault is Fault.CLIENT)


class GeneratorMetrics(Struct, frozen=True):
    """Figures of the load generator, which decide whether a measurement is valid."""

    cpu_ns_per_request: float  # CPU time of the generator per completed request
    send_lag: NDArray[np.int64]  # how late each request was sent, int64, shape ``(requests,)``
    limited: str | None  # why the generator, not the deployment, was the limit; None if it was not

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

    ``send_lag_ns``: how late each request of an open loop was sent; None for a closed loop.
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


def moves_ratios(send_lag_ns: NDArray[np.int64], latency_ns: float) -> bool:
    """Whether lag matters beside a latency whose other side is sent alike: it hides a change, and makes none.

    ``send_lag_ns``: of each request, at least one.
    """
    return float(send_lag_ns.mean()) > _SHARED_LAG * latency_ns


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
    if report.client:
        return (
            f"perf_client {report.client} used {format_percent(share)} of a core and may itself be the limit; spread "
            "it over processes with perf(generators=2)"
        )
    if busiest is None:
        return f"the load generator used {format_percent(share)} of a core and may itself be the limit"
    return (
        f"the load generator on node {busiest.node} used {format_percent(share)} of a core and may itself be the limit"
    )


def _why_near_ceiling(report: GeneratorReport) -> str | None:
    """Why the generator's speed may have been the limit."""
    if report.ceiling_rps is None or report.rate_rps <= _LIMITED_SHARE * report.ceiling_rps:
        return None
    if report.client:
        return (
            f"perf_client {report.client} did {format_rate(report.rate_rps)}, over {format_percent(_LIMITED_SHARE)} of "
            f"the {format_rate(report.ceiling_rps)} of one that does nothing; let a call do more work"
        )
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


_CONFIDENCE = 0.999  # Two-sided; a backlog that shrinks is no overload, so 0.05 % are left for a false alarm
_SMALLEST_SHARE = 0.03  # Smallest backlog, as a share of the expected arrivals
_SMALLEST_REQUESTS = 5  # Smallest backlog, in requests
_PIECE_NS = 250_000_000  # Length of a piece of a window, in nanoseconds: as a block
_PIECE_REQUESTS = 8  # Fewest requests of a piece
_MIN_PIECES, _MAX_SHORT_PIECES = 8, 48
_FIRST_REQUESTS = 5  # Requests at the start of the load that did not have to wait for others
_FILLING = 3  # Times of an unhindered answer after which a service without a queue is as full as it will be
_WAITED = 2.0  # Latency, in times of an unhindered answer, from which on a request surely waited for others


class Backlog(Struct, frozen=True):
    """How arrivals and answers compare over one window."""

    rate_rps: float  # rate of the load
    duration_ns: int  # length of what was compared: the window, without the time in which the service still filled
    arrivals: int  # requests sent in that time
    answers: int  # requests that ended in that time
    waiting: int  # requests without an answer at its end
    growth_variance: float  # variance of ``arrivals - answers`` by the scatter of the pieces
    answers_variance: float  # variance of ``answers`` by that scatter
    saturated: bool  # whether every request had to wait for others
    degrees: int  # degrees of freedom of the variances

    @property
    def answered_rps(self) -> float:
        """Rate of the answers."""
        return self.answers * SECOND_NS / self.duration_ns

    @property
    def expected(self) -> float:
        """Requests that the load has in that time on average."""
        return self.rate_rps * self.duration_ns / SECOND_NS


def backlog_of(samples: Samples, window: Window, rate_rps: float) -> Backlog | None:
    """Compare arrivals and answers; None if there are too few, or if most of the window saw the service fill.

    A request arrives when the generator has sent it, so that a late generator is no backlog of the service.

    ``rate_rps``: mean rate of the load, which must not change.
    """
    order = np.argsort(samples.due_ns, kind="stable")
    latency_ns = (samples.done_ns - samples.sent_ns)[order]
    if not latency_ns.size:
        return None
    unhindered_ns = float(np.median(latency_ns[:_FIRST_REQUESTS]))
    filled_ns = int(samples.sent_ns[order[0]] + _FILLING * unhindered_ns)
    start_ns, end_ns = max(window.start_ns, filled_ns), window.end_ns
    if end_ns - start_ns < window.duration_ns / 2:
        return None
    sent_ns, done_ns = np.sort(samples.sent_ns), np.sort(samples.done_ns)
    sent, done = (np.searchsorted(times, (start_ns, end_ns), side="right") for times in (sent_ns, done_ns))
    arrivals, answers = int(sent[1] - sent[0]), int(done[1] - done[0])
    if arrivals < 2 * _SMALLEST_REQUESTS:
        return None
    short = min(max(arrivals // _PIECE_REQUESTS, _MIN_PIECES), _MAX_SHORT_PIECES)
    counts = [
        _counts(sent_ns, done_ns, np.linspace(start_ns, end_ns, pieces + 1))
        for pieces in (max(_MIN_PIECES, round((end_ns - start_ns) / _PIECE_NS)), short)
    ]
    inside = (samples.sent_ns[order] >= start_ns) & (samples.sent_ns[order] < end_ns)
    return Backlog(
        rate_rps=rate_rps,
        duration_ns=end_ns - start_ns,
        arrivals=arrivals,
        answers=answers,
        waiting=int(sent[1] - done[1]),
        growth_variance=max(_variance_of_sum(came - went) for came, went in counts),
        answers_variance=max(_variance_of_sum(went) for _, went in counts),
        saturated=bool(latency_ns[inside].min(initial=np.iinfo(np.int64).max) > _WAITED * unhindered_ns),
        degrees=short - 1,
    )


def why_not_sustained(backlogs: Sequence[Backlog]) -> str | None:
    """A sentence if the service surely does not sustain the load of these windows together; None otherwise."""
    if not backlogs:
        return None
    growth = sum(one.arrivals - one.answers for one in backlogs)
    shortfall = sum(one.expected - one.answers for one in backlogs)
    expected = sum(one.expected for one in backlogs)
    quantile = t_quantile(_CONFIDENCE, sum(one.degrees for one in backlogs))

    def surely(excess: float, variance: float) -> bool:
        least = max(_SMALLEST_REQUESTS, _SMALLEST_SHARE * expected)
        return excess >= least and excess > quantile * math.sqrt(variance + len(backlogs))

    grows = surely(growth, sum(one.growth_variance for one in backlogs))
    saturated = all(one.saturated for one in backlogs)
    if not grows and not (saturated and surely(shortfall, sum(one.answers_variance for one in backlogs))):
        return None
    answered_rps = sum(one.answers for one in backlogs) * SECOND_NS / sum(one.duration_ns for one in backlogs)
    worst = max(backlogs, key=lambda one: one.waiting)
    return (
        f"the service does not sustain {format_rate(worst.rate_rps)}: it answered {format_rate(answered_rps)}, "
        f"{wording.count(worst.waiting, 'request was', 'requests were')} waiting at the end"
    )


def backlogs_of(launches: Sequence[Launch]) -> list[Backlog]:
    """The backlog of each launch whose load is an open loop of one rate."""
    found = (
        backlog_of(launch.samples, launch.sending, launch.rate_rps)
        for launch in launches
        if launch.rate_rps is not None
    )
    return [backlog for backlog in found if backlog is not None]


def _counts(
    sent_ns: NDArray[np.int64], done_ns: NDArray[np.int64], edges_ns: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Arrivals and answers between the edges; the times are ascending."""
    return np.diff(np.searchsorted(sent_ns, edges_ns)), np.diff(np.searchsorted(done_ns, edges_ns))


def _variance_of_sum(pieces: NDArray[np.int64]) -> float:
    """Variance of the sum of independent pieces, by their scatter."""
    return float(pieces.size * pieces.var(ddof=1))


MAX_ERROR_RATIO = 0.05  # Largest share of failed requests with which the latency of the others is judged


_LATE = frozenset((Failure.TIMEOUT, Failure.NOT_ENDED))  # Failures of a request whose response did not end in its time
_UNANSWERED = (*_LATE, Failure.CONNECT, Failure.CLOSED)
_RETRY_NS = 100_000_000
"""A caller whose connection failed pauses for less than this, so its last request may have ended before the window."""
_LONG_NS = 1_000_000_000  # Shorter than this, a silence may be a pause of the service


class Silence(Struct, frozen=True):
    """Requests without an answer at the end of a load."""

    since_ns: int | None  # time of the last answer after the start of the window; None if none came in it
    lasted_ns: int  # time from that, or from the start of the window, to the end of the load
    requests: int  # requests that were due in the window
    failed: int  # how many of them failed
    outcomes: dict[int, int]  # how the last requests without an answer ended
    waiting: int  # requests that waited when the window ended, and got no answer
    everyone: bool  # whether no caller of a closed loop got an answer to its last request
    request: int  # index of the prepared request that was answered last; of the first one if none was
    target: int  # index of the address that gave no answer

    @property
    def is_certain(self) -> bool:
        """Whether the service surely gave up, so that one more request adds nothing.

        A single caller may have met the one request that hangs; a short silence may be a pause; and if nothing
        succeeded in a window in which callers asked more than once, the number of failed requests shows it.
        """
        if not self.requests:
            return self.everyone
        together = self.everyone and self.waiting > 1 and self.outcomes.keys() <= _LATE
        by_number = self.failed == self.requests > self.waiting
        return together and self.lasted_ns >= _LONG_NS and not by_number

    @property
    def is_suspected(self) -> bool:
        """Whether one more request is worth its time: not if enough failed that the measurement is invalid anyway."""
        return self.requests > 0 and self.failed <= MAX_ERROR_RATIO * self.requests

    def describe(self, window: Window, timeout_ns: int) -> str:
        """A sentence without its full stop: ``no answer since 3.20 s of the window: all 4 callers timed out``."""
        since = "in the whole window"
        if self.since_ns is not None:
            since = f"since {format_duration(self.since_ns - window.start_ns)} of the window"
        if not self.everyone:
            last = wording.count(sum(self.outcomes.values()), "last request")
            return f"the service no longer answers: {last} without an answer ({describe_failures(self.outcomes)})"
        if not self.outcomes.keys() <= _LATE:
            return f"no answer {since}: every request failed ({describe_failures(self.outcomes)})"
        who = f"all {self.waiting:,} callers" if self.waiting > 1 else "the only caller"
        if Failure.TIMEOUT not in self.outcomes:
            return f"no response ended {since}: {who} got [DONE], and no end of HTTP in {format_duration(timeout_ns)}"
        return f"no answer {since}: {who} timed out after {format_duration(timeout_ns)}"


def silence_of(samples: Samples, window: Window, *, think_ns: int | None) -> Silence | None:
    """The requests without an answer at the end of a load; None if every last request was answered.

    ``think_ns``: pause of each caller of a closed loop; None for an open loop.
    """
    unanswered = np.isin(samples.outcome, _UNANSWERED)
    was_answered = ~unanswered
    answered_ns = int(samples.done_ns[was_answered].max(initial=np.iinfo(np.int64).min))
    last = unanswered & (samples.done_ns >= window.end_ns - _RETRY_NS)
    if not last.any():
        return None
    since = last & (samples.done_ns > answered_ns)
    inside = samples.due_in(window)
    waited = unanswered & (samples.due_ns < window.end_ns) & (samples.done_ns >= window.end_ns)
    answered = np.flatnonzero(was_answered)
    in_window = answered_ns >= window.start_ns
    return Silence(
        since_ns=answered_ns if in_window else None,
        lasted_ns=int(samples.done_ns[last].max()) - (answered_ns if in_window else window.start_ns),
        requests=int(inside.sum()),
        failed=int((inside & ~samples.succeeded).sum()),
        outcomes=dict(Counter(samples.outcome[last].tolist()).most_common()),
        waiting=int(waited.sum()),
        everyone=think_ns is not None and bool(since.any()) and answered_ns + think_ns < window.end_ns,
        request=int(samples.request[answered[-1]]) if answered.size else 0,
        target=int(samples.target[np.flatnonzero(last)[0]]),
    )
