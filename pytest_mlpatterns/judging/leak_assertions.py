"""Whether a deployment leaks: one long load, in which memory, descriptors and threads are followed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.growth import growth_of
from pytest_mlpatterns.analysis.leaks import judge_leak
from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.patterns import Cached
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.analysis.metric import Metric
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.growth_window import FollowedGrowth
    from pytest_mlpatterns.records.resource_track import ResourceTrack

__all__ = ["COUNTED_LIMIT", "LeakAssertions"]

COUNTED_LIMIT = 1.0
"""Descriptors and threads per 1,000 requests that are a leak."""


class LeakAssertions:
    """Follows what a test's deployment holds, and judges it.

    Args:
        experiment: what is measured.
        measurement: the test's own launches, which come first.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement

    def decide(self, limit_bytes: float, longest_ns: int) -> tuple[Verdict, ...]:
        """Load the deployment until it is decided whether it leaks.

        Args:
            limit_bytes: of the growth of memory per request.
            longest_ns: the longest load.

        Returns:
            A verdict on memory, and on descriptors and threads where the system counts them; none in a smoke run. With
            too few requests it is one open verdict.

        Raises:
            InvalidResultError: the measurement supports no verdict, or the processes are not known.
        """
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return ()
        self._measurement.require_valid()
        limits = {"memory_growth": limit_bytes, "descriptor_growth": COUNTED_LIMIT, "thread_growth": COUNTED_LIMIT}

        def is_decided(track: ResourceTrack) -> bool:
            found = _verdicts(track, limits, is_whole=False)
            return _shows(track, limit_bytes) and all(one.outcome is Outcome.PASS for one in found)

        followed = self._measurement.follow_growth(longest_ns, is_decided)
        if followed.track is None:
            pattern = self._experiment.setup.pattern
            raise InvalidResultError(f"memory growth is not known for {pattern}; name its process: Url(..., pid=...)")
        found = _verdicts(followed.track, limits, is_whole=True)
        if not found:
            return (_too_few(followed.track, longest_ns),)
        return tuple(_with_end(self._unless_a_cache_fills(verdict, followed), followed) for verdict in found)

    def _unless_a_cache_fills(self, verdict: Verdict, followed: FollowedGrowth) -> Verdict:
        """The verdict; one on memory that does not pass is open while a cache of the pattern fills."""
        if verdict.metric != "memory_growth" or verdict.outcome is Outcome.PASS:
            return verdict
        caches = [part for part in self._experiment.settings.pattern.parts if isinstance(part, Cached)]
        layers = zip(caches, followed.total.layers_named("cached"), followed.stats.layers_named("cached"), strict=False)
        for cache, total, last in layers:
            missing, new = cache.max_entries - _entries(total.counters), _entries(last.counters)
            if cache.store.startswith("memory:") and missing > 0 and new > 0:
                why = f"but the cache still fills: {missing:,} of {cache.max_entries:,} entries are missing"
                small = f"a smaller one is full earlier: Cached(max_entries={max(_entries(total.counters) // 4, 1)})"
                said = f"{why}; {small}"
                return replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=f"{verdict.reason}; {said}", why_open=said)
        return verdict


def _shows(track: ResourceTrack, limit_bytes: float) -> bool:
    """Whether so many requests were answered that a leak at the limit would show.

    A process first fills what it has allocated and freed before, and does not grow meanwhile.
    """
    return limit_bytes * int(track.requests[-1] - track.requests[0]) >= METRICS["memory_growth"].least_gain


def _with_end(verdict: Verdict, followed: FollowedGrowth) -> Verdict:
    """The verdict; one that is no pass says if the load ended early."""
    if followed.is_whole or verdict.outcome is Outcome.PASS:
        return verdict
    early = "the load ended early, before it took the memory that the machine has left"
    return replace(verdict, reason=f"{verdict.reason}; {early}")


def _too_few(track: ResourceTrack, longest_ns: int) -> Verdict:
    """The verdict where growths cannot be seen."""
    requests = int(track.requests[-1] - track.requests[0])
    reason = (
        f"{requests:,} requests in {format_duration(longest_ns)} are too few to see a leak; measure longer "
        '(duration="60s") or with more load'
    )
    return Verdict("memory_growth", "limit", Outcome.INCONCLUSIVE, reason, why_open=reason)


def _entries(counters: Mapping[str, int]) -> int:
    """Entries that a cache gained."""
    return counters.get("misses", 0) - counters.get("evictions", 0)


def _verdicts(track: ResourceTrack, limits: Mapping[str, float], *, is_whole: bool) -> list[Verdict]:
    """A verdict on each resource whose growth is known."""
    found = []
    for name, limit in limits.items():
        metric: Metric = METRICS[name]
        growth = growth_of(track.requests, getattr(track, metric.resource))
        if growth is not None:
            found.append(judge_leak(metric, growth, limit, is_whole=is_whole))
    return found
