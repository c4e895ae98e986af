"""From estimates to PASS, FAIL or INCONCLUSIVE, with the reason in words.

Pure. A verdict compares an interval with a limit, or an interval of a change with a tolerance; never one number with
another.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import partial

from msgspec.structs import replace

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.health.sustained import MAX_ERROR_RATIO, Fault, InvalidReason, why_limited
from pytest_mlpatterns.analysis.metrics.metric import LatencyPercentile, Location, Metric, StreamPercentile
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.distributions import Modes
from pytest_mlpatterns.analysis.statistics.intervals import CHANGE_CONFIDENCE, estimate, ratio_of, ratio_of_pairs
from pytest_mlpatterns.records.launch import REQUESTS_OF_WINDOW, Estimate, LaunchValue
from pytest_mlpatterns.records.outcomes import REFUSALS, Failure, FirstFailure, describe_failures
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import SECOND_NS, format_duration, format_percent, format_percents

_ROUNDING = 1e-12  # 110 against 100 is 10 % more, not 10.000000000000009 %
_SMALLEST = 1e-9  # Smallest divisor, in place of a value of zero
GUARD_ALPHA = 0.005
"""Probability, at each interim look and for each guard, of failing a change exactly at the tolerance.

Unchanged metrics are far from their tolerances: ``benchmarks/verdict_simulation.py`` counts the false alarms of all.
"""
_SIGN = 0.90
"""Confidence of the interval above zero with which a mean of sampled requests is suspected: 5 % are beyond each end."""
_MOST_MORE = 20  # Most further launches that are advised
_LAUNCHES_OF_BUDGET = 4
"""Windows that an advised budget has time for: starts and warm-ups take about one, and three launches decide most."""


def why_invalid(
    metrics: Metrics, *, errors_count: bool = True, may_refuse: bool = False, judged_ns: float = 0.0
) -> InvalidReason | None:
    """Why a measurement supports no verdict; None if it does.

    ``errors_count``: whether too many failed requests are such a reason; they are not for a verdict on the error rate.
    ``may_refuse``: whether the service may refuse requests, since the load is meant to exceed its capacity.
    ``judged_ns``: latency that is judged, if that is more than the median; a lag of the generator matters beside it.
    """
    if silence := next(filter(None, (launch.silence for launch in metrics.launches)), ""):
        return InvalidReason(silence, Fault.SERVICE)
    failed, limited = sum(metrics.failures.values()), metrics.why_limited(judged_ns)
    first = metrics.first_failure
    why = _why_unasked(metrics.failures)
    if errors_count:
        why = why_too_many_failed(metrics.failures, metrics.requests, first, may_refuse=may_refuse)
    if not metrics.requests:
        why = _none_due(metrics)
    elif failed == metrics.requests:
        kinds = describe_failures(metrics.failures, first)
        why = f"none of {failed:,} requests succeeded ({kinds}){_overload(metrics)}"
    if why is not None:
        return InvalidReason(why, Fault.SERVICE)
    if limited is None:
        return None
    by_client = any(one.generator.client and why_limited(one.generator) for one in metrics.launches)
    return InvalidReason(limited, Fault.CLIENT if by_client else Fault.GENERATOR)


def _none_due(metrics: Metrics) -> str:
    """Why no request was due in the window, and how long it should be."""
    launch = metrics.launches[-1]
    longest_ns, window_ns = launch.longest_answer_ns, launch.window.duration_ns
    if launch.open_loop or longest_ns < window_ns:
        return "no request was due in the measured window; measure longer (duration=) or with more load"
    needed_s = math.ceil(REQUESTS_OF_WINDOW * longest_ns / SECOND_NS)
    return (
        f"no request was due in the measured window of {format_duration(window_ns)}, because a request takes "
        f'{format_duration(longest_ns)}; give duration="{needed_s}s" and budget="{_LAUNCHES_OF_BUDGET * needed_s}s"'
    )


def _overload(metrics: Metrics) -> str:
    """The rate that was asked for and the rate of the answers before the window, if nothing else explains time-outs."""
    asked_rps = metrics.launches[-1].rate_rps
    samples = metrics.launches[-1].samples
    good = samples.succeeded
    if asked_rps is None or set(metrics.failures) != {Failure.TIMEOUT} or not good.any():
        return ""
    answered_rps = int(good.sum()) * 1e9 / int(samples.done_ns[good].max() - samples.due_ns.min())
    if answered_rps >= asked_rps:
        return ""
    return f"; the service answers about {answered_rps:,.0f} a second; {asked_rps:,.0f} a second are asked"


def why_too_many_failed(
    failures: Mapping[int, int], requests: int, first: FirstFailure | None = None, *, may_refuse: bool = False
) -> str | None:
    """How many requests failed and of what, if over 5 % did, or one was answered twice; None otherwise.

    ``first``: the first failed input and its error; None if it is not known.
    """
    if may_refuse:
        requests -= sum(number for outcome, number in failures.items() if outcome in REFUSALS)
        failures = {outcome: number for outcome, number in failures.items() if outcome not in REFUSALS}
    failed = sum(failures.values())
    if failed <= MAX_ERROR_RATIO * requests:
        return _why_unasked(failures)
    return (
        f"{failed:,} of {requests:,} requests failed ({describe_failures(failures, first)}), "
        f"expected at most {format_percent(MAX_ERROR_RATIO)}; the times of the others alone would mislead"
    )


def _why_unasked(failures: Mapping[int, int]) -> str | None:
    """Why answers may belong to other requests, since one came without a request; None if none did."""
    found = failures.get(Failure.UNASKED, 0)
    if not found:
        return None
    return (
        f"{wording.count(found, 'answer')} came without a request; over HTTP/1.1 the answer after such a one may "
        "belong to the request before; let the service answer each request once"
    )


def describe_estimate(metric: Metric, value: Estimate) -> str:
    """An estimate as text: ``median latency 4.12 ms (4.05 ms to 4.19 ms)``."""
    if value.low == value.high:
        return f"{metric.label} {metric.show(value.value)}"
    return f"{metric.label} {metric.show(value.value)} ({metric.show(value.low)} to {metric.show(value.high)})"


def judge_limit(
    metric: Metric,
    measured: Estimate,
    limit: float,
    *,
    launches: int | None = None,
    modes: Modes | None = None,
    is_only: bool = False,
) -> Verdict:
    """Compare with a limit that the test asserts.

    PASS if the whole interval is within the limit (the limit itself included if higher is better, excluded if lower
    is), FAIL if the whole interval is beyond it.

    ``limit``: in the metric's unit. ``launches``: that the interval rests on, for messages. ``modes``: of the times
    that the metric is a percentile of; None if they have one. ``is_only``: whether the test wants no further launch.
    """
    below = metric.better == "lower"
    if measured.high < limit if below else measured.low >= limit:
        outcome = Outcome.PASS
    elif measured.low >= limit if below else measured.high < limit:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE
    if outcome is Outcome.INCONCLUSIVE and launches is not None:
        shown = f"{metric.label} {_range(metric, measured.low, measured.high)}"
        reason = f"{shown} includes the limit of {metric.show(limit)} {_after(launches)}"
        why_open = None
        if modes is not None and measured.low < modes.valley < measured.high:
            why_open = WhyOpen(OpenBy.MODES, _either_mode(metric, modes))
            reason += f"; {why_open}"
        elif metric.launch_sd > 0 and min(measured.low, limit) > 0:
            half, apart = math.log(measured.high / measured.low) / 2, abs(math.log(measured.value / limit))
            words, suffices = _what_helps(half, apart, launches)
            why_open = None if suffices else WhyOpen(OpenBy.LAUNCHES, words)
            if is_only:
                words = f"it is {format_percent(apart)} away, and one launch shows ±{format_percent(half)}"
                why_open = WhyOpen(OpenBy.EDGE, words)
            reason += f"; {words}"
        return Verdict(metric.name, "limit", outcome, reason, why_open=why_open)
    wanted = f"{'below' if below else 'at least'} {metric.show(limit)}"
    return Verdict(metric.name, "limit", outcome, f"{describe_estimate(metric, measured)} {outcome.verb} {wanted}")


def _after(launches: int) -> str:
    return f"after {wording.count(launches, 'launch', 'launches')}"


def judge_beyond_failures(metric: Metric, measured: Estimate, limit: float, *, metrics: Metrics) -> Verdict:
    """The verdict on a time that may have no value, because enough requests failed: they are the latest."""
    failed = format_percent(sum(metrics.failures.values()) / metrics.requests)
    outcome = Outcome.FAIL if measured.low >= limit else Outcome.INCONCLUSIVE
    reason = (
        f"{metric.label} {outcome.verb} below {metric.show(limit)}: {failed} of the "
        f"requests failed ({describe_failures(metrics.failures)}), a failed request counts as infinitely late"
    )
    if isinstance(metric.kind, LatencyPercentile | StreamPercentile):
        reason += f", and {format_percent(1 - metric.kind.percentile / 100)} may take longer"
    return Verdict(metric.name, "limit", outcome, reason)


_FROM_DUE = "mean", "ttft"  # Metrics that count from when a request was due, beside the percentiles of the latency


def judge_busy(
    metric: Metric, metrics: Metrics, limit: float, *, callers: int | None, confidence: float
) -> Verdict | None:
    """The verdict on a latency beside a load generator that was busy, whose latencies are at least the real ones.

    It also sends less, so what a caller waited for it counts too: with a quicker one the service would have that wait.

    ``callers``: of a closed loop; None of another load. Returns None if the limit is not kept, or does not limit a
    latency from above: the generator may be the reason.
    """
    report, later_ns = metrics.launches[0].generator, 0.0
    if callers is not None:
        later_ns = sum(one.samples.idle_ns(one.window, callers) for one in metrics.launches) / metrics.requests
    is_latency = isinstance(metric.kind, LatencyPercentile) or metric.name.partition(":")[0] in _FROM_DUE
    is_bound = is_latency and metric.better == "lower" and (callers is not None or metrics.launches[0].open_loop)
    measured = metrics.interval_of(metric, confidence) if is_bound and not metrics.not_sustained else None
    if measured is None or measured.value + later_ns >= limit:
        return None
    bound = Estimate(*(value + later_ns for value in astuple(measured)))
    waits = f", with the {format_duration(later_ns)} that a caller waited for it" if later_ns else ""
    who = f"perf_client {report.client}" if report.client else "the load generator"
    found = judge_limit(metric, bound, limit, launches=len(metrics.launches))
    return found.saying(f"{who} was busy: real latencies are at most these{waits}")


def judge_change(  # noqa: PLR0913 - both samples, and how they are judged
    metric: Metric,
    present: Sequence[LaunchValue],
    baseline: Sequence[LaunchValue],
    *,
    tolerance: float,
    plan: SequentialPlan | None = None,
    launches: int | None = None,
    in_flight: int | None = None,
) -> Verdict:
    """Compare with a baseline.

    The change is present/baseline - 1, turned so that worse is positive if higher is better. FAIL if the whole
    interval of the change is beyond the tolerance and the metric's absolute floor; PASS when the whole interval is
    within the larger of the two.

    ``present``: one value per launch, at least one. ``tolerance``: largest acceptable worsening, 0.10 for 10 %.
    ``plan``: confidence of each end of the interval at each interim look; None for a single look at 99 %.
    """
    varies = _varies(metric, present, baseline)
    now, then = (_middle(metric, side, varies=varies) for side in (present, baseline))
    change = _change(metric, present, baseline, levels=_levels(plan, len(present)))
    allowed = _allowed(metric, tolerance, then.value, varies=varies, in_flight=in_flight)
    outcome = Outcome.FAIL if change.low > allowed + _ROUNDING else Outcome.INCONCLUSIVE
    if change.high <= allowed + _ROUNDING:
        outcome = Outcome.PASS
    found = Verdict(metric.name, "baseline", outcome, "", change, tolerance, then.value, now.value)
    if isinstance(metric.kind, Location):
        found = replace(found, metric=metric.kind.stands_for, judged_by=metric.name)
    reason = f"{metric.label} {metric.show(then.value)} → {metric.show(now.value)}: "
    if outcome is Outcome.INCONCLUSIVE and launches is not None:
        floor = f" ({metric.floor_text})" if allowed > tolerance else ""
        reason += f"{_undecided(change, allowed)}{floor} {_after(launches)}"
        return replace(found, reason=reason)
    floor = f"; changes up to {metric.floor_text} do not count" if tolerance < change.high <= allowed else ""
    decided = _decided(change, "99 % interval" if varies else "range")
    return replace(found, reason=f"{reason}{decided}; tolerance {format_percent(tolerance)}{floor}")


def judge_guard(  # noqa: PLR0913 - both samples, and how they are judged
    metric: Metric,
    present: Sequence[LaunchValue],
    baseline: Sequence[LaunchValue],
    *,
    tolerance: float,
    alpha: float = GUARD_ALPHA,
    in_flight: int | None = None,
    paired: bool = False,
) -> Verdict:
    """Guard a metric against a clear worsening; it need not be shown to be within the tolerance.

    FAIL if the whole interval of the change is beyond the tolerance and the change is larger than the metric's absolute
    floor; INCONCLUSIVE if the estimate is beyond the tolerance (a suspicion, for which more launches are worth their
    time), and of a mean over sampled requests only if 95 % of unchanged runs would not show it; PASS if there is no
    sign of it.

    ``present``: one value per launch, at least one. ``tolerance``: largest acceptable worsening, 0.15 for 15 %.
    ``alpha``: largest probability of failing a change exactly at the tolerance, at this look.
    """
    varies = _varies(metric, present, baseline)
    now, then = (_middle(metric, side, varies=varies) for side in (present, baseline))
    change = _change(metric, present, baseline, levels=(1 - 2 * alpha, 1 - 2 * alpha), paired=paired)
    allowed = _allowed(metric, tolerance, then.value, varies=varies, in_flight=in_flight)
    if change.value <= allowed + _ROUNDING:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.FAIL if change.low > tolerance + _ROUNDING else Outcome.INCONCLUSIVE
    is_suspicion = outcome is Outcome.INCONCLUSIVE and metric.sampled and varies
    if is_suspicion and _change(metric, present, baseline, levels=(_SIGN, _SIGN)).low <= 0:
        outcome = Outcome.PASS
    kind = f"{format_percent(1 - 2 * alpha)} interval" if varies else "range"
    floor = f"; changes up to {metric.floor_text} do not count" if tolerance < change.value <= allowed else ""
    reason = (
        f"{metric.label} {metric.show(then.value)} → {metric.show(now.value)}: {_decided(change, kind)}; "
        f"tolerance {format_percent(tolerance)}{floor}"
    )
    return Verdict(metric.name, "baseline", outcome, reason, change, tolerance, then.value, now.value)


def _decided(change: Estimate, kind: str) -> str:
    """A change in words: ``12 % worse, 99 % interval +9.0 % to +15 %``."""
    word, low, high = ("worse", change.low, change.high) if change.value >= 0 else ("better", -change.high, -change.low)
    interval = (
        "" if low == high else f", {kind} {format_percent(low, signed=True)} to {format_percent(high, signed=True)}"
    )
    return f"{format_percent(abs(change.value))} {word}{interval}"


def _undecided(change: Estimate, tolerance: float) -> str:
    """An interval that contains the tolerance, in words."""
    return f"{format_percents(change.low, change.high)} includes the tolerance of {format_percent(tolerance)}"


def _levels(plan: SequentialPlan | None, launches: int) -> tuple[float, float]:
    """Confidences of the interval whose better end decides a FAIL, and of that whose worse end decides a PASS."""
    if plan is None:
        return CHANGE_CONFIDENCE, CHANGE_CONFIDENCE
    return plan.confidence(launches), plan.confidence_of_pass(launches)


def _change(
    metric: Metric,
    present: Sequence[LaunchValue],
    baseline: Sequence[LaunchValue],
    *,
    levels: tuple[float, float],
    paired: bool = False,
) -> Estimate:
    """The change with an interval; ``levels`` are the confidences of its better and of its worse end."""
    if not _varies(metric, present, baseline):
        smallest = max(metric.floor, _SMALLEST)
        ranges = (estimate(side, 0.0) for side in (present, baseline))
        now, then = (
            Estimate(max(one.value, smallest), max(one.low, smallest), max(one.high, smallest)) for one in ranges
        )
        ratio = Estimate(now.value / then.value, now.low / then.high, now.high / then.low)
        return worsening(metric, ratio)
    of_both = ratio_of_pairs if paired else ratio_of
    compare = partial(of_both, present, baseline, metric.launch_sd, prior_degrees=metric.sd_degrees)
    for_fail, for_pass = (worsening(metric, compare(confidence=confidence)) for confidence in levels)
    return Estimate(for_fail.value, for_fail.low, for_pass.high)


def _allowed(metric: Metric, tolerance: float, before: float, *, varies: bool, in_flight: int | None) -> float:
    """The largest acceptable worsening, in the terms of :func:`_change`."""
    if varies:
        return metric.allowed(tolerance, before, in_flight)
    return max(tolerance, (before + metric.floor) / max(before, metric.floor, _SMALLEST) - 1)


def _varies(metric: Metric, present: Sequence[LaunchValue], baseline: Sequence[LaunchValue]) -> bool:
    """Whether the ratio has an interval; otherwise it has a range, over the launches of both samples."""
    launches = (*present, *baseline)
    varies = metric.launch_sd > 0 or (metric.sampled and any(launch.relative_error > 0 for launch in launches))
    return varies and all(launch.value > 0 for launch in launches)


def _middle(metric: Metric, launches: Sequence[LaunchValue], *, varies: bool) -> Estimate:
    """The value that is printed: the geometric mean if the change is a ratio of geometric means."""
    return estimate(launches, max(metric.launch_sd, _SMALLEST) if varies else metric.launch_sd)


def worsening(metric: Metric, ratio: Estimate) -> Estimate:
    """A ratio of present to before as a change, worse being positive."""
    if metric.better == "lower":
        return Estimate(ratio.value - 1, ratio.low - 1, ratio.high - 1)
    return Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low)


def _either_mode(metric: Metric, modes: Modes) -> str:
    """Why more launches may not help: ``TTFT has two modes, 190 and 375 ms (42 % and 58 % of the requests); …``."""
    assert isinstance(metric.kind, LatencyPercentile | StreamPercentile)
    name, percentile = "latency", metric.kind.percentile
    if isinstance(metric.kind, StreamPercentile):
        name = metric.kind.quantity.upper()
    of = "gaps" if name == "ITL" else "requests"
    which = "the median" if percentile == 50 else f"p{percentile:.10g}"
    both = _range(metric, modes.low, modes.high, dash=" and ", otherwise=" and ")
    shares = f"{format_percent(modes.low_share)} and {format_percent(1 - modes.low_share)} of the {of}"
    return f"{name} has two modes, {both} ({shares}); {which} lies in either"


def _range(metric: Metric, low: float, high: float, *, dash: str = "–", otherwise: str = " to ") -> str:
    """Two values as one range, ``19.1–20.6 ms``: the unit once if both have the same."""
    (number, unit), (_, other) = metric.unit.parts(low), metric.unit.parts(high)
    is_one = unit == other and (unit or metric.currency)
    return f"{number if is_one else metric.show(low)}{dash if is_one else otherwise}{metric.show(high)}"


def _what_helps(half: float, apart: float, launches: int) -> tuple[str, bool]:
    """How many more launches would decide, ``2 more launches would narrow it to ±1.5 %``, or why none would."""
    for more in range(1, _MOST_MORE + 1):
        narrowed = half * math.sqrt(launches / (launches + more))
        if narrowed < apart:
            count = wording.count(more, "more launch", "more launches")
            return f"{count} would narrow it to ±{format_percent(narrowed)}", True
    return f"even {_MOST_MORE} more launches would narrow it only to ±{format_percent(narrowed)}", False


_CLOSEST = 0.02  # Smallest distance from the tolerance for which a time is given; closer changes are decided by chance
_SPARE = 1.2  # Factor on the time that is advised, since launches differ


def seconds_to_decide(
    change: Estimate, tolerance: float, spent_s: float, *, launches: int, recorded: int = 0
) -> float | None:
    """About how many seconds of measuring would move the interval of a change off its tolerance.

    The interval's half-width falls with the root of the launches. Those of a baseline are fixed: with n launches beside
    m recorded ones it is proportional to sqrt(1/n + 1/m).

    ``change``: relative; worse is positive. ``recorded``: launches of the baseline; 0 if both sides are measured
    together. Returns the time in all, at least that of one launch more; None if no number of launches suffices, or the
    change is too close to the tolerance.
    """
    half = (log_change(change.high) - log_change(change.low)) / 2
    apart = abs(log_change(change.value) - log_change(tolerance))
    if apart < _CLOSEST or half <= 0 or launches < 1:
        return None
    fixed = 1 / recorded if recorded else 0.0
    wanted = (1 / launches + fixed) * (apart / half) ** 2 - fixed
    if wanted <= 0:
        return None
    return spent_s * max((launches + 1) / launches, _SPARE / (launches * wanted))


def log_change(change: float) -> float:
    """A relative change as a difference of logarithms."""
    return math.log(max(1 + change, 1e-3))
