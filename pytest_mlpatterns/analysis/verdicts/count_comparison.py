"""Comparison of two samples of launches by counts of requests: slow ones (the tail of the latency) and failed ones.

Pure. The unit is the launch. A threshold taken from the reference alone turns latencies into counts of events, so that
both questions are the same: is the share of events surely larger than allowed? Counts of two samples are compared by
the conditional binomial test (Przyborowski & Wilenski, Biometrika 31, 1940). Events of one launch come together, for
example all requests that wait for the same pause. Both counts are therefore divided by the overdispersion between
launches (quasi-likelihood: Wedderburn, Biometrika 61, 1974), and Student's t accounts for its estimation. Launches that
meet one pause each do not differ, so the overdispersion between known blocks of a launch counts too.
``benchmarks/verdict_simulation.py`` counts the errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.statistics.distributions import binomial_tail, with_uncertain_scale
from pytest_mlpatterns.analysis.statistics.intervals import min_samples
from pytest_mlpatterns.errors import InvalidResultError, TooFewSamplesError
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.verdict import NO_CEILING, Outcome, Verdict, rounded_ceiling
from pytest_mlpatterns.units import format_duration, format_percent

ByBlock = Callable[[float], tuple[NDArray[np.int64], NDArray[np.int64]]]
Sides = tuple[ByBlock | None, ByBlock | None]  # of the reference, and of the present

COUNT_ALPHA = 0.002  # Probability, at each interim look, of failing a share of failed requests exactly at the tolerance
TAIL_ALPHA = 0.001
"""The same for a percentile, whose thresholds share it; less, since pauses of the machine make requests late."""
STORED_TAIL_ALPHA = 0.0005
"""The same for a percentile of a stored baseline, whose launches met other pauses than the present ones."""
_PRIOR_DEGREES = 10  # Degrees of freedom of the prior that events are independent (overdispersion 1)
_DEEPER = 5  # Factor between the shares of slow requests of two thresholds: 1 % and 0.2 % for p99
_FAR = 99  # Percentile from which latencies further out are thresholds too, the highest one of the reference included
_SIGN = 0.1  # Largest probability, without any change, of new failures that are suspected to be one
_FIRST_SIGN = 0.3
"""The same of two failures or more beside a reference without any: of 240 requests of which 2 % fail, 14 % of samples
have two or less."""
_TAIL_SIGN = 0.05  # The same for slow requests; a quiet service has some too


class _Events(Struct, frozen=True):
    """Events and requests of each launch of one sample."""

    events: NDArray[np.float64]
    requests: NDArray[np.float64]
    uneven: float = 1.0  # how many times as much as independent events they vary between the blocks of its launches

    @property
    def share(self) -> float:
        return float(self.events.sum() / self.requests.sum())

    def without_worst(self) -> _Events:
        """The sample without the launch with the largest share of events; itself if there is one launch only."""
        if self.events.size == 1:
            return self
        kept = np.arange(self.events.size) != np.argmax(self.events / self.requests)
        return _Events(self.events[kept], self.requests[kept], self.uneven)

    def scatter(self) -> float:
        """Pearson's chi-squared of the launches around their common share."""
        return _scatter(self.events, self.requests)


class _Threshold(Struct, frozen=True):
    """Events that are compared: of the reference beyond one latency, of the present beyond another."""

    reference_ns: float  # latency in the reference
    present_ns: float  # the same with the tolerance
    reference: _Events  # its events
    present: _Events  # its events


