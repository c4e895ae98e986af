"""How a resource grows with the requests that a deployment answers, and whether that growth goes on.

Memory is not released at once, so its lower envelope counts: the smallest reading in each of 16 equal parts of the
requests. A garbage collector's saw-tooth and short peaks are above it. The growth per request in the second half is
Theil and Sen's slope, the median of the slopes between all pairs of points of the envelope. Its interval comes from the
steps between neighbouring points, by Student's t; the largest single step widens it, since an allocator takes memory
in pieces that may hold what thousands of requests need. Pure; it must not know how a growth was measured.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric import Metric, resource_of
from pytest_mlpatterns.analysis.statistics.distributions import median_slope
from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE, t_quantile
from pytest_mlpatterns.records.launch import Estimate, Usage
from pytest_mlpatterns.records.profile import Frame
from pytest_mlpatterns.records.samples import (
    Growth,
    GrowthRecord,
    HeldMemory,
    HeldRecord,
    MemorySite,
    ResourceTrack,
    Window,
)
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    Name = Callable[[str, int], Frame]
    SourceLine = Callable[[Frame, int], str]

_PARTS = (16, 8)  # Parts of the requests; the smaller number if there are few readings, or if they missed many parts
_FEWEST = 16  # Readings below which nothing is decided
_LEAST_VARIANCE = 0.25  # Least variance of a mean, as a share of the variance of independent steps
_SPARE = 1.2  # Factor on the number of requests that is recommended, since it is only estimated
_SLOWER = 0.6
"""Growth in the last quarter, as a share of that in the second, below which it levels off: a logarithm gives 0.42."""
_PAUSE = 0.4  # Growth in a quarter of the second half, as a share of an even one, below which the growth has paused


def growth_of(requests: NDArray[np.int64], amounts: NDArray[np.int64] | None) -> Growth | None:
    """The growth of one resource; None if it is not known or there are too few readings.

    ``requests``: answered until each reading, shape ``(readings,)``; never falling. ``amounts``: of the resource, in
    the same shape; None if it is not known.
    """
    if amounts is None or requests.size < _FEWEST or requests[-1] <= requests[0]:
        return None
    for parts in _PARTS:
        envelope = _envelope(requests, amounts, parts)
        half, quarter, earlier = envelope.between(0.5, 1.0), envelope.between(0.75, 1.0), envelope.between(0.25, 0.5)
        if requests.size >= 2 * parts and min(half.steps.size, quarter.steps.size, earlier.steps.size) > 1:
            break
    else:
        return None
    slope, recent = half.slope(), quarter.slope()
    return Growth(
        requests=int(requests[-1] - requests[0]),
        slope=slope,
        recent=recent,
        gained=float(half.amounts[-1] - half.amounts[0]),
        levels_off=recent.value <= max(0.0, _SLOWER * earlier.slope().value) or half.pauses,
    )


def requests_to_decide(growth: Growth, limit: float, least: float) -> int | None:
    """About how many requests would decide whether a growth is below a limit; None if that is not known.

    The interval narrows as the requests become more, since the pieces in which memory is taken remain as large.

    ``least``: growth over the second half from which it is a leak.
    """
    apart = abs(growth.slope.value - limit)
    if apart <= 0:
        return None
    needed = growth.requests * (growth.slope.high - growth.slope.low) / (2 * apart)
    if growth.slope.value > limit:
        needed = max(needed, 2 * least / growth.slope.value)
    return math.ceil(_SPARE * max(needed, growth.requests))


class _Envelope(Struct, frozen=True):
    """The smallest reading in each part of the requests, or in some of them; arrays of shape ``(points,)``.

    ``shares`` are the starts of the parts, as shares of all requests.
    """

    shares: NDArray[np.float64]
    requests: NDArray[np.float64]
    amounts: NDArray[np.float64]

    @property
    def steps(self) -> NDArray[np.float64]:
        """Growth per request from each point to the next."""
        rates: NDArray[np.float64] = np.diff(self.amounts) / np.diff(self.requests)
        return rates

    @property
    def pauses(self) -> bool:
        """Whether one of its quarters gained much less than an even share."""
        corners = np.linspace(self.requests[0], self.requests[-1], 5)
        gained = np.diff(np.interp(corners, self.requests, self.amounts))
        return bool(gained.min() < _PAUSE * gained.mean())

    def between(self, low: float, high: float) -> _Envelope:
        """The points of the parts from one share of the requests to another, and the last point before them."""
        first = max(int(np.searchsorted(self.shares, low)) - 1, 0)
        last = int(np.searchsorted(self.shares, high))
        return _Envelope(self.shares[first:last], self.requests[first:last], self.amounts[first:last])

    def slope(self) -> Estimate:
        """Growth per request: the median over all pairs of points, with an interval from the steps between them."""
        value, steps = median_slope(self.requests, self.amounts), self.steps
        half = t_quantile(CONFIDENCE, steps.size - 1) * math.sqrt(_variance_of_mean(steps))
        half += float(np.abs(steps - np.median(steps)).max()) / steps.size
        return Estimate(value, value - half, value + half)


def _variance_of_mean(steps: NDArray[np.float64]) -> float:
    """The variance of the mean of steps between neighbouring points.

    A point that is too high makes one step too large and the next one too small, which the covariance of neighbours
    takes into account (Newey & West 1987). It counts down to a quarter of the variance without it.
    """
    apart = steps - steps.mean()
    alone = float(apart @ apart) / (steps.size - 1)
    beside = float(apart[1:] @ apart[:-1]) / (steps.size - 1)
    return max(alone + 2 * beside, _LEAST_VARIANCE * alone) / steps.size


def _envelope(requests: NDArray[np.int64], amounts: NDArray[np.int64], parts: int) -> _Envelope:
    """The smallest reading of each part that has one."""
    edges = np.linspace(requests[0], requests[-1], parts + 1)
    part = np.clip(np.searchsorted(edges, requests, side="right") - 1, 0, parts - 1)
    order = np.lexsort((requests, amounts, part))  # in each part the smallest first, and of equal ones the earliest
    found, first = np.unique(part[order], return_index=True)
    lowest = order[first]
    return _Envelope(found / parts, requests[lowest].astype(np.float64), amounts[lowest].astype(np.float64))


_MOST_RECORDED = 120  # Readings that reports have room for


def track_of(usage: Usage | None, done_ns: NDArray[np.int64], windows: Sequence[Window]) -> ResourceTrack | None:
    """The readings in some windows; None if the processes are not known or no reading is in a window.

    ``done_ns``: when each request was answered, ascending, shape ``(requests,)``.
    """
    if usage is None:
        return None
    inside = np.zeros(usage.time_ns.shape, dtype=np.bool_)
    for window in windows:
        inside |= window.covers(usage.time_ns)
    if not inside.any():
        return None
    return ResourceTrack(
        requests=np.searchsorted(done_ns, usage.time_ns[inside], side="right").astype(np.int64),
        rss_bytes=usage.rss_bytes[inside],
        descriptors=None if usage.descriptors is None else usage.descriptors[inside],
        threads=None if usage.threads is None else usage.threads[inside],
    )


def growth_record(track: ResourceTrack | None) -> GrowthRecord | None:
    """The memory of a track, for reports; None without a track."""
    if track is None:
        return None
    chosen = np.unique(np.linspace(0, track.requests.size - 1, _MOST_RECORDED).round().astype(np.int64))
    growth = growth_of(track.requests, track.rss_bytes)
    return GrowthRecord(
        tuple(track.requests[chosen].tolist()),
        tuple(track.rss_bytes[chosen].tolist()),
        None if growth is None else astuple(growth.slope),
        levels_off=growth is not None and growth.levels_off,
    )


_NOTHING = 0.05  # Bytes or pieces that print as 0
_NAMES = {"rss_bytes": "resident memory grows", "descriptors": "open descriptors grow", "threads": "threads grow"}


def is_leak(metric: Metric, growth: Growth, limit: float) -> bool:
    """Whether a resource surely leaks more than a limit. ``limit``: in the metric's unit."""
    kind = resource_of(metric)
    return growth.exceeds(limit / kind.per, kind.least_gain)


