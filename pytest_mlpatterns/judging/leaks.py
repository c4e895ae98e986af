"""Whether a deployment leaks: one long load that an assertion, or a guard with a suspicion, asks for.

The windows of a comparison are too short to separate a leak from a cache that fills. They only raise the suspicion, if
all launches of the present grow clearly faster than the reference's. This module must not know how anything is
measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.analysis.causes.growth import growth_in, judge_leaks, judge_suspicion
from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, METRICS, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role, resource_of
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.patterns import Cached, Pattern
from pytest_mlpatterns.records.samples import ResourceTrack
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.further_load import FollowedGrowth

    Follow = Callable[[int, Callable[[ResourceTrack], bool]], FollowedGrowth]

COUNTED_LIMIT = 1.0  # Descriptors and threads per 1,000 requests that are a leak
_LONGEST_NS = 10_000_000_000  # Longest load that confirms a suspicion


def decide_leak(
    experiment: Experiment, measurement: SequentialMeasurement, limit_bytes: float, *, longest_ns: int
) -> tuple[Verdict, ...]:
    """Load the deployment until it is decided whether it leaks.

    Returns A verdict on memory, and on descriptors and threads if the system counts them. With too few requests
    it is one open verdict.
    """
    measurement.require_valid()
    limits = {name: limit_bytes if name in with_role(Role.HELD) else COUNTED_LIMIT for name in GROWTHS}

    def is_decided(track: ResourceTrack) -> bool:
        found = judge_leaks(track, limits, is_whole=False)
        shown = limit_bytes * int(track.requests[-1] - track.requests[0])  # a process first fills what it freed before
        return shown >= resource_of(METRICS["memory_growth"]).least_gain and all(
            one.outcome is Outcome.PASS for one in found
        )

    followed = measurement.follow_growth(longest_ns, is_decided, is_asked=True)
    if followed.track is None:
        pattern = experiment.setup.pattern
        raise InvalidResultError(f"memory growth is not known for {pattern}; name its process: Url(..., pid=...)")
    found = judge_leaks(followed.track, limits, is_whole=True)
    if not found:
        requests = int(followed.track.requests[-1] - followed.track.requests[0])
        reason = f"{requests:,} requests in {format_duration(longest_ns)} are too few to see a leak"
        why = WhyOpen(OpenBy.REQUESTS, reason)
        return (Verdict("memory_growth", "limit", Outcome.INCONCLUSIVE, reason, why_open=why),)
    early = "" if followed.is_whole else "the load ended early, before it took the memory that the machine has left"
    judged = [_unless_a_cache_fills(one, followed, experiment.settings.pattern) for one in found]
    return tuple(one if one.outcome is Outcome.PASS else one.saying(early) for one in judged)


def _unless_a_cache_fills(verdict: Verdict, followed: FollowedGrowth, pattern: Pattern) -> Verdict:
    """The verdict; one on memory that does not pass is open while a cache of the pattern fills."""
    if verdict.metric != "memory_growth" or verdict.outcome is Outcome.PASS:
        return verdict
    caches = [part for part in pattern.parts if isinstance(part, Cached)]
    layers = zip(caches, followed.total.layers_named("cached"), followed.stats.layers_named("cached"), strict=False)
    for cache, total, last in layers:
        missing, new = cache.max_entries - _entries(total.counters), _entries(last.counters)
        if cache.store.startswith("memory:") and missing > 0 and new > 0:
            why = f"but the cache still fills: {missing:,} of {cache.max_entries:,} entries are missing"
            return verdict.left_open(WhyOpen(OpenBy.CACHE, why))
    return verdict


def _entries(counters: Mapping[str, int]) -> int:
    """Entries that a cache gained."""
    return counters.get("misses", 0) - counters.get("evictions", 0)


def confirm_growths(
    verdicts: Sequence[Verdict], compared: Sequence[ComparedMetric], follow: Follow
) -> Sequence[Verdict]:
    """The verdicts on growths, after a long load if one of the short windows fails, which is a suspicion only."""
    metrics = {one.metric.name: one.metric for one in compared}
    limits = {  # the growth up to which the present is not worse than the reference
        verdict.metric: max(
            metrics[verdict.metric].floor, (verdict.reference_value or 0.0) * (1 + (verdict.tolerance or 0.0))
        )
        for verdict in verdicts
        if verdict.outcome is Outcome.FAIL
    }

    def is_harmless(track: ResourceTrack) -> bool:
        growths = [(growth_in(track, metrics[name]), limits[name] / resource_of(metrics[name]).per) for name in limits]
        return all(growth and growth.stays_below(limit) for growth, limit in growths)

    track = follow(_LONGEST_NS, is_harmless).track if limits else None
    return [
        judge_suspicion(metrics[one.metric], one, limits[one.metric], track=track)
        if one.metric in limits
        else replace(one, outcome=Outcome.PASS)
        for one in verdicts
    ]
