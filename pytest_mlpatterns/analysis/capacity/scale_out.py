"""One more replica under load: how long it takes to carry its share, and what the callers notice meanwhile.

Pure: the samples of a load during which one address was added, and the two times at which that was asked for and done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from statistics import fmean

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE, estimate
from pytest_mlpatterns.records.capacity import ScaleOutRecord
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.units import Unit, format_duration, format_percent
from pytest_mlpatterns.wording import count

SCALE_OUT = Metric("scale_out", "scale-out time", None, Unit.DURATION, launch_sd=METRICS["cold_start"].launch_sd)
"""Time from asking for one more replica until it carries its share; it varies as the start of a deployment does."""
_CARRIED = 0.9  # Part of its share from which on a replica carries it
_ANSWERS = 20  # Answers of the new replica, if it carries its share, among those over which the share is taken
_FEWEST_ANSWERS = 5  # Answers of each replica without which its share is unknown
_WAVES = 4  # Answers can arrive in waves as large as the number of callers; the share is taken over several waves
_IN_SLICE = 100  # Requests among which one is beyond the p99


class ScaleOutTimes(Struct, frozen=True):
    """What happened during a load, on the clock of ``time.perf_counter_ns``."""

    asked_ns: int  # when one more replica was asked for
    ready_ns: int  # when it was ready and its address was added to the load


@dataclass(frozen=True, slots=True)
class ScaleOut:
    """One more replica, asked for while callers keep the service at its knee.

    Attributes:
        replicas: number of replicas before.
        concurrency: requests in flight.
        ready_ns: time from asking for it until it was ready: its model loaded, its port open.
        duration_ns: time from asking for it until it carries its share; None if it never did.
        never: why it never did; empty if it did.
        p99_before_ns: p99 of the requests before it was asked for; None if none succeeded.
        p99_ns: highest p99 between asking and carrying, over slices of at least 100 requests; None if none succeeded.
        requests: requests that were due between asking and carrying.
        failed: how many of them failed.
    """

    replicas: int
    concurrency: int
    ready_ns: int
    duration_ns: int | None
    never: str
    p99_before_ns: float | None
    p99_ns: float | None
    requests: int
    failed: int

    @classmethod
    def of(cls, samples: Samples, times: ScaleOutTimes, *, replicas: int, concurrency: int) -> ScaleOut:
        """Read it from the samples of a load without warm-up; the new replica has the highest ``target``."""
        is_new, good = samples.target == replicas, samples.succeeded
        carried_ns = _carried_ns(samples.done_ns[good], is_new[good], replicas, concurrency=concurrency)
        last_ns = int(samples.done_ns.max(initial=times.ready_ns))
        inside = samples.due_in(Window(times.asked_ns, last_ns if carried_ns is None else carried_ns))
        before = samples.due_ns < times.asked_ns
        return cls(
            replicas=replicas,
            concurrency=concurrency,
            ready_ns=times.ready_ns - times.asked_ns,
            duration_ns=None if carried_ns is None else carried_ns - times.asked_ns,
            never="" if carried_ns is not None else _why_never(samples, times, replicas, last_ns=last_ns),
            p99_before_ns=_highest_p99(samples.latency_ns[before & good]),
            p99_ns=_highest_p99(samples.latency_ns[inside & good]),
            requests=int(inside.sum()),
            failed=int((inside & ~good).sum()),
        )


def _why_never(samples: Samples, times: ScaleOutTimes, replicas: int, *, last_ns: int) -> str:
    """What a replica did instead of carrying its share."""
    is_new, good, since = samples.target == replicas, samples.succeeded, samples.done_ns >= times.ready_ns
    given, of, failed = (int(some.sum()) for some in (is_new & good, since & good, is_new & ~good))
    ready, after = format_duration(times.ready_ns - times.asked_ns), format_duration(last_ns - times.ready_ns)
    return (
        f"the new replica was ready after {ready}, but did not carry its share, "
        f"{format_percent(1 / (replicas + 1))} of the answers, in the {after} after that: "
        f"it gave {given:,} of {of:,} answers, and {count(failed, 'request')} to it failed"
    )


def answers_in_share(replicas: int, concurrency: int) -> int:
    """Number of answers, of all replicas, over which the share of one more than these replicas is taken."""
    return max(_ANSWERS * (replicas + 1), _WAVES * concurrency)


def _carried_ns(
    done_ns: NDArray[np.int64], is_new: NDArray[np.bool_], replicas: int, *, concurrency: int
) -> int | None:
    """When the new replica gave the first answer from which on it carries its share; None if it never did.

    From that answer on the replica gives at least 90 % of its share of the next answers.
    """
    own = np.flatnonzero(is_new)
    if own.size == 0:
        return None
    answers = min(answers_in_share(replicas, concurrency), int(done_ns.size - own[0]))
    if answers < _FEWEST_ANSWERS * (replicas + 1):
        return None
    own = own[own + answers <= done_ns.size]
    so_far = np.concatenate([[0], np.cumsum(is_new)])
    carries = so_far[own + answers] - so_far[own] >= _CARRIED * answers / (replicas + 1)
    return int(done_ns[own[np.argmax(carries)]]) if carries.any() else None


def _highest_p99(latency_ns: NDArray[np.int64]) -> float | None:
    """The highest p99 of slices of at least 100 requests, in the order of completion; None without a request."""
    if latency_ns.size == 0:
        return None
    slices = np.array_split(latency_ns, max(1, latency_ns.size // _IN_SLICE))
    return max(float(np.percentile(one, 99, method="higher")) for one in slices)


def scale_out_ns(scale_outs: Sequence[ScaleOut], confidence: float = CONFIDENCE) -> Estimate | None:
    """The scale-out time over several passes; None if a replica never carried its share, or without a pass."""
    durations = [one.duration_ns for one in scale_outs if one.duration_ns is not None]
    if not durations or len(durations) < len(scale_outs):
        return None
    return estimate([LaunchValue(float(duration), 0.0) for duration in durations], SCALE_OUT.launch_sd, confidence)


def scale_out_record(scale_outs: Sequence[ScaleOut], unknown: str) -> ScaleOutRecord | None:
    """All passes as plain values for reports.

    ``unknown``: why the scale-out time is not known; empty if it is. Returns None if there is nothing to report.
    """
    if not scale_outs:
        return ScaleOutRecord(None, (), None, None, None, 0, 0, unknown) if unknown else None
    found = scale_out_ns(scale_outs)
    worst = [one.p99_ns for one in scale_outs if one.p99_ns is not None]
    before = [one.p99_before_ns for one in scale_outs if one.p99_before_ns is not None]
    return ScaleOutRecord(
        duration=None if found is None else astuple(found),
        passes_ns=tuple(one.duration_ns for one in scale_outs),
        ready_ns=fmean(one.ready_ns for one in scale_outs),
        p99_before_ns=max(before, default=None),
        p99_ns=max(worst, default=None),
        requests=sum(one.requests for one in scale_outs),
        failed=sum(one.failed for one in scale_outs),
        unknown=unknown,
    )