def judge_leak(metric: Metric, growth: Growth, limit: float, *, is_whole: bool) -> Verdict:
    """Compare a growth with a limit.

    PASS if the growth is surely below the limit in the second half or in the last quarter of the requests. FAIL if
    the load had its whole length, and the growth is surely above the limit, large enough, and does not level off.

    ``limit``: in the metric's unit. ``is_whole``: whether the load had its whole length, or must not go on; else a
    growth is not judged as a leak yet.
    """
    per = resource_of(metric).per
    low_enough = growth.stays_below(limit / per)
    if low_enough:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.FAIL if is_whole and is_leak(metric, growth, limit) else Outcome.INCONCLUSIVE
    recent = low_enough and growth.slope.high >= limit / per
    reason = f"{describe_growth(metric, growth, recent=recent)}; the limit is {_amount(metric, limit)}"
    if outcome is not Outcome.INCONCLUSIVE:
        return Verdict(metric.name, "limit", outcome, reason)
    reason += f", and that is open{_what_decides(metric, growth, limit)}"
    return Verdict(metric.name, "limit", outcome, reason, why_open=WhyOpen(OpenBy.REQUESTS, reason))


def judge_leaks(track: ResourceTrack, limits: Mapping[str, float], *, is_whole: bool) -> list[Verdict]:
    """A verdict on each resource whose growth is known."""
    found = []
    for name, limit in limits.items():
        growth = growth_in(track, METRICS[name])
        if growth is not None:
            found.append(judge_leak(METRICS[name], growth, limit, is_whole=is_whole))
    return found


def growth_in(track: ResourceTrack, metric: Metric) -> Growth | None:
    """The growth that a metric is about; None if the track has too few readings of its resource."""
    return growth_of(track.requests, getattr(track, resource_of(metric).resource))


