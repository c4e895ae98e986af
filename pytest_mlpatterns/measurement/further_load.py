"""Further loads of a running deployment after its launch: beyond its capacity, while a replica is added, or longer.

Overload is one job of the generator for each load of a plan, which begins with an idle service. The peak and the lower
load after it are one job, so that the service takes its backlog with it.

A scale-out asks for one more replica while a closed loop keeps the service at its knee. The load generator takes the
part of a load balancer: it gets the address of the new replica as soon as that is ready, opens connections to it, and
gives it its turn.

A growth is followed in pieces of 2, 2 and 6 s until it is decided, so that a deployment that surely does not grow is
loaded for 2 s only. All pieces are one track: the deployment goes on. This module must not know limits or baselines.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import psutil
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.capacity.overload import BACK_RATIO, OfferedLoad, OverloadPlan
from pytest_mlpatterns.analysis.capacity.scale_out import ScaleOut, ScaleOutTimes, answers_in_share
from pytest_mlpatterns.analysis.causes.growth import track_of
from pytest_mlpatterns.analysis.health.machine import disturbance_of, why_busy_in
from pytest_mlpatterns.analysis.health.sustained import why_limited
from pytest_mlpatterns.analysis.metrics.samples import take_rows
from pytest_mlpatterns.analysis.verdicts.verdicts import why_too_many_failed
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.measurement.last_answer import describe_first_failure, why_silent
from pytest_mlpatterns.measurement.load_source import LoadEvents, apart_from
from pytest_mlpatterns.records.addressing import Balance, Progress
from pytest_mlpatterns.records.outcomes import FailedAnswer
from pytest_mlpatterns.records.samples import ResourceTrack, Samples, Window
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.processes import AddedReplica, Scaler
from pytest_mlpatterns.system.process_tree import ResourceMonitor
from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.workload.schedule import ClosedLoop, Stages

if TYPE_CHECKING:
    from pytest_mlpatterns.workload.plan import LoadPlan


_OVERLOAD_POLL_S = 0.1  # Interval of the samples of the monitor during an overload, in seconds
_OVERLOAD_WARMUP_NS = 50_000_000
"""Warm-up of one overload, in nanoseconds: it opens the connections, and the service is warm."""
_READY_POLL_S = 0.005
"""Interval at which the new replica is asked whether it is ready; a hundredth of the time that a process starts in."""
_WARMUP_NS = 100_000_000  # Warm-up of the load that asks for a replica, in nanoseconds; the service is warm
_BEFORE_NS = 500_000_000  # Load before the replica is asked for, with which the rest is compared
_LONGEST_NS = 15_000_000_000  # Longest load after the replica is ready
_COUNT_NS = 100_000_000  # Interval at which the new replica is asked how many requests it has received


class FurtherLoad(Struct, frozen=True):
    """Loads a deployment that runs, after or beside its launches."""

    deployment: Deployment
    plan: LoadPlan  # what is sent, without a check of answers
    template: LoadJob  # a job for it, whose schedule and times each load replaces
    generator: Generator
    on_progress: Callable[[Progress], None]

    def run(
        self, job: LoadJob, *, poll_s: float, on_poll: Callable[[], None], on_window: Callable[[], None] = lambda: None
    ) -> LoadResult:
        """Run one job to its end; ``on_poll`` and ``on_window`` as of :class:`LoadEvents`."""
        events, processes = LoadEvents(self.on_progress, on_window, on_poll), self.plan.generators
        with apart_from(self.deployment, self.generator, processes):
            return self.generator.run(job, poll_s=poll_s, on_poll=events.handle, processes=processes)


def offer_overload(load: FurtherLoad, plan: OverloadPlan, nmrt_rps: float) -> tuple[OfferedLoad, ...]:
    """Offer the loads of a plan in their order."""
    *steps, peak = plan.ratios
    return (
        *(_offer(load, ratio, nmrt_rps, step_s=plan.step_s) for ratio in steps),
        _offer(load, peak, nmrt_rps, step_s=plan.step_s, watched_s=plan.watched_s),
    )


def _offer(load: FurtherLoad, ratio: float, nmrt_rps: float, *, step_s: float, watched_s: float = 0.0) -> OfferedLoad:
    rate_rps, length = ratio * nmrt_rps, _written(step_s)
    after = (("0s", BACK_RATIO * nmrt_rps), (_written(watched_s), BACK_RATIO * nmrt_rps)) if watched_s else ()
    schedule = Stages(((length, rate_rps), *after), start=rate_rps)
    job = replace(load.template, schedule=schedule, duration_ns=schedule.length_ns, warmup_ns=_OVERLOAD_WARMUP_NS)
    monitor = load.deployment.monitor()
    monitor.sample()
    result = load.run(job, poll_s=_OVERLOAD_POLL_S, on_poll=partial(monitor.sample, poll=True))
    monitor.sample()
    samples, start_ns = samples_of(result), result.window.start_ns
    window = Window(start_ns, start_ns + round(step_s * SECOND_NS))
    inside = samples.due_in(window)
    report = replace(result.generator, ceiling_rps=load.generator.ceiling_of(job))
    latencies = samples.latency_ns[samples.successes_in(window)]
    limited = why_limited(
        report,
        send_lag_ns=samples.send_lag_ns[inside],
        latency_ns=float(np.median(latencies)) if latencies.size else 0.0,
    )
    usage = monitor.usage()
    # A CPU limit that stops an overloaded service is its capacity, not a disturbance.
    seen = [] if usage is None else [replace(disturbance_of(usage, result.window, report.cpu_ns), throttled_ratio=0.0)]
    return OfferedLoad(ratio, samples, window, round(watched_s * SECOND_NS), limited, why_busy_in(seen))


def _written(seconds: float) -> str:
    """A length as schedules write it."""
    return f"{round(seconds * 1000)}ms"


@dataclass(slots=True)
class ScaleOutRun:
    """One scale-out of one deployment; used once."""

    load: FurtherLoad
    balance: Balance
    clock: Callable[[], int] = time.perf_counter_ns
    _concurrency: int = 0
    _opened_ns: int | None = None
    _replica: AddedReplica | None = None
    _ready_ns: int = 0
    _counted_ns: int = 0
    _is_over: bool = False

    def run(self, concurrency: int) -> ScaleOut:
        """Load the deployment, ask for one more replica, and load on until that has answered its share."""
        scaler, template = self.load.deployment.scaler, self.load.template
        assert scaler is not None
        self._concurrency = concurrency
        replicas = len(template.endpoint.addresses)
        job = replace(
            template,
            endpoint=replace(template.endpoint, balance=self.balance),
            schedule=ClosedLoop(concurrency),
            duration_ns=_BEFORE_NS + scaler.timeout_ns + _LONGEST_NS,
            warmup_ns=_WARMUP_NS,
        )
        result = self.load.run(
            job, poll_s=_READY_POLL_S, on_poll=lambda: self._advance(scaler, replicas), on_window=self._open
        )
        self.load.deployment.processes.stats()  # raises if a process died
        assert self._replica is not None
        samples = samples_of(result)
        in_window = take_rows(samples, np.flatnonzero(samples.due_ns >= result.window.start_ns))
        times = ScaleOutTimes(self._replica.asked_ns, self._ready_ns)
        return ScaleOut.of(in_window, times, replicas=replicas, concurrency=concurrency)

    def _open(self) -> None:
        if self._opened_ns is None:
            self._opened_ns = self.clock()

    def _advance(self, scaler: Scaler, replicas: int) -> None:
        """Take the next step if it is time: ask for the replica, balance over it, end the load."""
        now = self.clock()
        if self._opened_ns is None or self._is_over:
            return
        if self._replica is None:
            if now - self._opened_ns >= _BEFORE_NS:
                self._replica = scaler.add()
        elif not self._ready_ns:
            if (address := self._replica.address()) is not None:
                self._ready_ns = self.clock()
                self.load.generator.add_address(address)
        elif now - self._ready_ns > _LONGEST_NS or self._has_its_share(now, replicas):
            self._is_over = True
            self.load.generator.end_load()

    def _has_its_share(self, now: int, replicas: int) -> bool:
        """Whether the new replica has surely answered as many requests as its share is taken over."""
        assert self._replica is not None
        if now - self._counted_ns < _COUNT_NS:
            return False
        self._counted_ns = now
        answers = answers_in_share(replicas, self._concurrency)
        return self._replica.requests() >= answers // (replicas + 1) + self._concurrency


_SAMPLE_S = 0.05  # Interval of the samples of the monitor, in seconds
_ENDS = (0.2, 0.4, 1.0)  # Where the pieces end, as shares of the longest load
_MOST_MEMORY = 0.25  # Share of the machine's free memory that a growing deployment may take


class FollowedGrowth(Struct, frozen=True):
    """What a long load found."""

    track: ResourceTrack | None  # the readings; None if the processes are not known
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
        """Load until the growth is decided, but at most for some time."""
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
        result = self._further.run(job, poll_s=_SAMPLE_S, on_poll=self._monitor.sample)
        samples = samples_of(result)
        self._done_ns.append(samples.done_ns)
        self._windows.append(result.window)
        self._require_answers(samples, result.window, result.failed)

    def _order_from(self, answered: int) -> bytes:
        """The inputs from the next one on; a cache would know the inputs of the load before."""
        order = array("I", self._job.order) or array("I", range(len(self._job.messages)))
        start = answered % len(order)
        return (order[start:] + order[:start]).tobytes()

    def _require_answers(self, samples: Samples, window: Window, answers: Mapping[int, FailedAnswer]) -> None:
        if silence := why_silent(self._deployment, self._plan, samples, window=window):
            raise InvalidResultError(f"while its growth was followed, {silence}")
        self._requests += samples.outcome.size
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
