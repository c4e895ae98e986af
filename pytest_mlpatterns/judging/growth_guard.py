"""The guards against leaks: a growth that is suspected in short windows is judged by a long load.

The windows of a comparison are too short to tell a leak from a cache that fills. They only raise the suspicion, if all
launches of the present grow clearly faster than those of the reference. This module must not know how a comparison is
measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.growth import growth_of
from pytest_mlpatterns.analysis.leaks import describe_growth, is_leak
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.analysis.metric import Metric
    from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
    from pytest_mlpatterns.measurement.growth_window import FollowedGrowth
    from pytest_mlpatterns.records.resource_track import ResourceTrack

    Follow = Callable[[int, Callable[[ResourceTrack], bool]], FollowedGrowth]

__all__ = ["confirm_growths"]

_LONGEST_NS = 10_000_000_000


def confirm_growths(
    verdicts: Sequence[Verdict], compared: Sequence[ComparedMetric], follow: Follow
) -> tuple[Verdict, ...]:
    """The verdicts on growths, each suspicion confirmed, passed, or open if the long load had too few readings.

    Args:
        verdicts: of the short windows; a failing one is a suspicion, an open one is none.
        compared: the metrics that were judged.
        follow: loads the deployment of the present for a long time, until a track is decided.
    """
    metrics = {one.metric.name: one.metric for one in compared}
    limits = {
        verdict.metric: _limit(metrics[verdict.metric], verdict)
        for verdict in verdicts
        if verdict.outcome is Outcome.FAIL
    }
    if not limits:
        return tuple(replace(verdict, outcome=Outcome.PASS) for verdict in verdicts)

    def is_harmless(track: ResourceTrack) -> bool:
        growths = [(growth_of(track.requests, getattr(track, metrics[name].resource)), name) for name in limits]
        return all(growth and growth.stays_below(limits[name] / metrics[name].per) for growth, name in growths)

    track = follow(_LONGEST_NS, is_harmless).track
    return tuple(
        _confirmed(metrics[verdict.metric], verdict, limits[verdict.metric], track=track)
        if verdict.metric in limits
        else replace(verdict, outcome=Outcome.PASS)
        for verdict in verdicts
    )


def _limit(metric: Metric, suspicion: Verdict) -> float:
    """The growth up to which the present is not worse than the reference."""
    before, tolerance = suspicion.reference_value or 0.0, suspicion.tolerance or 0.0
    return max(metric.floor, before * (1 + tolerance))


def _confirmed(metric: Metric, suspicion: Verdict, limit: float, *, track: ResourceTrack | None) -> Verdict:
    """The verdict on one suspicion after the long load."""
    growth = None if track is None else growth_of(track.requests, getattr(track, metric.resource))
    if growth is None:
        few = "its processes are not known"
        if track is not None:
            requests = int(track.requests[-1] - track.requests[0]) if track.requests.size else 0
            few = f"{count(track.requests.size, 'reading')} over {count(requests, 'request')} are too few"
        why = f"a longer load could not show whether it is a leak, since {few}"
        advice = 'follow it for longer with perf.assert_no_leak("1KiB", duration="60s")'
        said = f"{why}: {advice}"
        return replace(suspicion, outcome=Outcome.INCONCLUSIVE, reason=f"{suspicion.reason}; {said}", why_open=said)
    before, now = suspicion.reference_value or 0.0, max(metric.per * growth.slope.value, 0.0)
    ends = [max(metric.per * end, metric.floor) for end in (growth.slope.value, growth.slope.low, growth.slope.high)]
    change = Estimate(*(end / max(before, metric.floor) - 1 for end in ends))
    reason = f"{metric.label} {metric.show(before)} → {metric.show(now)}: {describe_growth(metric, growth)}"
    return replace(
        suspicion,
        outcome=Outcome.FAIL if is_leak(metric, growth, limit) else Outcome.PASS,
        reason=f"{reason}; up to {metric.show(limit)} does not count",
        change=change,
        present_value=now,
    )
