"""One variant of an interleaved run: its start beside the others, warm-up, blocks, and the final check of its health.

A block gives one value of each metric. A block without information about the variant is measured again, a bounded
number of times. This module must not know the other variant.
"""

from __future__ import annotations

import contextlib
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.causes.growth import track_of
from pytest_mlpatterns.analysis.health.machine import is_disturbed
from pytest_mlpatterns.analysis.health.sustained import Fault, InvalidReason, moves_ratios, why_limited
from pytest_mlpatterns.analysis.metrics.blocked_values import counted
from pytest_mlpatterns.analysis.statistics.distributions import location
from pytest_mlpatterns.analysis.statistics.log_ratio import VariantFigures
from pytest_mlpatterns.analysis.verdicts.verdicts import why_too_many_failed
from pytest_mlpatterns.errors import DeploymentError, InvalidResultError, MlpatternsError, PerfWarning
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.generator_process import LocalPool
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.measurement.answer_check import require_figures
from pytest_mlpatterns.measurement.last_answer import describe_first_failure, why_silent
from pytest_mlpatterns.measurement.launch import job_for
from pytest_mlpatterns.measurement.load_source import CallLoop, LoadEvents, apart_from, load_source
from pytest_mlpatterns.measurement.paired_blocks import (
    BlockRecording,
    ResponsePace,
    answer_rate,
    block_latencies,
    joined_slices,
    merge_reports,
    merge_samples,
    merge_usage,
    merge_windows,
    response_pace,
    stream_figures,
)
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.launch import Launch, Warmup
from pytest_mlpatterns.records.outcomes import FailedAnswer, FirstFailure, describe_failures
from pytest_mlpatterns.records.samples import ResourceTrack, Samples, Window
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.records.verdict import OpenBy, WhyOpen
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.system.cpu_share import put_on_cores
from pytest_mlpatterns.system.machine import sorting_time_ns
from pytest_mlpatterns.units import MAX_DURATION_NS
from pytest_mlpatterns.workload.schedule import ClosedLoop
from pytest_mlpatterns.workload.window_plan import RequestWindow

if TYPE_CHECKING:
    from pytest_mlpatterns.workload.plan import LoadPlan

_POLL_S = 0.1  # Interval of the samples of the monitor during a block, in seconds
TRIES = 5  # Attempts to measure one block
_WARM_ANSWERS = 2  # Answers to each caller in the warm-up of a slow variant; the first one alone may be a cold one
_SORTED_ROUNDS = 5  # Rounds of the fixed work before each block: 4 ms beside its 100 ms and more
_LONGEST_FACTOR = 3  # How many times as long as planned a block of a number of requests may take


class Variant(Struct, frozen=True):
    """One arm of an interleaved run."""

    name: str
    start: Callable[..., Deployment]  # takes other options of the start by name
    plan: LoadPlan  # what is sent to it. A check of answers in it is ignored


class SeenBlock(Struct, frozen=True):
    """One block, before it counts."""

    recording: BlockRecording
    failed: Mapping[int, FailedAnswer]  # by outcome, the first answer that did not count and has a reason
    used_ns: int  # CPU time of the processes since the block before
    why: InvalidReason | None  # why it has no information about the variant; None if it has
    late: str = ""  # why its requests were late, which makes both sides alike; empty if they were not

    @property
    def length_factor(self) -> int:
        """How many times as long the next attempt lasts: twice if no request was due."""
        return 1 if self.recording.samples.due_in(self.recording.window).any() else 2


