"""One side of a pairing while it runs: warmed up, loaded block by block, and asked at the end whether all went well.

A block gives one value of each metric. One that says nothing about the side is measured again, a bounded number of
times. This module must not know the other side.
"""

from __future__ import annotations

from array import array
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.blocks import completions_between
from pytest_mlpatterns.analysis.generator_health import why_limited
from pytest_mlpatterns.analysis.latency_distribution import counted
from pytest_mlpatterns.analysis.log_ratio import VariantFigures
from pytest_mlpatterns.analysis.noise import is_disturbed
from pytest_mlpatterns.analysis.verdicts import why_too_many_failed
from pytest_mlpatterns.errors import DeploymentError, InvalidResultError
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.measurement.block_merge import (
    BlockRecording,
    joined_reports,
    joined_samples,
    joined_usage,
    joined_window,
    latencies_in,
)
from pytest_mlpatterns.measurement.block_plan import ResponsePace, pace_of
from pytest_mlpatterns.measurement.launch import job_for
from pytest_mlpatterns.measurement.load_events import LoadEvents
from pytest_mlpatterns.records.launch import Launch, Warmup
from pytest_mlpatterns.records.outcomes import describe_failures
from pytest_mlpatterns.system.affinity import put_on_cores
from pytest_mlpatterns.system.monitor import ResourceMonitor
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.loadgen.messages import LoadResult
    from pytest_mlpatterns.records.addressing import Progress
    from pytest_mlpatterns.records.samples import Samples, Window
    from pytest_mlpatterns.records.telemetry import PatternStats
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.plan import LoadPlan
    from pytest_mlpatterns.workload.schedule import Schedule

__all__ = ["Variant", "VariantRun", "answer_rate", "naming"]