class _Pool:
    """The latencies of all launches of one sample; a failed request is infinitely late."""

    def __init__(self, launches: Sequence[RequestCounts], by_block: ByBlock | None = None) -> None:
        self._by_block = by_block
        self._launches = [launch for launch in launches if launch.requests > 0]
        values = np.array(sorted({value for launch in self._launches for value in launch.latencies}), dtype=np.float64)
        counts = np.zeros((len(self._launches), values.size + 1))
        for row, launch in zip(counts, self._launches, strict=True):
            found = sorted(launch.latencies)
            row[np.searchsorted(values, np.array(found, dtype=np.float64))] = [launch.latencies[one] for one in found]
            row[-1] = launch.failed
        self._values = np.append(values, math.inf)
        self._counts = counts
        self._cumulated = np.cumsum(counts.sum(axis=0))
        self.requests = int(self._cumulated[-1])
        self.failed = int(counts[:, -1].sum())

    def value(self, share: float) -> float:
        """The latency that this share of the requests does not exceed; infinite among failed requests."""
        wanted = min(max(share * self.requests, 1.0), float(self.requests)) - 1e-9
        return float(self._values[np.searchsorted(self._cumulated, wanted)])

    @property
    def highest(self) -> float:
        """The highest latency of a successful request; infinite without one."""
        return float(self._values[-2]) if self._values.size > 1 else math.inf

    def within(self, share: float) -> float:
        """The latency that this share of the requests exceeds, at most a successful one's."""
        return min(self.value(1 - share), self.highest)

    def beyond(self, latency_ns: float) -> _Events:
        """How many requests of each launch took longer."""
        later = self._values > latency_ns
        uneven = 1.0 if self._by_block is None else _unevenness(*self._by_block(latency_ns))
        return _Events(self._counts[:, later].sum(axis=1), self._counts.sum(axis=1), uneven)

    def around(self, share: float, deviations: float, dispersion: float) -> tuple[float, float]:
        """Bounds of a percentile, this many standard deviations of its order statistic away; both finite."""
        half = deviations * math.sqrt(dispersion * share * (1 - share) / self.requests)
        low, high = self.value(max(share - half, 0.0)), self.value(min(share + half, 1.0))
        return min(low, self.highest), min(high, self.highest)


def judge_tail(
    reference: Sequence[RequestCounts],
    present: Sequence[RequestCounts],
    *,
    metric: Metric,
    tolerance: float,
    alpha: float = TAIL_ALPHA,
    by_block: Sides = (None, None),
) -> Verdict:
    """Whether the slowest requests became slower than the tolerance allows.

    A latency T of the reference is a threshold: if every request takes at most (1 + tolerance) times as long, at most
    the same share of the requests takes over (1 + tolerance) T. T is the percentile itself, and latencies further out,
    which few requests of the reference exceed: a few much slower requests show there first. The thresholds share
    ``alpha``. A failure must also hold without the worst launch, since one pause of the machine can make many requests
    of a single launch late.

    ``tolerance``: largest acceptable relative worsening, 0.2 for 20 %. ``alpha``: largest probability of failing a
    change exactly at the tolerance, at this look. ``by_block``: of both samples, how many requests of each block took
    longer than a latency, and how many it has; None if that is not known. If the percentile of the present falls among
    failed requests, the verdict has neither a change nor a present value.
    """
    then, now = map(_Pool, (reference, present), by_block)
    label, share = metric.label, metric.percentile / 100
    _require_percentile(then, now, metric)
    before, after = then.value(share), now.value(share)
    outcome, most = _signs(then, now, metric, tolerance=tolerance, alpha=alpha)
    change = _change_of_percentile(then, now, share, alpha=alpha)
    shown = "never" if math.isinf(after) else format_duration(after)
    reason = f"{label} {format_duration(before)} → {shown}: {_described(most)}; tolerance {format_percent(tolerance)}"
    now_ns = after if math.isfinite(after) else None
    return Verdict(metric.name, "baseline", outcome, reason, change, tolerance, before, now_ns)


def tail_ceiling(
    reference: Sequence[RequestCounts],
    present: Sequence[RequestCounts],
    *,
    metric: Metric,
    tolerance: float,
    alpha: float = TAIL_ALPHA,
    by_block: Sides = (None, None),
) -> float | None:
    """The ceiling of an acceptance with which slower requests pass.

    It is the upper end of the percentile's change, or if a threshold further out needs more, the worsening there.

    Returns None if they pass with the tolerance; ``NO_CEILING`` if too many requests fail.
    """
    then, now = map(_Pool, (reference, present), by_block)

    def passes(allowed: float) -> bool:
        return _signs(then, now, metric, tolerance=allowed, alpha=alpha)[0] is Outcome.PASS

    if passes(tolerance):
        return None
    change = _change_of_percentile(then, now, metric.percentile / 100, alpha=alpha)
    least = tolerance if change is None else max(change.high, tolerance)
    worsenings = [now.within(one) / then.within(one) - 1 for one in _shares(then, now, metric)]
    ceilings = sorted(rounded_ceiling(max(one, least)) / 100 for one in worsenings if math.isfinite(one))
    return next(filter(passes, (rounded_ceiling(least) / 100, *ceilings)), NO_CEILING)