class VariantRun:
    """One variant while it runs.

    ``values``: of each metric of a paired launch, one of each block; 0 if it is not known. ``disturbed``: whether other
    processes disturbed a block. ``late``: why requests of a block that counts were late; None if none were.
    """

    def __init__(
        self, variant: Variant, deployment: Deployment, generator: Generator, *, on_progress: Callable[[Progress], None]
    ) -> None:
        self.position: int = 0
        self.repeated: int = 0
        self.late: WhyOpen | None = None
        self.values: dict[str, list[float]] = {}
        self.disturbed: list[bool] = []
        self._blocks: list[BlockRecording] = []
        self._done_ns: list[NDArray[np.int64]] = []
        self._sorting_ns: list[float] = []
        self._warm_ns = 0
        self._warmup = Warmup(0, 0, None)
        self._stats: PatternStats | None = None
        self._requests = 0
        self._failures: Counter[int] = Counter()
        self._failed: Samples | None = None
        self._failed_answers: dict[int, FailedAnswer] = {}
        self._first_failure: FirstFailure | None = None
        self._variant = variant
        self._deployment = deployment
        self._generator = load_source(deployment, generator)
        self._on_progress = on_progress
        self._monitor = deployment.monitor()
        plan = replace(variant.plan, check=None, warmup_ns=0)
        self._job = job_for(deployment, plan, deployment.messages(plan.payload))
        self._closed = plan.schedule.closed
        self._order = array("I", self._job.order) or array("I", range(len(self._job.messages)))

    @property
    def inputs(self) -> int:
        """Requests of a round of the inputs."""
        return len(self._order)

    def may_alternate_with(self, other: VariantRun) -> bool:
        """Whether the load generator can send both loads in slices: one process of it, callers that do not think."""
        return self._generator is other._generator and self._is_plain and other._is_plain

    @property
    def _is_plain(self) -> bool:
        """Whether the load is a plain closed loop from one process of this machine, with answers that come whole."""
        job, schedule = self._job, self._job.schedule
        return (
            isinstance(self._generator, Generator)
            and isinstance(self._generator.pool, LocalPool)
            and isinstance(schedule, ClosedLoop)
            and not (schedule.think_time_ns or job.think_ns or job.stream or job.endpoint.remote)
            and self._variant.plan.generators == 1
            and self._deployment.cpu_share is None
        )

    def warm_up(self, shortest_ns: int, longest_ns: int = 0) -> ResponsePace:
        """Load the variant, and estimate its pace from the second half of the answers.

        ``longest_ns``: time after which no caller waits for a second answer.
        """
        schedule = self._job.schedule
        has_length = schedule.length_ns is not None  # such a schedule fills a block, not a warm-up
        length_ns = max(shortest_ns, self._variant.plan.warmup_ns or 0)
        answers = _WARM_ANSWERS * schedule.concurrency if isinstance(schedule, ClosedLoop) else 0
        window = self._counted(answers, length_ns, longest_ns) if longest_ns > length_ns else None
        if given := self._variant.plan.warmup_requests:
            window = self._counted(max(answers, given), length_ns, MAX_DURATION_NS)
        job = self.job_from(0, length_ns, window=window)
        result = self.send(replace(job, schedule=ClosedLoop(1)) if has_length else job)
        samples = samples_of(result)
        if not samples.succeeded.any():
            self._refuse(samples, result.failed)
        latency_ns = samples.latency_ns[samples.succeeded]
        latency_ns = latency_ns[latency_ns.size // 2 :]
        self._warmup = Warmup(max(length_ns, result.window.duration_ns), samples.outcome.size, None)
        with named_errors(self._variant):
            self._stats = self._deployment.stats()
        self._warm_ns = time.perf_counter_ns()
        return response_pace(self._variant.plan.schedule, float(np.median(latency_ns)))

    def load(
        self, length_ns: int, position: int, core: int = 0, *, requests: int | None = None, stagger_ns: int = 0
    ) -> None:
        """Measure one block.

        A block in which the load generator was the limit is measured again, unless that is a client of the user's own,
        which will be so again. A block in which no request was due is measured again at twice the length. One whose
        requests were late in each turn counts, and late ones after it, since that hides a change and makes none.

        ``requests``: after which the block ends, about its length; None if it lasts its length.
        """
        for tried in range(1, TRIES + 1):
            self.begin_block(core)
            window = None if requests is None else self._counted(requests, 0, _LONGEST_FACTOR * length_ns)
            job = self.job_from(position, length_ns, window=window, stagger_ns=stagger_ns)
            block = self.seen(self.send(job))
            if block.why is None and (not block.late or self.late is not None or tried == TRIES):
                return self.keep(block, position)
            if block.why is not None and block.why.fault is Fault.CLIENT:
                raise block.why.error(f"{self._variant.name}: ")
            length_ns *= block.length_factor
        raise self.never_valid(block)

    def begin_block(self, core: int) -> None:
        """See how fast the machine is and what the processes used until now, and spread them over the cores."""
        self._sorting_ns.append(sorting_time_ns(_SORTED_ROUNDS))
        self.read_usage()
        put_on_cores([*self._monitor.pids, *self._generator.pids], core)

    def job_from(
        self, position: int, length_ns: int, *, window: RequestWindow | None = None, stagger_ns: int = 0
    ) -> LoadJob:
        """The load of a block; ``position`` is the index of its first input."""
        start = position % len(self._order)
        order = (self._order[start:] + self._order[:start]).tobytes()
        return replace(self._job, duration_ns=length_ns, order=order, window=window, stagger_ns=stagger_ns)

    def read_usage(self) -> None:
        """Read what the processes used until now."""
        self._monitor.sample()

    def send(self, job: LoadJob, *, on_window: Callable[[], None] | None = None) -> LoadResult:
        """Send a load to its end."""
        processes = self._variant.plan.generators

        def opened() -> None:
            self.read_usage()
            if on_window is not None:
                on_window()

        events = LoadEvents(self._on_progress, on_window=opened)
        with named_errors(self._variant), apart_from(self._deployment, self._generator, processes):
            return self._generator.run(job, poll_s=_POLL_S, on_poll=events.handle, processes=processes)

    def seen(self, result: LoadResult) -> SeenBlock:
        """What a block shows, once its load is over; one that shows nothing counts as repeated."""
        self.read_usage()
        usage = self._monitor.usage()  # before the block, when its window opened, and after it
        samples, window = samples_of(result, self._variant.plan.tokens), result.window
        self._done_ns.append(samples.done_ns)
        self._require_answers(samples, result)
        require_figures(self._variant.plan, result)
        if result.slices:
            samples, window = joined_slices(samples, result.slices)
        recording = BlockRecording(samples, window, None if usage is None else usage.since(-2), result.generator)
        why = self._why_limited(recording)
        late = self._why_late(recording) if why is None else ""
        self.repeated += why is not None or bool(late)
        used_ns = 0 if usage is None else int(usage.cpu_ns[-1] - usage.cpu_ns[-3])
        return SeenBlock(recording, result.failed, used_ns, why, late)

    def never_valid(self, block: SeenBlock) -> MlpatternsError:
        """The error of a block that no attempt gave information in."""
        assert block.why is not None
        return block.why.error(f"{self._variant.name}: in {TRIES} turns in a row ")

    def keep(self, block: SeenBlock, position: int) -> None:
        """Note the figures of one block, which began with the input of this index."""
        samples, window = block.recording.samples, block.recording.window
        good = samples.successes_in(window)
        self.position = position + samples.outcome.size
        if block.late:
            by = OpenBy.CLIENT if block.recording.report.client else OpenBy.MACHINE
            self.late = WhyOpen(by, block.late)
        self._count(samples, block.failed)
        figures = {
            "rtm": float(np.median(samples.latency_ns[good])),
            "latency_mean": location(samples.latency_ns[good]),
            "throughput": answer_rate(samples, window, closed=self._closed),
            "cpu_per_request": block.used_ns / int(samples.succeeded.sum()),
            **stream_figures(samples, window, good, closed=self._closed),
        }
        for name, value in figures.items():
            self.values.setdefault(name, []).append(value)
        self._blocks.append(block.recording)
        self.disturbed.append(is_disturbed(block.recording.usage, block.recording.report.cpu_ns))

    def end(self) -> None:
        """After the last block: check that all processes run and that few requests failed."""
        with named_errors(self._variant):
            stats = self._deployment.stats()
        if self._failed is not None:
            self._first_failure = describe_first_failure(
                self._deployment,
                self._variant.plan.payload,
                self._failed,
                window=None,
                stats=stats,
                answers=self._failed_answers,
            )
        if why := why_too_many_failed(
            self._failures, self._requests, self._first_failure, may_refuse=self._variant.plan.overloads
        ):
            raise self._failed_side(why)

    def figures(self) -> VariantFigures:
        """The figures of this variant over all its blocks."""
        return VariantFigures.of(
            self.values,
            requests=self._requests,
            failed=self._failures.total(),
            latencies=counted(np.concatenate([block_latencies(block) for block in self._blocks])),
        )

    def launch(self, *, with_facts: bool) -> Launch:
        """All blocks, merged into one launch; with the environment of the deployment if that is not known yet."""
        now = self._deployment.stats()
        remote = self._job.endpoint.remote is not None
        report = replace(
            merge_reports(self._blocks),
            ceiling_rps=self._generator.ceiling_of(self._job, 0.0),
            library_overhead_ns=self._generator.library_overhead_ns if remote else None,
        )
        return Launch(
            samples=merge_samples(self._blocks),
            window=merge_windows(self._blocks),
            usage=merge_usage(self._blocks),
            stats=now if self._stats is None else now.since(self._stats),
            warmup=self._warmup,
            generator=report,
            cold_start_ns=self._deployment.cold_start_ns,
            request_bytes=np.array([len(message) for message in self._job.messages], dtype=np.int64),
            open_loop=not self._closed,
            first_failure=self._first_failure,
            track=self._track(),
            facts=self._deployment.facts() if with_facts else {},
            sorting_ns=(fmean(self._sorting_ns),),
            answer_form=self._deployment.answer_form,
        )

    def _track(self) -> ResourceTrack | None:
        """What it held since its warm-up, over the requests of all blocks, those that were measured again included."""
        if (usage := self._monitor.usage()) is None:
            return None
        since_warm = Window(self._warm_ns, time.perf_counter_ns())
        return track_of(usage, np.concatenate(self._done_ns), (since_warm,))

    def _counted(self, requests: int, least_ns: int, longest_ns: int) -> RequestWindow | None:
        """A window that ends by its requests; None if generators share the load."""
        alone = self._variant.plan.generators == 1 and requests > 0
        return RequestWindow(requests, least_ns, longest_ns) if alone else None

    def _why_limited(self, recording: BlockRecording) -> InvalidReason | None:
        """Why a block has no information about the variant; None if it has."""
        report = recording.report
        if not block_latencies(recording).size:
            return InvalidReason("no request was due; measure with more load", Fault.SERVICE)
        limited = why_limited(replace(report, ceiling_rps=self._generator.ceiling_of(self._job, report.rate_rps)))
        if limited is None:
            return None
        if report.client:
            return InvalidReason(limited, Fault.CLIENT)
        return InvalidReason(f"{limited}; lower the load, or share it: perf(generators=2)", Fault.GENERATOR)

    def _why_late(self, recording: BlockRecording) -> str:
        """Why the requests of a block were late by what matters; empty if they were not."""
        samples, latency_ns = recording.samples, float(np.median(block_latencies(recording)))
        lag_ns = samples.send_lag_ns[samples.due_in(recording.window)]
        if self._closed or not moves_ratios(lag_ns, latency_ns):
            return ""
        return why_limited(recording.report, send_lag_ns=lag_ns, latency_ns=latency_ns) or ""

    def _require_answers(self, samples: Samples, result: LoadResult) -> None:
        """Raise if the variant no longer answers at the end of a block, or nothing succeeded in it."""
        silence = ""
        if not isinstance(self._generator, CallLoop):  # its calls have all returned
            with named_errors(self._variant):
                silence = why_silent(self._deployment, self._variant.plan, samples, window=result.window)
        if silence:
            raise self._failed_side(silence)
        inside = samples.due_in(result.window)
        if inside.any() and not (inside & samples.succeeded).any():
            self._refuse(samples, result.failed)

    def _count(self, samples: Samples, answers: Mapping[int, FailedAnswer]) -> None:
        """Count the requests of a block and keep its first failures; not of a warm-up, nor of a block to repeat."""
        self._failed_answers = {**answers, **self._failed_answers}
        self._requests += samples.outcome.size
        self._failures.update(samples.outcome[samples.failed].tolist())
        if self._failed is None and self._failures:
            self._failed = samples

    def _refuse(self, samples: Samples, answers: Mapping[int, FailedAnswer]) -> None:
        """Raise the reason why a block without a successful request supports no verdict."""
        self._count(samples, answers)
        self.end()
        failures = Counter(samples.outcome[samples.failed].tolist())
        described = describe_failures(failures, self._first_failure)
        raise self._failed_side(f"nothing succeeded in a turn, {failures.total():,} failed ({described})")

    def _failed_side(self, why: str) -> InvalidResultError:
        return InvalidResultError(f"{self._variant.name}: {why}", side=self._variant.name)


@contextmanager
def named_errors(variant: Variant) -> Iterator[None]:
    """Put the variant's name in front of the errors of its deployment that do not have it."""
    try:
        yield
    except DeploymentError as error:
        if error.names(variant.name):  # a revision names itself, and its errors have more arguments
            raise
        raise type(error)(f"{variant.name}: {error}", side=variant.name) from error


def _started(variant: Variant) -> Future[Deployment]:
    """A deployment that starts in a thread of its own."""
    started: Future[Deployment] = Future()

    def run() -> None:
        try:
            with named_errors(variant):
                started.set_result(variant.start())
        except BaseException as error:  # who waits raises it
            started.set_exception(error)

    threading.Thread(target=run, name=f"start of {variant.name}", daemon=True).start()
    return started


def _close(started: Future[Deployment]) -> None:
    """Close a deployment, or leave that to its thread if it still starts."""
    if not started.done():
        started.add_done_callback(_close_abandoned)
    elif started.exception() is None:
        started.result().close()


def _close_abandoned(started: Future[Deployment]) -> None:
    if started.exception() is None:
        with contextlib.suppress(MlpatternsError, PerfWarning):  # no one waits: what holds it may have ended it
            started.result().close()


@contextmanager
def started_deployments(variants: Sequence[Variant]) -> Iterator[list[Deployment]]:
    """Start all deployments side by side, and close them so at the end; each takes a moment, mostly to wait."""
    starts = [_started(variant) for variant in variants]
    try:
        yield [start.result() for start in starts]
    finally:
        with ThreadPoolExecutor(max_workers=len(starts)) as closing:
            done = [closing.submit(_close, start) for start in starts]
        for one in done:
            one.result()