def judge_suspicion(metric: Metric, suspicion: Verdict, limit: float, *, track: ResourceTrack | None) -> Verdict:
    """The verdict on one suspicion after the long load."""
    growth = None if track is None else growth_in(track, metric)
    if growth is None:
        few = "its processes are not known"
        if track is not None:
            requests = int(track.requests[-1] - track.requests[0]) if track.requests.size else 0
            few = f"{count(track.requests.size, 'reading')} over {count(requests, 'request')} are too few"
        why = f"a longer load could not show whether it is a leak, since {few}"
        return suspicion.left_open(WhyOpen(OpenBy.REQUESTS, why))
    per = resource_of(metric).per
    before, now = suspicion.reference_value or 0.0, max(per * growth.slope.value, 0.0)
    ends = [max(per * end, metric.floor) for end in astuple(growth.slope)]
    change = Estimate(*(end / max(before, metric.floor) - 1 for end in ends))
    reason = f"{metric.label} {metric.show(before)} → {metric.show(now)}: {describe_growth(metric, growth)}"
    return replace(
        suspicion,
        outcome=Outcome.FAIL if is_leak(metric, growth, limit) else Outcome.PASS,
        reason=f"{reason}; up to {metric.show(limit)} does not count",
        change=change,
        present_value=now,
    )


def describe_growth(metric: Metric, growth: Growth, *, recent: bool = False) -> str:
    """A growth in words: ``resident memory grows by 1.02 KiB (±0.10 KiB) per request over 5,000 requests, …``.

    ``recent``: give the growth in the last quarter, not that in the second half.
    """
    found, kind = growth.recent if recent else growth.slope, resource_of(metric)
    each = "request" if kind.per == 1 else f"{kind.per:,} requests"
    by = f"{_amount(metric, kind.per * found.value)} (±{_amount(metric, kind.per * (found.high - found.low) / 2)})"
    text = f"{_NAMES[kind.resource]} by {by} per {each} over {growth.requests:,} requests"
    if recent:
        return f"{text}, in their last quarter"
    if found.low <= 0:
        return text
    return f"{text}, {'levelling off' if growth.levels_off else 'not levelling off in the second half'}"


def _amount(metric: Metric, value: float) -> str:
    return metric.show(0.0 if abs(value) < _NOTHING else value)


def _what_decides(metric: Metric, growth: Growth, limit: float) -> str:
    """The requests that would decide, as the end of a sentence; empty if they are not known."""
    kind = resource_of(metric)
    needed = requests_to_decide(growth, limit / kind.per, kind.least_gain)
    if needed is None or needed <= growth.requests:
        return ""
    return f"; about {_rounded(needed):,} requests would decide"


def _rounded(number: int) -> int:
    """A number to two digits."""
    return int(float(f"{number:.1e}"))


_LEAST_SHARE = 0.1  # Share of the growth from which a line is listed
_LEAST_BYTES = 256 * 1024  # What a function has to hold more to be named, unless it is a growth
_MOST_SITES = 5  # Most lines that are listed


def growth_between(first: HeldMemory, last: HeldMemory, requests: int) -> HeldMemory:
    """What was held in addition at the last of two readings, with this many requests between them."""
    sites = {site: held - first.sites.get(site, 0) for site, held in last.sites.items()}
    return HeldMemory(sites, last.total_bytes - first.total_bytes, requests)


def held_record(before: HeldMemory, now: HeldMemory, *, names: tuple[Name, Name], source_now: SourceLine) -> HeldRecord:
    """Compare what functions hold on both sides.

    Named is a function of the project with at least 10 % of what all lines hold in addition, and, unless it is about a
    growth, at least 256 KiB: what libraries hold by themselves is no line that a reader can change.

    ``before``: of the reference; both sides since the start, or both the growth over some requests.
    """
    per_request = now.requests > 0
    functions: dict[Frame, list[float]] = defaultdict(lambda: [0.0, 0.0])
    lines: dict[Frame, tuple[float, int]] = {}
    for side, (held, name) in enumerate(zip((before, now), names, strict=True)):
        for (file, line), size in held.sites.items():
            frame = name(file, line)
            functions[frame][side] += size / max(held.requests, 1)
            if side == 1:
                lines[frame] = max(lines.get(frame, (0.0, 0)), (size, line))
    then, total = before.total_bytes / max(before.requests, 1), now.total_bytes / max(now.requests, 1)
    least = max(_LEAST_SHARE * (total - then), 1.0 if per_request else _LEAST_BYTES)
    sites = [
        MemorySite(
            frame.function,
            frame.file,
            line := lines.get(frame, (0.0, 0))[1],
            source_now(frame, line),
            *functions[frame],
        )
        for frame in functions
        if frame.owner == "project"
    ]
    grown = sorted((site for site in sites if site.change >= least and site.now > 0), key=lambda site: -site.change)
    return HeldRecord("", per_request, then, total, tuple(grown[:_MOST_SITES]))