_POLL_S = 0.1
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the two: how messages call it, what starts it, and what is sent to it. A check of the plan is not made."""

    name: str
    start: Callable[[], Deployment]
    plan: LoadPlan


class VariantRun:
    """One side while it runs: its blocks so far, and where in its inputs the next one begins."""

    def __init__(
        self, side: Variant, deployment: Deployment, generator: Generator, on_progress: Callable[[Progress], None]
    ) -> None:
        self.drawn = 0
        self.repeated = 0
        self.rtm_ns: list[float] = []
        self.throughput_rps: list[float] = []
        self.cpu_ns_per_request: list[float] = []
        self.disturbed: list[bool] = []
        self._pieces: list[BlockRecording] = []
        self._warmup = Warmup(0, 0, None)
        self._stats: PatternStats | None = None
        self._requests = 0
        self._failures: Counter[int] = Counter()
        self._side = side
        self._deployment = deployment
        self._generator = generator
        self._on_progress = on_progress
        self._observer = ResourceMonitor(lambda: deployment.pids)
        plan = replace(side.plan, check=None, warmup_ns=0)
        self._job = job_for(deployment, plan, deployment.messages(plan.payload))
        self._closed = plan.schedule.closed
        self._order = array("I", self._job.order) or array("I", range(len(self._job.messages)))

    def warm_up(self, shortest_ns: int) -> ResponsePace:
        """Load the side for a while, and see how it answers."""
        schedule = self._job.schedule
        whole = schedule.length_ns is not None  # it is the course of a block, not of a warm-up
        length_ns = max(shortest_ns, self._side.plan.warmup_ns or 0)
        recorded = self._drive(ClosedLoop(1) if whole else schedule, length_ns, 0)
        samples = samples_of(recorded)
        if not samples.succeeded.any():
            self._refuse(samples)
        latency_ns = samples.latency_ns[samples.succeeded]
        self._warmup = Warmup(length_ns, samples.outcome.size, None)
        with naming(self._side):
            self._stats = self._deployment.stats()
        return pace_of(schedule, float(np.median(latency_ns)))

    def load(self, length_ns: int, drawn: int, core: int = 0) -> None:
        """Measure one block, from this input on; the first of the side's processes begins on this core.

        One in which the load generator was the limit is measured again, one in which every caller only waited for
        longer, both only so often.

        Raises:
            InvalidResultError: that did not help, or nothing succeeded.
        """
        for _ in range(_TRIES):
            self._observer.sample()
            put_on_cores([*self._observer.pids, *self._generator.pids], core)
            recorded = self._drive(self._job.schedule, length_ns, drawn)
            self._observer.sample()
            samples = samples_of(recorded)
            inside = samples.due_in(recorded.window)
            good = inside & samples.succeeded
            if inside.any() and not good.any():
                self._refuse(samples)
            why = self._why_limited(recorded, samples, good)
            if why is None:
                break
            self.repeated += 1
            length_ns *= 1 if inside.any() else 2
        else:
            raise InvalidResultError(f"{self._side.name}: in {_TRIES} blocks in a row {why}")
        self.drawn = drawn + samples.outcome.size
        self._count(samples)
        self.rtm_ns.append(float(np.median(samples.latency_ns[good])))
        rate = answer_rate(samples.done_ns[samples.succeeded], samples.due_ns.min(), recorded.window, self._closed)
        self.throughput_rps.append(rate)
        usage = self._observer.usage()  # before the block, when its window opened, and after it
        used_ns = 0 if usage is None else int(usage.cpu_ns[-1] - usage.cpu_ns[-3])
        self.cpu_ns_per_request.append(used_ns / int(samples.succeeded.sum()))
        since_opened = None if usage is None else usage.since(-2)
        self._pieces.append(BlockRecording(samples, recorded.window, since_opened, recorded.generator))
        self.disturbed.append(is_disturbed(since_opened, recorded.generator.cpu_ns))

    def end(self) -> None:
        """After the last block: see that the side is alive, and that not too much of what it was asked failed.

        Raises:
            DeploymentError: one of its processes died.
            InvalidResultError: over 5 % of the requests failed.
        """
        with naming(self._side):
            self._deployment.stats()
        if why := why_too_many_failed(self._failures, self._requests):
            raise InvalidResultError(f"{self._side.name}: {why}")

    def figures(self) -> VariantFigures:
        """What is reported of this side."""
        cpu_ns = median(self.cpu_ns_per_request)
        return VariantFigures(
            rtm_ns=median(self.rtm_ns),
            throughput_rps=median(self.throughput_rps),
            cpu_ns_per_request=cpu_ns or None,
            requests=self._requests,
            failed=self._failures.total(),
            latencies=counted(np.concatenate([latencies_in(piece) for piece in self._pieces])),
        )

    def launch(self) -> Launch:
        """All blocks, joined into one launch."""
        now = self._deployment.stats()
        remote = self._job.endpoint.remote is not None
        report = replace(
            joined_reports(self._pieces),
            ceiling_rps=self._generator.ceiling_of(self._job, 0.0),
            library_overhead_ns=self._generator.library_overhead_ns if remote else None,
        )
        return Launch(
            samples=joined_samples(self._pieces),
            window=joined_window(self._pieces),
            usage=joined_usage(self._pieces),
            stats=now if self._stats is None else now.since(self._stats),
            warmup=self._warmup,
            generator=report,
            cold_start_ns=self._deployment.cold_start_ns,
            request_bytes=np.array([len(message) for message in self._job.messages], dtype=np.int64),
            open_loop=not self._closed,
        )

    def _drive(self, schedule: Schedule, length_ns: int, drawn: int) -> LoadResult:
        events = LoadEvents(self._on_progress, on_window=self._observer.sample)
        start = drawn % len(self._order)
        order = (self._order[start:] + self._order[:start]).tobytes()
        job = replace(self._job, schedule=schedule, duration_ns=length_ns, order=order)
        return self._generator.run(job, poll_s=_POLL_S, on_poll=events.handle, processes=self._side.plan.generators)

    def _why_limited(self, recorded: LoadResult, samples: Samples, good: NDArray[np.bool_]) -> str | None:
        """Why a block says nothing about the side; None where it does."""
        if not good.any():
            return "no request was due; measure with more load"
        report = recorded.generator
        limited = why_limited(
            replace(report, ceiling_rps=self._generator.ceiling_of(self._job, report.rate_rps)),
            send_lag_ns=None if self._closed else samples.send_lag_ns[samples.due_in(recorded.window)],
            latency_ns=float(np.median(samples.latency_ns[good])),
        )
        return limited and f"{limited}; lower the load, or share it: perf(generators=2)"

    def _count(self, samples: Samples) -> None:
        self._requests += samples.outcome.size
        self._failures.update(samples.outcome[~samples.succeeded].tolist())

    def _refuse(self, samples: Samples) -> None:
        """Say why a block in which requests failed and nothing succeeded supports no verdict."""
        self._count(samples)
        self.end()
        failures = Counter(samples.outcome[~samples.succeeded].tolist())
        raise InvalidResultError(
            f"{self._side.name}: nothing succeeded in a block, {failures.total():,} failed "
            f"({describe_failures(failures)})"
        )


@contextmanager
def naming(side: Variant) -> Iterator[None]:
    """A deployment that fails says which side it is."""
    try:
        yield
    except DeploymentError as error:
        raise type(error)(f"{side.name}: {error}") from error


def answer_rate(done_ns: NDArray[np.int64], began_ns: int, window: Window, closed: bool) -> float:
    """Successful answers per second of a block.

    In a closed loop, those of the window in the time in which they came; where the first answer of all came within the
    window, the time from the first request on. In an open loop the answers come as late after the window as they take,
    so that it is the time from the first answer to the last: the rate that was asked for, or what the side manages.

    Args:
        done_ns: when they came, ascending, at least one, those before and after the window included.
        began_ns: when the first request of the block was due, before the window.
        window: the block.
        closed: whether it was a closed loop.
    """
    if closed:
        start_ns = window.start_ns if done_ns[0] <= window.start_ns else began_ns
        edges = np.array([start_ns, window.end_ns], dtype=np.float64)
        counts, spans_ns = completions_between(done_ns, edges)
        if counts[0]:
            return float(counts[0] * 1e9 / spans_ns[0])
    elif done_ns.size > 1:
        return float((done_ns.size - 1) * 1e9 / max(done_ns[-1] - done_ns[0], 1))
    return float(done_ns.size * 1e9 / max(done_ns[-1] - began_ns, 1))
