"""One long load on a running deployment, in which what it holds is followed until a growth is decided.

The load comes in pieces of 2, 2 and 6 s, so that a deployment that surely does not grow is loaded for 2 s only. All
pieces are one track: the deployment goes on. It must not know limits or pytest.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import psutil

from pytest_mlpatterns.analysis.causes.growth import track_of
from pytest_mlpatterns.analysis.verdicts.verdicts import why_too_many_failed
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.measurement.last_answer import describe_first_failure, why_silent
from pytest_mlpatterns.system.monitor import ResourceMonitor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from pytest_mlpatterns.measurement.further_load import FurtherLoad
    from pytest_mlpatterns.records.outcomes import FailedAnswer
    from pytest_mlpatterns.records.resource_track import ResourceTrack
    from pytest_mlpatterns.records.samples import Samples, Window
    from pytest_mlpatterns.records.telemetry import PatternStats

__all__ = ["FollowedGrowth", "GrowthWindow"]

_POLL_S = 0.05
"""Interval of the samples of the monitor, in seconds."""
_ENDS = (0.2, 0.4, 1.0)
"""Where the pieces end, as shares of the longest load."""
_MOST_MEMORY = 0.25
"""Share of the machine's free memory that a growing deployment may take."""


@dataclass(frozen=True, slots=True)
class FollowedGrowth:
    """What a long load found.

    Attributes:
        track: the readings; None if the processes are not known.
    """

    track: ResourceTrack | None
    stats: PatternStats
    total: PatternStats
    is_whole: bool


class GrowthWindow:
    """Loads a running deployment, and follows what it holds."""

    def __init__(self, load: FurtherLoad) -> None:
        self._further = load
        self._deployment = load.deployment
        self._plan = load.plan
        self._job = load.template
        self._monitor = ResourceMonitor(lambda: load.deployment.pids, load.deployment.cpus)
        self._done_ns: list[NDArray[np.int64]] = []
        self._windows: list[Window] = []
        self._requests = 0
        self._failures: Counter[int] = Counter()

    def run(self, longest_ns: int, is_decided: Callable[[ResourceTrack], bool]) -> FollowedGrowth:
        """Load until the growth is decided, but at most for some time.

        Raises:
            DeploymentError: one of its processes died.
            InvalidResultError: it no longer answers, or over 5 % of the requests failed.
        """
        before = self._deployment.stats()
        for end in _ENDS:
            while (left_ns := round(end * longest_ns) - sum(one.duration_ns for one in self._windows)) > 0:
                before = self._deployment.stats()
                self._load(left_ns)
            usage = self._monitor.usage()
            track = track_of(usage, np.concatenate(self._done_ns), self._windows)
            if usage is None or self._may_stop(track, longest_ns, is_decided):
                break
        total = self._deployment.stats()
        return FollowedGrowth(track, total.since(before), total, is_whole=end == _ENDS[-1])

    def _load(self, length_ns: int) -> None:
        """One piece; a schedule with a length of its own has that length."""
        job = replace(
            self._job,
            duration_ns=self._job.schedule.length_ns or length_ns,
            warmup_ns=0 if self._windows else self._job.warmup_ns,
            order=self._order_from(sum(self._deployment.stats().replica_requests)),
        )
        result = self._further.run(job, poll_s=_POLL_S, on_poll=self._monitor.sample)
        samples = samples_of(result)
        self._done_ns.append(samples.done_ns)
        self._windows.append(result.window)
        self._require_answers(samples, result.window, result.failed)

    def _order_from(self, answered: int) -> bytes:
        """The inputs from the next one on; a cache would know those of the load before."""
        order = array("I", self._job.order) or array("I", range(len(self._job.messages)))
        start = answered % len(order)
        return (order[start:] + order[:start]).tobytes()

    def _require_answers(self, samples: Samples, window: Window, answers: Mapping[int, FailedAnswer]) -> None:
        if silence := why_silent(self._deployment, self._plan, samples, window=window):
            raise InvalidResultError(f"while its growth was followed, {silence}")
        self._requests += int((~samples.cancelled).sum())
        self._failures.update(samples.outcome[samples.failed].tolist())
        may_refuse = self._plan.overloads
        if why := why_too_many_failed(self._failures, self._requests, may_refuse=may_refuse):
            stats = self._deployment.stats()
            first = describe_first_failure(
                self._deployment, self._plan.payload, samples, window=None, stats=stats, answers=answers
            )
            known = why_too_many_failed(self._failures, self._requests, first, may_refuse=may_refuse)
            raise InvalidResultError(known or why)

    def _may_stop(
        self, track: ResourceTrack | None, longest_ns: int, is_decided: Callable[[ResourceTrack], bool]
    ) -> bool:
        """Whether the growth is decided, or would take too much of the memory that is left if the load went on."""
        if track is None:
            return False
        gained = int(track.rss_bytes[-1] - track.rss_bytes[0])
        elapsed_ns = sum(one.duration_ns for one in self._windows)
        still = gained * max(longest_ns - elapsed_ns, 0) / max(elapsed_ns, 1)
        return is_decided(track) or still > _MOST_MEMORY * psutil.virtual_memory().available
