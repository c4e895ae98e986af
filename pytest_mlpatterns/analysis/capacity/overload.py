"""What a service does beyond its NMRT: goodput, what it refuses, and the time until it has recovered.

Pure. Which loads are offered and for how long (:func:`plan_overload`), and what their samples show
(:func:`overload_of`). Goodput counts answers within a time, of the requests that were due in the window of a step: the
last two thirds of it, when the queues have filled.

A service that queues without a bound works all the time on requests that are already too late, so that its goodput
falls towards zero while its throughput stays: congestion collapse (Nagle, RFC 896, 1984; for services: Welsh & Culler,
Adaptive overload control for busy Internet servers, USITS 2003). One that refuses what it cannot serve keeps its
goodput. When a service is well again is one rule after such a load and after a step of a function beside the load.
"""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.statistics.distributions import binomial_tail
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD, t_quantile
from pytest_mlpatterns.records.capacity import Behaviour, Overload, OverloadStep
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.outcomes import REFUSALS, Failure
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import SECOND_NS, Unit, format_duration

PIECE_REQUESTS = 20  # Requests of a moving share: one of them is 5 %
RECOVERED = 0.95  # Share of the answers in time before that a recovered service has again
_LIKELY = 2.33
"""Standard deviations beyond which one measurement in a hundred lies, as the verdicts on other limits allow."""
_BY_CHANCE = 1e-4
"""Chance, with the share of late requests from before, of a number of them in a piece; a window has 1,000 pieces."""


class Recovery(Struct, frozen=True):
    """One observed recovery."""

    recovery_ns: float | None  # time that it took; None if it did not happen while it was watched
    watched_ns: float  # how long it was watched
    offered_rps: float  # requests that were due per second meanwhile
    leverage: float  # by how many percent the time changes if the capacity changes by one


def recovery_ns(samples: Samples, after: Window, limit_ns: float, *, before_ratio: float) -> float | None:
    """Time from the begin of a window after which requests are answered in time as before; None if that never was.

    It is when the first request in time was due from which on the next 20 requests, and all that follow, have 95 % of
    the share in time before. So a single late request later on does not matter.

    ``before_ratio``: share in time before.
    """
    due_ns, in_time = _in_order(samples, after, limit_ns)
    size = due_ns.size - PIECE_REQUESTS + 1
    if size < 1 or not before_ratio:
        return None
    wanted = RECOVERED * before_ratio
    sums = np.concatenate([[0], np.cumsum(in_time)])
    next_ones = _next_in_time(in_time) / PIECE_REQUESTS
    rest = (sums[-1] - sums[:size]) / (due_ns.size - np.arange(size))
    recovered = np.flatnonzero(in_time[:size] & (next_ones >= wanted) & (rest >= wanted))
    if not recovered.size:
        return None
    return float(due_ns[recovered[0]] - after.start_ns) if recovered[0] else 0.0


def unwell_since_ns(samples: Samples, within: Window, limit_ns: float, *, before_ratio: float) -> int | None:
    """When the first late request was due from which on surely more of the next 20 are late than before.

    ``samples``: requests; those up to 19 after the window count too. ``before_ratio``: share in time before. Returns
    its time on the clock of the samples; None if there is none.
    """
    due_ns, in_time = _in_order(samples, within, limit_ns)
    if due_ns.size < PIECE_REQUESTS:
        return None
    late = PIECE_REQUESTS - _next_in_time(in_time)
    found = np.flatnonzero(~in_time[: late.size] & (late >= _fewest_late(1 - before_ratio)))
    return int(due_ns[found[0]]) if found.size else None


def recovery_estimate(found: Sequence[Recovery]) -> Estimate:
    """The time to recover in the worst measurement, with an interval for another one.

    A measurement resolves the time in which 20 requests come. A capacity that differs by one percent (launches:
    :data:`LAUNCH_SD`) changes the time by the leverage. The lower end is the second worst of several measurements.

    ``found``: at least one. Returns nanoseconds; infinite if the service did not recover while it was watched, for
    which the lower end is then the time of watching.
    """
    several = math.sqrt(len(found))
    lows, values, highs = [], [], []
    for one in found:
        resolution_ns = PIECE_REQUESTS / one.offered_rps * SECOND_NS if one.offered_rps else one.watched_ns
        factor = math.exp(_LIKELY * one.leverage * LAUNCH_SD / several)
        values.append(math.inf if one.recovery_ns is None else one.recovery_ns)
        lows.append(one.watched_ns if one.recovery_ns is None else max(one.recovery_ns / factor - resolution_ns, 0.0))
        highs.append(values[-1] * factor + resolution_ns)
    return Estimate(max(values), sorted(lows)[-2:][0], max(highs))


