"""What a step of a function beside the load did to the requests around it, and whether it hurt them.

Pure. A request is hurt if it failed, or if its latency is above a limit: an absolute time, or a multiple of a
percentile of the requests before the step. The percentile around the step keeps the limit if the share of hurt requests
is at most what the percentile leaves: 1 % for p99. That share has an interval (Wilson), and the percentile before the
step has one too, by its order statistics; a verdict rests on the unfavourable ends of both. Failing needs two launches
that show it, as far as there are two, since the machine can stall once for another reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.capacity.overload import (
    Recovery,
    recovery_estimate,
    recovery_ns,
    recovery_outcome,
    unwell_since_ns,
)
from pytest_mlpatterns.analysis.statistics.intervals import min_samples, order_bounds, wilson_interval
from pytest_mlpatterns.records.capacity import DuringStep, LatencyMoment, StepImpact
from pytest_mlpatterns.records.launch import Estimate, Launch
from pytest_mlpatterns.records.outcomes import REFUSALS, Failure
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import SECOND_NS, format_duration, format_percent
from pytest_mlpatterns.wording import count

_AFTER_NS = SECOND_NS
"""Time after a step that still belongs to it: what a step leaves behind shows within it, and it has enough requests."""
_FEWEST_BEFORE = 20  # Fewest requests before a step that it is compared with
_MOMENTS = 80  # Pieces into which a window is cut for its course of latency
_LEVERAGE = 1.0
"""By how many percent the time to recover changes with the capacity: most of it is the time of the step itself."""


class HurtLimit(Struct, frozen=True):
    """When requests are hurt."""

    percentile: float  # that keeps the limit
    ratio: float | None  # limit as a multiple of the percentile before the step; None for an absolute one
    limit_ns: float | None = None  # absolute limit; None for a multiple

    @property
    def text(self) -> str:
        """The limit alone, ``2x`` or ``200 ms``."""
        return f"{self.ratio:g}x" if self.limit_ns is None else format_duration(self.limit_ns)

    def times(self, factor: float) -> HurtLimit:
        """The limit as many times as high."""
        if self.limit_ns is not None:
            return replace(self, limit_ns=self.limit_ns * factor)
        assert self.ratio is not None
        return replace(self, ratio=self.ratio * factor)

    def of(self, before_ns: NDArray[np.float64]) -> float:
        """The limit in nanoseconds beside these latencies before a step; infinite if they give none."""
        if self.limit_ns is not None:
            return self.limit_ns
        assert self.ratio is not None
        return self.ratio * _percentile(before_ns, self.percentile)

    def bounds(self, before_ns: NDArray[np.float64], confidence: float) -> tuple[float, float]:
        """The ends of the interval of the limit; infinite above if too few requests bound the percentile."""
        if self.limit_ns is not None:
            return self.limit_ns, self.limit_ns
        assert self.ratio is not None
        size = before_ns.size
        if not size:
            return 0.0, math.inf
        low, high = order_bounds(size, self.percentile, confidence)
        ordered = np.sort(before_ns)
        is_bounded = size >= min_samples(self.percentile, (1 + confidence) / 2)
        return self.ratio * float(ordered[low]), self.ratio * float(ordered[high]) if is_bounded else math.inf


USUAL_LIMIT = HurtLimit(99, 2.0)  # The limit of a step that no assertion judges


@dataclass(frozen=True)
class AroundStep:
    """The requests around one step of one launch."""

    step: DuringStep  # which one
    launch: int  # number of the launch, from 1
    of: Launch  # the launch
    reference: Window  # time before the step with which it is compared
    watched_end_ns: int  # begin of the next step, or end of the window
    _recoveries: dict[HurtLimit, float | None] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def before_ns(self) -> NDArray[np.float64]:
        """Latencies of the requests that were due and done in the reference; infinite for failed ones."""
        samples = self.of.samples
        return self._latencies(samples.due_in(self.reference) & (samples.done_ns < self.reference.end_ns))

    def recovery_ns(self, limit: HurtLimit) -> float | None:
        """Time from the begin of the step until it is well again; 0 if it was never unwell, None if not while watched.

        The step may hurt late, or twice, so the rule begins again as long as the step, and a second after it, last.
        """
        if limit not in self._recoveries:
            self._recoveries[limit] = self._recovery_ns(limit)
        return self._recoveries[limit]

    def _recovery_ns(self, limit: HurtLimit) -> float | None:
        limit_ns, samples, begin_ns = limit.of(self.before_ns), self.of.samples, self.step.begin_ns
        before_ratio = self._before_ratio(limit)
        since_ns, back_ns = begin_ns, 0.0
        while since_ns < self._looked_end_ns:
            ahead = Window(since_ns, self.watched_end_ns)
            found_ns = unwell_since_ns(samples, ahead, limit_ns, before_ratio=before_ratio)
            if found_ns is None or found_ns >= self._looked_end_ns:
                break
            after = Window(found_ns, self.watched_end_ns)
            took_ns = recovery_ns(samples, after, limit_ns, before_ratio=before_ratio)
            if took_ns is None:
                return None
            since_ns = found_ns + max(int(took_ns), 1)
            back_ns = float(since_ns - begin_ns)
        return back_ns

    def around(self, limit: HurtLimit) -> NDArray[np.bool_]:
        """Mask of the requests around the step: in flight at its begin, or due from then on.

        It lasts until a second after its end, or until the service is well again if that is later.
        """
        samples, begin_ns = self.of.samples, self.step.begin_ns
        recovery = self.recovery_ns(limit)
        end_ns = self.watched_end_ns if recovery is None else max(self._looked_end_ns, begin_ns + round(recovery))
        in_flight = samples.due_in(Window(self.of.window.start_ns, begin_ns)) & (samples.done_ns >= begin_ns)
        mask: NDArray[np.bool_] = in_flight | samples.due_in(Window(begin_ns, end_ns))
        return mask

    def around_ns(self, limit: HurtLimit) -> NDArray[np.float64]:
        """Latencies of the requests around the step; infinite for failed ones."""
        return self._latencies(self.around(limit))

    def failed(self, limit: HurtLimit) -> NDArray[np.bool_]:
        """Mask of the requests around the step that failed."""
        mask: NDArray[np.bool_] = self.around(limit) & self.of.samples.failed
        return mask

    def watched(self, limit: HurtLimit) -> Recovery:
        """Its recovery, and how well it is known."""
        watched_ns = max(self.watched_end_ns - self.step.begin_ns, 1)
        due = int(self.of.samples.due_in(Window(self.step.begin_ns, self.watched_end_ns)).sum())
        return Recovery(self.recovery_ns(limit), float(watched_ns), due * SECOND_NS / watched_ns, _LEVERAGE)

    def _before_ratio(self, limit: HurtLimit) -> float:
        """Share of the requests before the step that were not hurt; a share of few requests is never 1."""
        if self.before_ns.size < _FEWEST_BEFORE:
            return limit.percentile / 100
        hurt = int(hurt_mask(self.before_ns, limit.of(self.before_ns)).sum())
        return 1 - (hurt + 1) / (self.before_ns.size + 2)

    @property
    def _looked_end_ns(self) -> int:
        return min(self.step.end_ns + _AFTER_NS, self.watched_end_ns)

    def _latencies(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        samples = self.of.samples
        return np.where(samples.succeeded, samples.latency_ns, np.inf)[mask]


def around_steps(launches: Sequence[Launch]) -> list[AroundStep]:
    """Every step of every launch, with what it is compared with: the time before it, since the one before was over."""
    return [found for number, launch in enumerate(launches, start=1) for found in _of_launch(launch, number)]


def _of_launch(launch: Launch, number: int) -> list[AroundStep]:
    found: list[AroundStep] = []
    steps = sorted(launch.steps, key=lambda one: one.begin_ns)
    since_ns, reference = launch.window.start_ns, Window(launch.window.start_ns, launch.window.start_ns)
    for place, step in enumerate(steps):
        before = Window(min(since_ns, step.begin_ns), step.begin_ns)
        samples = launch.samples
        known = int((samples.due_in(before) & (samples.done_ns < before.end_ns)).sum())
        if known >= _FEWEST_BEFORE or not reference.duration_ns:
            reference = before
        later = [one.begin_ns for one in steps[place + 1 :] if one.begin_ns >= step.end_ns]
        one = AroundStep(step, number, launch, reference, min([*later, launch.window.end_ns]))
        recovery = one.recovery_ns(USUAL_LIMIT)
        since_ns = launch.window.end_ns if recovery is None else max(step.end_ns, step.begin_ns + round(recovery))
        found.append(one)
    return found


def impacts_of(found: Sequence[AroundStep], limit: HurtLimit) -> tuple[StepImpact, ...]:
    """What each step did, for reports."""
    return tuple(_impact(one, limit) for one in found)


def _impact(one: AroundStep, limit: HurtLimit) -> StepImpact:
    start_ns, samples = one.of.window.start_ns, one.of.samples
    limit_ns, around_ns, mask = limit.of(one.before_ns), one.around_ns(limit), one.around(limit)
    latencies = samples.latency_ns[mask]
    return StepImpact(
        name=one.step.name,
        launch=one.launch,
        begin_ns=one.step.begin_ns - start_ns,
        end_ns=one.step.end_ns - start_ns,
        requests=int(mask.sum()),
        hurt=int(hurt_mask(around_ns, limit_ns).sum()),
        failed=int(one.failed(limit).sum()),
        limit_ns=None if math.isinf(limit_ns) else float(limit_ns),
        before_requests=one.before_ns.size,
        before_ns=_finite(_percentile(one.before_ns, limit.percentile)),
        around_ns=_finite(_percentile(around_ns, limit.percentile)),
        worst_ns=float(latencies.max()) if latencies.size else None,
        recovery_ns=one.recovery_ns(limit),
        watched_ns=float(one.watched_end_ns - one.step.begin_ns),
    )


def latency_moments(launch: Launch) -> tuple[LatencyMoment, ...]:
    """The course of the latency through a window, for a chart."""
    window, samples = launch.window, launch.samples
    edges = np.linspace(window.start_ns, window.end_ns, _MOMENTS + 1).astype(np.int64)
    moments = []
    for begin_ns, end_ns in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        inside = samples.due_in(Window(begin_ns, end_ns))
        latencies = samples.latency_ns[inside & samples.succeeded]
        moments.append(
            LatencyMoment(
                seconds=(end_ns - window.start_ns) / SECOND_NS,
                median_ns=float(np.median(latencies)) if latencies.size else None,
                worst_ns=float(latencies.max()) if latencies.size else None,
                failed=int((inside & samples.failed).sum()),
            )
        )
    return tuple(moments)


def judge_hurt(found: Sequence[AroundStep], limit: HurtLimit, *, confidence: float) -> Verdict:
    """Whether the percentile of requests around steps of one name, at least one, keeps its limit, over all launches."""
    before_ns = np.concatenate([one.before_ns for one in found])
    around_ns = [one.around_ns(limit) for one in found]
    everything = np.concatenate(around_ns)
    low_ns, high_ns = limit.bounds(before_ns, confidence)
    allowed = 1 - limit.percentile / 100
    least = _hurt_share(everything, high_ns, confidence).low
    most = _hurt_share(everything, low_ns, confidence).high
    showing = {
        one.launch
        for one, values in zip(found, around_ns, strict=True)
        if values.size and hurt_mask(values, limit.of(one.before_ns)).mean() > allowed
    }
    is_confirmed = len(showing) >= min(2, len({one.launch for one in found}))
    outcome = Outcome.PASS if most < allowed else Outcome.INCONCLUSIVE
    if least > allowed and is_confirmed:
        outcome = Outcome.FAIL
    name = found[0].step.name
    now, before = (_time(_percentile(values, limit.percentile)) for values in (everything, before_ns))
    around = f"p{limit.percentile:g} latency {now} around the step {name}"
    reason = f"{around}, {before} before it; limit {limit.text}; {_seen(found, limit)}"
    if outcome is Outcome.INCONCLUSIVE:
        reason = f"{reason}; {_why_open(before_ns, everything.size, limit, confidence=confidence)}"
    return Verdict("unhurt", "limit", outcome, reason)


def judge_errors(found: Sequence[AroundStep], limit: HurtLimit, most: float, *, confidence: float) -> Verdict:
    """Whether few enough of the requests around a step failed.

    ``found``: the steps of one name, at least one. ``limit``: of their percentile, which decides how long the step
    lasts. ``most``: number of requests that may fail in each launch, from 1 on; or below 1 their share over all
    launches. ``confidence``: of the interval of a share, two-sided.
    """
    failed = [int(one.failed(limit).sum()) for one in found]
    requests = [int(one.around(limit).sum()) for one in found]
    name, worst = found[0].step.name, max(range(len(found)), key=failed.__getitem__)
    seen = f"{failed[worst]:,} of {count(requests[worst], 'request')} around the step {name} failed"
    if most == 0 or most >= 1:
        outcome = Outcome.PASS if failed[worst] <= most else Outcome.FAIL
        if not sum(requests):
            outcome = Outcome.INCONCLUSIVE
        return Verdict("unhurt", "limit", outcome, f"{seen}, allowed {most:,.0f}; {_seen(found, limit)}")
    share = wilson_interval(sum(failed), max(sum(requests), 1), confidence)
    outcome = Outcome.PASS if share.high < most else Outcome.FAIL if share.low > most else Outcome.INCONCLUSIVE
    between = f"{format_percent(share.low)} to {format_percent(share.high)}"
    words = f"{format_percent(share.value)} ({between}) of the requests around the step {name} failed"
    return Verdict("unhurt", "limit", outcome, f"{words}, allowed {format_percent(most)}; {_seen(found, limit)}")


def judge_step_recovery(found: Sequence[AroundStep], limit: HurtLimit, within_ns: float) -> Verdict:
    """Whether the requests are answered as before a step within a time of its begin, by the interval of the worst one.

    ``found``: the steps of one name, at least one.
    """
    estimate = recovery_estimate([one.watched(limit) for one in found])
    outcome = recovery_outcome(estimate, within_ns)
    name, within = found[0].step.name, format_duration(within_ns)
    if math.isinf(estimate.value):
        watched = format_duration(min(one.watched(limit).watched_ns for one in found))
        words = f"the service is not well again {watched} after the step {name} began; expected within {within}"
        if outcome is Outcome.INCONCLUSIVE:
            words += '; watch it longer: perf(duration="20s")'
    else:
        took = f"{_shown(estimate.value)} ({_shown(estimate.low)} to {_shown(estimate.high)})"
        words = f"well again {took} after the step {name} began {outcome.verb} within {within}"
    return Verdict("recovery", "limit", outcome, f"{words}; {_seen(found, limit)}")


def is_failed_anyway(found: Sequence[AroundStep], limit: HurtLimit, most: float) -> bool:
    """Whether more requests around a step failed than may, in ways that busy neighbours cannot cause."""
    late = (*REFUSALS, Failure.TIMEOUT)
    lost = [one.failed(limit) & ~np.isin(one.of.samples.outcome, late) for one in found]
    if most == 0 or most >= 1:
        return max(int(mask.sum()) for mask in lost) > most
    requests = sum(int(one.around(limit).sum()) for one in found)
    return sum(int(mask.sum()) for mask in lost) > most * requests


def worst_of(impacts: Sequence[StepImpact]) -> StepImpact:
    """The step that hurt most: one after which the service was not well again, else the one with most hurt requests."""
    return max(impacts, key=lambda one: (one.recovery_ns is None, one.hurt))


def describe_impact(impact: StepImpact) -> str:
    """What one step did, in half a sentence: ``52 of 153 requests hurt, 3 of them failed, worst 510 ms, …``."""
    if not impact.hurt:
        return f"none of {count(impact.requests, 'request')} hurt"
    failed = f", {impact.failed:,} of them failed" if impact.failed else ""
    worst = "" if impact.worst_ns is None else f", worst {format_duration(impact.worst_ns)}"
    if impact.recovery_ns is None:
        back = f", not well again after {format_duration(impact.watched_ns)}"
    elif impact.recovery_ns:
        back = f", well again after {format_duration(impact.recovery_ns)}"
    else:
        back = ""
    return f"{impact.hurt:,} of {count(impact.requests, 'request')} hurt{failed}{worst}{back}"


def hurt_mask(values_ns: NDArray[np.float64], limit_ns: float) -> NDArray[np.bool_]:
    """Which of these requests are hurt; a failed one has an infinite latency, and always is."""
    mask: NDArray[np.bool_] = (values_ns > limit_ns) | np.isinf(values_ns)
    return mask


def _hurt_share(values_ns: NDArray[np.float64], limit_ns: float, confidence: float) -> Estimate:
    """Share of hurt requests with its interval; without requests it can be any."""
    if not values_ns.size:
        return Estimate(0.0, 0.0, 1.0)
    return wilson_interval(int(hurt_mask(values_ns, limit_ns).sum()), values_ns.size, confidence)


def _seen(found: Sequence[AroundStep], limit: HurtLimit) -> str:
    """The launch in which the step hurt most."""
    impacts = impacts_of(found, limit)
    launches = len({one.launch for one in impacts})
    which = f"of {launches} launches the worst: " if launches > 1 else ""
    return f"{which}{describe_impact(worst_of(impacts))}"


def _why_open(before_ns: NDArray[np.float64], around: int, limit: HurtLimit, *, confidence: float) -> str:
    """Which requests are too few, if any are."""
    needed = min_samples(limit.percentile, (1 + confidence) / 2)
    if limit.limit_ns is None and before_ns.size < needed:
        few = f"{count(before_ns.size, 'request')} before the step are too few"
        return f"{few} for their p{limit.percentile:g}, which needs {needed:,}; offer more load, or judge p95"
    decided = math.ceil(_without_hurt(1 - limit.percentile / 100, confidence))
    if around < decided:
        few = f"{count(around, 'request')} around the step are too few"
        return f"{few}, {decided:,} without a hurt one decide; offer more load, or judge p95"
    return "more launches may decide it"


def _without_hurt(allowed: float, confidence: float) -> float:
    """Requests without a hurt one whose interval is below a share: z² (1 - share) / share of the Wilson interval."""
    one = wilson_interval(0, 1, confidence).high  # z² / (1 + z²)
    return one / (1 - one) * (1 - allowed) / allowed


def _shown(recovery_ns: float) -> str:
    return format_duration(recovery_ns) if recovery_ns else "0 s"


def _time(value_ns: float) -> str:
    return format_duration(value_ns) if math.isfinite(value_ns) else "infinite"


def _percentile(values_ns: NDArray[np.float64], percentile: float) -> float:
    """A percentile of latencies, the higher of two neighbours; infinite if it falls on a failed request, or of none."""
    if not values_ns.size:
        return math.inf
    ordered = np.sort(values_ns)
    return float(ordered[min(math.ceil(percentile / 100 * values_ns.size) - 1, values_ns.size - 1)])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