def _signs(then: _Pool, now: _Pool, metric: Metric, *, tolerance: float, alpha: float) -> tuple[Outcome, _Threshold]:
    """Judge a percentile by its thresholds, see :func:`judge_tail`; with the one that shows most."""
    before, after = then.value(metric.percentile / 100), now.value(metric.percentile / 100)
    thresholds = _thresholds(then, now, metric, tolerance=tolerance)
    surely = [one for one in thresholds if _surely_more(one.reference, one.present, alpha / len(thresholds))]
    changed = after > thresholds[0].present_ns and _chance(then.beyond(before), now.beyond(before)) < _TAIL_SIGN
    suspected = [one for one in thresholds if _chance(one.reference, one.present) < _TAIL_SIGN]
    outcome = Outcome.FAIL if surely else Outcome.INCONCLUSIVE if changed or suspected else Outcome.PASS
    return outcome, (surely or suspected or thresholds)[0]


def judge_failures(
    reference: Sequence[RequestCounts],
    present: Sequence[RequestCounts],
    *,
    tolerance: float,
    alpha: float = COUNT_ALPHA,
) -> Verdict:
    """Whether more requests fail than the tolerance allows.

    ``tolerance``: largest acceptable increase of the share of failed requests, 0.001 for 0.1 % of all requests.
    ``alpha``: largest probability of failing a change exactly at the tolerance, at this look.
    """
    then, now = _failures(reference), _failures(present)
    difference = now.share - then.share
    sign = _FIRST_SIGN if now.events.sum() > 1 and not then.events.any() else _SIGN
    suspected = difference > tolerance and _chance(then, now) < sign
    outcome = Outcome.INCONCLUSIVE if suspected else Outcome.PASS
    if _surely_more(then, now, alpha, allowed=tolerance):
        outcome = Outcome.FAIL
    deviations = NormalDist().inv_cdf(1 - alpha)
    scale = _dispersion(then, now)
    half = deviations * math.sqrt(scale * sum(_variance_of_share(side) for side in (then, now)))
    change = Estimate(difference, max(difference - half, -1.0), min(difference + half, 1.0))
    reason = (
        f"error rate {_share_of(then)} → {_share_of(now)}: {format_percent(difference, signed=True)} of all requests; "
        f"tolerance {format_percent(tolerance)}"
    )
    return Verdict("error_rate", "baseline", outcome, reason, change, tolerance, then.share, now.share)


def _thresholds(then: _Pool, now: _Pool, metric: Metric, *, tolerance: float) -> list[_Threshold]:
    """Thresholds: the percentile; for the tail also the latency that a fifth as many exceed, and the highest.

    A lower percentile leaves the tail to p99 if there are enough requests for it; if not, it judges a fifth of its
    share too, and so does that of a time of streams, which has no p99 beside it. Failed requests are no threshold: the
    highest latency of the others is.
    """
    found = []
    for latency in dict.fromkeys(then.within(one) for one in _shares(then, now, metric)):
        allowed = max(latency * (1 + tolerance), latency + metric.floor)
        found.append(_Threshold(latency, allowed, then.beyond(latency), now.beyond(allowed)))
    return found


def _shares(then: _Pool, now: _Pool, metric: Metric) -> tuple[float, ...]:
    """The shares of slow requests at the thresholds, that of the percentile first; 0 for the highest latency."""
    share = 1 - metric.percentile / 100
    if metric.percentile >= _FAR:
        return share, share / _DEEPER, 0.0
    is_last = metric.of_streams or min(then.requests, now.requests) < min_samples(_FAR)
    return (share, share / _DEEPER) if is_last else (share,)


def _described(threshold: _Threshold) -> str:
    """Both counts of a threshold: ``2.1 % of 900 requests took over 5.1 ms, which is 4.3 ms with the tolerance``, …"""
    then, now = threshold.reference, threshold.present
    latency = format_duration(threshold.reference_ns)
    return (
        f"{format_percent(now.share)} of {now.requests.sum():,.0f} requests took over "
        f"{format_duration(threshold.present_ns)}, which is {latency} with the tolerance; "
        f"before, {format_percent(then.share)} of {then.requests.sum():,.0f} took over {latency}"
    )