def recovery_outcome(found: Estimate, limit_ns: float) -> Outcome:
    """Whether a time to recover keeps a limit, by its interval."""
    if found.high < limit_ns:
        return Outcome.PASS
    return Outcome.FAIL if found.low >= limit_ns else Outcome.INCONCLUSIVE


def _in_order(samples: Samples, window: Window, limit_ns: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """When the requests of a window were due, ascending, and which of them were answered in time."""
    inside = samples.due_in(window)
    order = np.argsort(samples.due_ns[inside], kind="stable")
    in_time = samples.succeeded[inside] & (samples.latency_ns[inside] <= limit_ns)
    return samples.due_ns[inside][order], in_time[order]


def _next_in_time(in_time: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of 20 requests from each on are in time; of those that 19 others follow."""
    sums = np.concatenate([[0], np.cumsum(in_time)])
    counts: NDArray[np.int64] = sums[PIECE_REQUESTS:] - sums[:-PIECE_REQUESTS]
    return counts


def _fewest_late(ratio: float) -> int:
    """The fewest of 20 requests that are hardly ever late together, if each is with this chance."""
    counts = range(2, PIECE_REQUESTS)
    rare = (late for late in counts if binomial_tail(late, PIECE_REQUESTS - late, ratio) < _BY_CHANCE)
    return next(rare, PIECE_REQUESTS)


BACK_RATIO = 0.8  # Load after the peak, and the one before it that the recovery is compared with
_RATIOS = (0.5, 0.8, 1.0, 1.25, 1.5, 2.0)  # Loads that are offered one after the other, in multiples of NMRT
_STEP_S, _SHORTEST_STEP_S = 2.0, 0.6
_WATCHED_STEPS = 3.0  # Length of the load after the peak, in steps, if no limit asks for more
_OVERHEAD_S = 0.15  # Start and end of one load
_FILLING = 1 / 3  # Part of a step in which the queues fill
_PIECES = 8  # Most pieces into which a load is cut for its interval
_DEFAULT_LIMIT = 10  # Without an objective an answer is in time within as many times the median at the lowest load
_KEPT, _COLLAPSED = 0.85, 0.5
"""Shares of the best goodput, from which on the peak keeps it, and below which it collapsed."""
_SHEDDING = 0.05  # Share of refused requests from which on the service sheds
_BUSY_FACTOR = 3
"""How many times less goodput neighbours may explain: with two of them on each core a service has a third of it."""


class OverloadPlan(Struct, frozen=True):
    """The loads to offer, as multiples of the NMRT, and their lengths; ``watched_s`` follows the last one."""

    ratios: tuple[float, ...]
    step_s: float
    watched_s: float
    cut: str = ""

    @property
    def backlog_s(self) -> float:
        """Time in which a service works off what the peak leaves to it, at its NMRT."""
        return (self.ratios[-1] - 1) * self.step_s


class OfferedLoad(Struct, frozen=True):
    """The samples of one load: arrivals at a multiple of the NMRT in the window, then perhaps at another one."""

    load_ratio: float  # multiple of the NMRT
    samples: Samples  # every request
    window: Window  # when it was offered
    watched_ns: int  # length of the load after the window, at 0.8 times the NMRT; 0 without
    limited: str | None  # why the load generator was the limit; None if it was not
    busy: str | None = None  # what took time that the deployment needed; None if nothing did


def plan_overload(up_to: float, left_s: float, *, watch_s: float = 0.0) -> OverloadPlan:
    """Which loads to offer, within a time: shorter steps if it is short, then fewer of them.

    A step above the NMRT also takes the time in which an unbounded queue works off what it left.

    ``watch_s``: time after the peak that a limit asks for; 0 for three steps.
    """
    ratios = (*(ratio for ratio in _RATIOS if ratio < up_to), up_to)
    step_s = _step_s(ratios, left_s, watch_s)
    cut = ""
    if step_s < _SHORTEST_STEP_S:
        ratios, step_s = (BACK_RATIO, up_to), max(_step_s((BACK_RATIO, up_to), left_s, watch_s), _SHORTEST_STEP_S)
        cut = "fewer steps, "
    if step_s < _STEP_S:
        cut += f"{step_s:.1f} s each, as {max(left_s, 0.0):.0f} s of the test's budget were left; raise budget="
    return OverloadPlan(ratios, step_s, watch_s or _WATCHED_STEPS * step_s, cut)


def overload_of(loads: Sequence[OfferedLoad], nmrt_rps: float, limit_ns: float, *, cut: str = "") -> Overload:
    """What loads show of the service.

    ``loads``: by ascending load; the last has a watched part. One of them is at 0.8 times the NMRT.
    """
    steps = tuple(_step(load, _settled(load.window), limit_ns) for load in loads)
    peak = loads[-1]
    end_ns = peak.window.end_ns
    after = Window(end_ns, end_ns + peak.watched_ns)
    back = _step(peak, _settled(after), limit_ns, load_ratio=BACK_RATIO)
    return Overload(
        nmrt_rps=nmrt_rps,
        limit_ns=limit_ns,
        steps=steps,
        back=back,
        recovery_ns=recovery_ns(peak.samples, after, limit_ns, before_ratio=_before(steps).in_time_ratio),
        watched_ns=float(peak.watched_ns),
        behaviour=_behaviour(steps),
        cut=cut,
    )


def default_limit_ns(loads: Sequence[OfferedLoad]) -> float:
    """The time within which an answer is in time if no objective sets it: ten times the median at the lowest load."""
    first = loads[0]
    latencies = first.samples.latency_ns[first.samples.successes_in(first.window)]
    return _DEFAULT_LIMIT * float(np.median(latencies)) if latencies.size else float(SECOND_NS)


def times_capacity(ratio: float) -> str:
    """A load in words: ``2 times the capacity (NMRT)``."""
    return f"{ratio:g} times the {METRICS['nmrt'].label}"


def goodput_metric(at: float, limit_ns: float) -> Metric:
    """The metric of the goodput at a multiple of the NMRT, as a share of the NMRT."""
    label = f"goodput (answers within {format_duration(limit_ns)}) at {times_capacity(at)}, as a share of it,"
    return Metric(f"goodput({at:g})", label, None, Unit.RATIO, better="higher", launch_sd=0.0)


def goodput_share(overloads: Sequence[Overload], nmrt: LaunchValue, at: float, *, confidence: float) -> Estimate:
    """Goodput at a load as a share of the NMRT, with an interval.

    Its standard error is that of the pieces of the step, of the NMRT and, with several measurements, of what launches
    differ by. Goodput can be zero, so that errors add up on the plain scale, not on the logarithm.
    """
    shares = [overload.goodput_ratio(at) for overload in overloads]
    steps = [step for one in overloads for step in one.steps if abs(step.load_ratio - at) < 1e-9]
    of_steps = [step.goodput_error_rps / one.nmrt_rps for step, one in zip(steps, overloads, strict=True)]
    value, count = fmean(shares), len(shares)
    of_launches = LAUNCH_SD if count > 1 else 0.0  # the NMRT is the first launch's
    of_steps_squared = sum(error**2 for error in of_steps) / count**2
    error = math.sqrt(of_steps_squared + value**2 * (nmrt.relative_error**2 + of_launches**2))
    half = t_quantile(confidence, sum(_pieces_of(step.requests) - 1 for step in steps)) * error
    return Estimate(value, max(value - half, 0.0), value + half)


def is_lost_anyway(overloads: Sequence[Overload], measured: Estimate, *, at: float, share: float) -> bool:
    """Whether busy neighbours cannot be why the goodput at a load is below a share of the NMRT.

    They make answers late, so requests time out and queues reject. They close no connection, and cost but a part.

    ``measured``: the goodput as a share of the NMRT.
    """
    steps = [step for one in overloads for step in one.steps if abs(step.load_ratio - at) < 1e-9]
    at_most = fmean(at * (1 - step.failed_ratio) for step in steps)
    return measured.high < share / _BUSY_FACTOR or at_most < share


def stays_failing(overload: Overload) -> bool:
    """Whether enough requests fail after the peak, not by being late, that busy neighbours cannot be the reason."""
    return 1 - overload.back.failed_ratio < RECOVERED * _before(overload.steps).in_time_ratio


def recovery_time(overloads: Sequence[Overload]) -> Estimate:
    """The time to recover in the worst measurement, with an interval for another one.

    A backlog drains at the difference between capacity and load, so a capacity that differs by one percent changes the
    time by ρ / (ρ - 1) + 0.8 / (1 - 0.8) percent after ρ times the NMRT; see :func:`recovery_estimate`.

    ``overloads``: at least one. Returns nanoseconds from the end of the peak; infinite if the service did not recover
    while it was watched, for which the lower end is then the time of watching.
    """
    return recovery_estimate([_recovery(one) for one in overloads])


def _recovery(overload: Overload) -> Recovery:
    peak = overload.peak.load_ratio
    leverage = peak / (peak - 1) + BACK_RATIO / (1 - BACK_RATIO) if peak > 1 else 0.0
    return Recovery(overload.recovery_ns, overload.watched_ns, overload.back.offered_rps, leverage)


def judge_recovery(overloads: Sequence[Overload], limit_ns: float) -> Verdict:
    """Whether the service recovers within a time, by the interval of the worst measurement.

    ``overloads``: at least one.
    """
    worst = max(overloads, key=lambda one: math.inf if one.recovery_ns is None else one.recovery_ns)
    found, limit = recovery_time(overloads), format_duration(limit_ns)
    again = f"answers within {format_duration(worst.limit_ns)} as before the peak"
    peak = times_capacity(worst.peak.load_ratio)
    outcome = recovery_outcome(found, limit_ns)
    if worst.recovery_ns is None:
        after = f"{format_duration(worst.watched_ns)} after a load of {peak}"
        reason = f"the service has not recovered {after}; expected {again} within {limit}"
    else:
        between = f"{_shown(found.low)} to {format_duration(found.high)}"
        reason = (
            f"recovery {_shown(found.value)} ({between}) after a load of {peak} ({again}) {outcome.verb} within {limit}"
        )
    return Verdict("recovery", "limit", outcome, reason)


def _shown(recovery_ns: float) -> str:
    return format_duration(recovery_ns) if recovery_ns else "at once"


def _step_s(ratios: Sequence[float], left_s: float, watch_s: float) -> float:
    """The length of a step with which the loads take the time that is left, at most the usual one."""
    parts = sum(1 + max(ratio - 1, 0) for ratio in ratios) + (0 if watch_s else _WATCHED_STEPS)
    return min((left_s - watch_s - _OVERHEAD_S * len(ratios)) / parts, _STEP_S)


def _before(steps: Sequence[OverloadStep]) -> OverloadStep:
    """The step that the load after the peak is compared with."""
    return next((step for step in steps if step.load_ratio == BACK_RATIO), steps[0])


def _settled(window: Window) -> Window:
    """The part of a window in which the queues have filled."""
    return Window(window.start_ns + round(_FILLING * window.duration_ns), window.end_ns)


def _pieces_of(requests: int) -> int:
    """Pieces of a window whose scatter is the error of its goodput."""
    return max(2, min(_PIECES, requests // PIECE_REQUESTS))


def _step(load: OfferedLoad, window: Window, limit_ns: float, *, load_ratio: float | None = None) -> OverloadStep:
    samples = load.samples
    inside = samples.due_in(window)
    outcome, good = samples.outcome[inside], samples.succeeded[inside]
    due_ns, latency_ns = samples.due_ns[inside], samples.latency_ns[inside]
    in_time = good & (latency_ns <= limit_ns)
    rejected, timed_out = np.isin(outcome, REFUSALS), outcome == Failure.TIMEOUT
    failed = ~good & ~rejected & ~timed_out
    kinds = Counter(outcome[failed].tolist()).most_common(1)
    total, seconds = max(int(inside.sum()), 1), window.duration_ns / SECOND_NS
    pieces = _pieces_of(total)
    edges = np.linspace(window.start_ns, window.end_ns, pieces + 1)
    rates = np.histogram(due_ns[in_time], edges)[0] * pieces / seconds
    error_rps = float(np.std(rates, ddof=1)) / math.sqrt(pieces)
    if pieces < _PIECES:  # few pieces may be alike by chance
        kept = int(in_time.sum())
        error_rps = max(error_rps, math.sqrt(kept * (total - kept) / total) / seconds)
    return OverloadStep(
        load_ratio=load.load_ratio if load_ratio is None else load_ratio,
        offered_rps=int(inside.sum()) / seconds,
        requests=int(inside.sum()),
        goodput_rps=int(in_time.sum()) / seconds,
        goodput_error_rps=error_rps,
        in_time_ratio=float(in_time.sum()) / total,
        late_ratio=float((good & ~in_time).sum()) / total,
        rejected_ratio=float(rejected.sum()) / total,
        timed_out_ratio=float(timed_out.sum()) / total,
        failed_ratio=float(failed.sum()) / total,
        p99_ns=float(np.percentile(latency_ns[good], 99, method="higher")) if good.any() else None,
        limited=load.limited,
        busy=load.busy,
        failed_outcome=kinds[0][0] if kinds else None,
    )


def _behaviour(steps: Sequence[OverloadStep]) -> Behaviour:
    """What the goodput at the peak is of the best one."""
    best, peak = max(step.goodput_rps for step in steps), steps[-1]
    kept = peak.goodput_rps / best if best else 0.0
    if kept >= _KEPT:
        return Behaviour.SHEDS if peak.rejected_ratio >= _SHEDDING else Behaviour.HOLDS
    return Behaviour.COLLAPSES if kept < _COLLAPSED else Behaviour.DEGRADES