def _surely_more(then: _Events, now: _Events, alpha: float, *, allowed: float = 0.0) -> bool:
    """Whether events are more frequent than before, over all launches and without the worst of them."""
    return all(_chance(then, one, allowed=allowed) < alpha for one in (now, now.without_worst()))


def _chance(then: _Events, now: _Events, *, allowed: float = 0.0) -> float:
    """The probability of these events, or more, if their share is at most that of before plus ``allowed``."""
    scale = _dispersion(then, now)
    before, requests = float(then.events.sum()), float(then.requests.sum())
    present = float(now.requests.sum())
    others = (before + allowed * requests) / scale
    chance = binomial_tail(float(now.events.sum()) / scale, others, present / (present + requests))
    return with_uncertain_scale(chance, _PRIOR_DEGREES + then.events.size + now.events.size - 2)


def _dispersion(then: _Events, now: _Events) -> float:
    """By how much counts vary more between launches, or their blocks, than independent events would; at least 1."""
    between = _overdispersion(then.scatter() + now.scatter(), then.events.size + now.events.size - 2)
    events = [float(then.events.sum()), float(now.events.sum())]
    within = float(np.average([then.uneven, now.uneven], weights=events)) if any(events) else 1.0
    return max(between, within, 1.0)


def _unevenness(events: NDArray[np.int64], requests: NDArray[np.int64]) -> float:
    """The same of the blocks of one sample; 1 without an event."""
    known = requests > 0
    return _overdispersion(_scatter(events[known], requests[known]), known.sum() - 1) if events.any() else 1.0


def _overdispersion(scatter: float, degrees: int) -> float:
    return float((_PRIOR_DEGREES + scatter) / (_PRIOR_DEGREES + degrees))


def _scatter(events: NDArray[Any], requests: NDArray[Any]) -> float:
    """Pearson's chi-squared of these counts around their common share."""
    share = events.sum() / requests.sum()
    if not 0 < share < 1:
        return 0.0
    expected = requests * share
    return float(((events - expected) ** 2 / (expected * (1 - share))).sum())


def _change_of_percentile(then: _Pool, now: _Pool, share: float, *, alpha: float) -> Estimate | None:
    """The relative change with its interval from order statistics; None if it is infinite."""
    before, after = then.value(share), now.value(share)
    if math.isinf(after):
        return None
    scale = _dispersion(then.beyond(before), now.beyond(after))
    deviations = NormalDist().inv_cdf(1 - alpha) / math.sqrt(2)  # of each of two independent errors
    then_low, then_high = then.around(share, deviations, scale)
    now_low, now_high = now.around(share, deviations, scale)
    return Estimate(after / before - 1, now_low / then_high - 1, now_high / then_low - 1)


def _failures(launches: Sequence[RequestCounts]) -> _Events:
    counted = [launch for launch in launches if launch.requests > 0]
    if not counted:
        raise InvalidResultError("no request was due, so there is no error rate to compare")
    events = np.array([launch.failed for launch in counted], dtype=np.float64)
    return _Events(events, np.array([launch.requests for launch in counted], dtype=np.float64))


def _variance_of_share(side: _Events) -> float:
    """Variance of a share of independent events, with one event added, so that no event has a variance too."""
    requests = float(side.requests.sum())
    share = (float(side.events.sum()) + 1) / (requests + 2)
    return share * (1 - share) / requests


def _require_percentile(then: _Pool, now: _Pool, metric: Metric) -> None:
    label, needed = metric.label, min_samples(metric.percentile)
    for name, pool in (("reference", then), ("present", now)):
        if pool.requests < needed:
            raise TooFewSamplesError(
                f"{label} needs {needed} requests, the {name} has {pool.requests:,}; write requests={needed}, or "
                "measure longer",
                needed=needed,
                found=pool.requests,
            )
    if math.isinf(then.value(metric.percentile / 100)):
        share = format_percent(then.failed / then.requests)
        raise InvalidResultError(f"there is no {label} of the reference: {share} of its requests failed")


def _share_of(side: _Events) -> str:
    return f"{format_percent(side.share)} ({side.events.sum():,.0f} of {side.requests.sum():,.0f})"
