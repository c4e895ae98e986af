"""One launch: starts a deployment, loads it, observes it, and returns everything as one record.

The deployment stays up for what is measured after the launch: searches, overload, a scale-out, a long load. This module
must not know limits, baselines or pytest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

import numpy as np
from msgspec.structs import replace

from pytest_mlpatterns.analysis.causes.growth import track_of
from pytest_mlpatterns.analysis.metrics.samples import take_rows
from pytest_mlpatterns.errors import DeploymentError, MlpatternsError
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.generator import Generator, LoadInterrupted
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.measurement.answer_check import CHECKED_ANSWERS, check_answers, require_figures, send_one
from pytest_mlpatterns.measurement.during import DuringRun
from pytest_mlpatterns.measurement.last_answer import (
    describe_first_failure,
    require_answer,
    require_every_answer,
    why_silent,
)
from pytest_mlpatterns.measurement.load_source import LoadEvents, apart_from, load_source
from pytest_mlpatterns.records.addressing import Balance, Progress
from pytest_mlpatterns.records.capacity import DuringStep
from pytest_mlpatterns.records.launch import REQUESTS_OF_WINDOW, Capacity, Launch, LaunchValue
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.records.samples import ResourceTrack, Samples, Window
from pytest_mlpatterns.records.setup import EnvironmentFacts
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.system.machine import sorting_time_ns
from pytest_mlpatterns.wire.stream_request import asks_for_streams
from pytest_mlpatterns.wording import count
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate
from pytest_mlpatterns.workload.window_plan import RequestWindow, WindowPlan

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.capacity.overload import OfferedLoad, OverloadPlan
    from pytest_mlpatterns.analysis.capacity.scale_out import ScaleOut
    from pytest_mlpatterns.measurement.capacity import Climbed
    from pytest_mlpatterns.measurement.further_load import FollowedGrowth, FurtherLoad
    from pytest_mlpatterns.workload.plan import LoadPlan

_ENOUGH_REQUESTS = 20
"""Requests that a window should have. One that stretches and could not be planned, since several generators share the
load or its answers were quicker before, is measured again for them."""
_LONGEST_WINDOW_NS = 3_000_000_000  # Longest window to which a window of few requests is stretched, in nanoseconds
_INDEX_BYTES = 4  # Size of an index in the order of a job
_POLL_S = 0.05  # Interval of the samples of the monitor during a launch, in seconds
_STILL_ANSWERS_NS = 200_000_000
"""Time before the end of a load in which an answer shows that a service which lost some of its processes lives."""
MAX_SEARCH_NS = 15_000_000_000  # Longest capacity search, if the test's budget allows it
MAX_OBJECTIVE_SEARCH_NS = 30_000_000_000  # Longest capacity search under a latency objective


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during the window of a load; ``launch`` has the requests until then, which may be none."""

    def __init__(self, launch: Launch) -> None:
        super().__init__()
        self.launch = launch


class LaunchRunner:
    """Starts deployments of one test and measures them, one launch at a time."""

    def __init__(
        self,
        start: Callable[[], Deployment],
        plan: LoadPlan,
        generator: Generator,
        *,
        on_progress: Callable[[Progress], None],
        smoke: bool = False,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self.plan: LoadPlan = plan
        self.smoke = smoke
        self._enough, self._decides_alone = 0, False
        self._sorting_ns = 0.0
        self._start = start
        self._generator = generator
        self._on_progress = on_progress
        self._settle = settle
        self._deployment: Deployment | None = None
        self._start_ns = 0
        self._given_ns = plan.duration_ns
        self._planned: RequestWindow | None = None
        self._is_planned = False
        self._measured = False
        self._is_spent = False
        self._facts: EnvironmentFacts = {}
        self._climbed: dict[Objective | None, Climbed | None] = {}
        self._searches = 0

    @property
    def deployment(self) -> Deployment:
        """The running deployment; the first access starts it."""
        if self._deployment is None:
            self._settle()
            self._sorting_ns = 0.0 if self.smoke else sorting_time_ns()
            started_ns = time.perf_counter_ns()
            self._deployment = self._start()
            self._start_ns = time.perf_counter_ns() - started_ns
            self._measured = self._is_spent = False
        return self._deployment

    @property
    def _source(self) -> Generator:
        """What loads the running deployment."""
        return cast("Generator", load_source(self.deployment, self._generator))

    def want_requests(self, enough: int, *, decides_alone: bool = False) -> None:
        """The verdicts need this many requests, for which the window of the first launch may be longer.

        ``decides_alone``: whether one launch may decide.
        """
        self._enough, self._decides_alone = enough, decides_alone

    def measure(self, plan: LoadPlan | None = None) -> Launch:
        """Measure one launch; a deployment that was measured before is replaced by a new one.

        ``plan``: what is sent from now on; None for what was sent before. Raises Interrupted: Ctrl-C; carries the
        launch so far. Raises KeyboardInterrupt: Ctrl-C, and the window had not begun, or the deployment has ended too.
        Raises BaseException: any that the check raises, or the function beside the load.
        """
        if self._measured:
            self.close()
        self.plan = self.plan if plan is None else plan
        deployment = self.deployment
        self._measured = True
        if self.smoke:
            return self._smoke_launch(deployment)
        self._is_spent = self.plan.during is not None
        launch = self._planned_launch(deployment)
        if (longer_ns := self._longer_window(launch)) is not None:
            self.plan = replace(self.plan, duration_ns=longer_ns)  # for the next launches too
            warm = replace(self.plan, warmup_ns=0)
            launch = _LaunchMeasurement(deployment, warm, self._source).run(self._on_progress)
        launch = self._with_given_window(launch)
        if not self._facts and not launch.silence:
            self._facts = deployment.facts()
        # four moments: of two, others may disturb both, and a faster machine then hides a slower service
        moments_ns = (self._sorting_ns, *launch.sorting_ns, sorting_time_ns())
        return replace(launch, facts=self._facts, sorting_ns=moments_ns)

    def _smoke_launch(self, deployment: Deployment) -> Launch:
        """A single request, and then the function beside the load without one."""
        launch = send_one(deployment, self.plan)
        if self.plan.during is not None:
            from pytest_mlpatterns.measurement.during import run_alone

            run_alone(self.plan.during, deployment, self.plan.duration_ns)
        return launch

    def start_again(self) -> int | None:
        """Replace the deployment by a new one, which later launches and searches use.

        Returns its time from start to first answer in nanoseconds; None if that is not known.
        """
        self.close()
        return self.deployment.cold_start_ns

    def _planned_launch(self, deployment: Deployment) -> Launch:
        """Measure a launch; the first one plans the window of a slow service, and the next ones keep to the plan.

        A window that is longer for what the verdicts need is the first launch's alone, after which they have it.
        """
        measurement = _LaunchMeasurement(deployment, self.plan, self._source)
        plan = self.plan.window_plan(
            self._start_ns, measurement.round, enough=self._enough, decides_alone=self._decides_alone
        )
        launch = measurement.run(self._on_progress, self._planned if self._is_planned else plan)
        if not self._is_planned and not launch.silence:
            planned = measurement.planned
            self._is_planned, self._planned = True, planned if planned and planned.is_of_slow_service else None
        return launch

    def _longer_window(self, launch: Launch) -> int | None:
        """The length of a window with enough requests, if this one had few and may stretch; else None."""
        if self._planned is not None or self.plan.during is not None:
            return None
        requests = int(launch.samples.due_in(launch.window).sum())
        window_ns = self.plan.duration_ns
        if not requests:
            return self._window_of_requests(launch)
        if not self.plan.stretches or requests >= _ENOUGH_REQUESTS or window_ns >= _LONGEST_WINDOW_NS or launch.silence:
            return None
        return min(round(1.2 * window_ns * _ENOUGH_REQUESTS / max(requests, 1)), _LONGEST_WINDOW_NS)

    def _window_of_requests(self, launch: Launch) -> int | None:
        """The length of a window in which each caller sends a request, if none was due in this one.

        None if the callers do not cause it, nothing was answered, or the budget has no time for such a window.
        """
        longest_ns = launch.longest_answer_ns
        if launch.open_loop or launch.silence or not longest_ns or self.plan.schedule.length_ns is not None:
            return None
        needed_ns = round(REQUESTS_OF_WINDOW * longest_ns)
        return needed_ns if launch.window.duration_ns < needed_ns <= self.plan.budget_ns else None

    def _with_given_window(self, launch: Launch) -> Launch:
        """The launch with the length of the window that was given, if a request is longer and lengthened it."""
        was_lengthened = self._given_ns < min(launch.longest_answer_ns, launch.window.duration_ns)
        has_length = self.plan.requests > 0 or self.plan.schedule.length_ns is not None
        if launch.open_loop or has_length or not was_lengthened:
            return launch
        return replace(launch, given_window_ns=self._given_ns)

    def search(self, decided: Callable[[LaunchValue], bool], objective: Objective | None, budget_ns: int) -> Capacity:
        """Search for the capacity of the running deployment.

        ``objective``: a latency objective to keep, None for throughput alone.
        """
        from pytest_mlpatterns.measurement.capacity import CapacitySearch

        deployment = self._untouched()
        plan = replace(self.plan, schedule=ClosedLoop(1), check=None, figures=None)  # what the service itself can do
        template = job_for(deployment, plan, deployment.messages(plan.payload))
        longest_ns = MAX_SEARCH_NS if objective is None else MAX_OBJECTIVE_SEARCH_NS
        search = CapacitySearch(
            template=template,
            generator=self._source,
            monitor=deployment.monitor(),
            deadline_ns=time.perf_counter_ns() + min(budget_ns, longest_ns),
            on_progress=self._on_progress,
            generators=plan.generators,
            ceiling_rps=self._source.ceiling_of(template),
            tokens=plan.tokens,
            climbed=self._climbed.get(objective),
            number=self._searches,
        )
        self._searches += 1
        with apart_from(deployment, self._source, plan.generators):
            capacity = search.run(decided, objective)
        self._climbed[objective] = search.climbed
        deployment.stats()  # raises if a process died in the search
        if last := search.last:
            sent = replace(plan, schedule=last.schedule)
            require_answer(deployment, sent, last.samples, window=last.window, when="in the search for the capacity")
        return capacity

    def offer_overload(self, plan: OverloadPlan, nmrt_rps: float) -> tuple[OfferedLoad, ...]:
        """Offer loads beyond the NMRT to the running deployment."""
        from pytest_mlpatterns.analysis.capacity.overload import times_capacity
        from pytest_mlpatterns.measurement.further_load import offer_overload

        deployment = self._untouched()
        loads = offer_overload(self._further_load(), plan, nmrt_rps)
        deployment.processes.stats()  # raises if a process died; a service that is still busy need not answer
        peak, sent = loads[-1], replace(self.plan, schedule=ConstantRate(plan.ratios[-1] * nmrt_rps))
        whole = Window(peak.window.start_ns, peak.window.end_ns + peak.watched_ns)
        when, owed_s = f"after a load of {times_capacity(peak.load_ratio)}", plan.backlog_s
        require_answer(deployment, sent, peak.samples, window=whole, owed_s=owed_s, when=when)
        return loads

    def scale_out(self, concurrency: int, balance: Balance) -> ScaleOut:
        """Add one more replica to the running deployment while it is loaded; its engine must be able to."""
        from pytest_mlpatterns.measurement.further_load import ScaleOutRun

        found = ScaleOutRun(self._further_load(), balance).run(concurrency)
        require_every_answer(self.deployment, self.plan, when="after one more replica was added")
        return found

    def follow_growth(self, longest_ns: int, is_decided: Callable[[ResourceTrack], bool]) -> FollowedGrowth:
        """Load the running deployment until the growth of what it holds is decided; see :class:`GrowthWindow`."""
        from pytest_mlpatterns.measurement.further_load import GrowthWindow

        load = self._further_load()
        self._measured = True
        return GrowthWindow(load).run(longest_ns, is_decided)

    def _further_load(self) -> FurtherLoad:
        """What loads the running deployment, whose answers are neither checked nor counted in tokens."""
        from pytest_mlpatterns.measurement.further_load import FurtherLoad

        deployment, plan = self._untouched(), replace(self.plan, check=None, tokens=None, figures=None)
        job = job_for(deployment, plan, deployment.messages(plan.payload))
        return FurtherLoad(deployment, plan, job, self._source, self._on_progress)

    def _untouched(self) -> Deployment:
        """The running deployment, or a new one if a function beside a load has changed it."""
        if self._is_spent:
            self.close()
        return self.deployment

    def log_tail(self) -> str:
        """The end of the deployment's log."""
        return "" if self._deployment is None else self._deployment.log_tail()

    def close(self) -> None:
        """Close the deployment."""
        if self._deployment is not None:
            self._deployment.close()
            self._deployment = None


class _LaunchMeasurement:
    """Measures one launch of a deployment that is ready: warms up, loads one window, drains, and observes meanwhile.

    ``planned``: its window, if that ended by its requests; None before it is over.
    """

    def __init__(self, deployment: Deployment, plan: LoadPlan, generator: Generator) -> None:
        self._deployment = deployment
        self._plan = plan
        self._generator = generator
        self._job = job_for(deployment, plan, deployment.messages(plan.payload), conversations=True)
        self._monitor = deployment.monitor()
        self._stats_before: PatternStats | None = None
        self._beside: DuringRun | None = None
        if plan.during is not None:
            from pytest_mlpatterns.measurement.during import DuringRun

            self._beside = DuringRun(plan.during, deployment, generator)
        self._steps: tuple[DuringStep, ...] = ()
        self._sorting_ns = 0.0
        self._answers: int | None = None
        self.planned: RequestWindow | None = None

    @property
    def round(self) -> int:
        """Requests of a round of the inputs."""
        return len(self._job.order) // _INDEX_BYTES or len(self._job.messages)

    def run(self, on_progress: Callable[[Progress], None], window: RequestWindow | WindowPlan | None = None) -> Launch:
        """Run the load, and check its answers if the plan has a check; ``window`` as of :class:`LoadJob`."""
        try:
            launch, result = self._loaded(on_progress, window)
        except DeploymentError as error:
            when = "in the warm-up" if self._stats_before is None else "in the window"
            if self._answers is not None:
                when = f"after {count(self._answers, 'answer')}"
            error.add(f"this happened under load, {when}")
            raise
        require_figures(self._plan, result, launch.samples)
        if self._plan.check is not None and launch.samples.succeeded.any():  # else the failures are what is wrong
            check_answers(self._deployment, self._plan, result.answers, are_cut=result.generator.answers_cut)
        return launch

    def _loaded(
        self, on_progress: Callable[[Progress], None], window: RequestWindow | WindowPlan | None
    ) -> tuple[Launch, LoadResult]:
        """Run the load."""
        warmup_requests = self._plan.warmup_requests if self._plan.warmup_ns is None else 0
        self._job = replace(self._job, window=window, warmup_requests=warmup_requests)
        self._sorting_ns = sorting_time_ns()
        self._monitor.sample()
        events = LoadEvents(on_progress, self._open_window, self._poll, self._open_beside)
        if self._plan.warmup_ns == 0:  # the window opens with the load, and may be over before its event is read
            self._open_window()
        try:
            with self._function_beside(), apart_from(self._deployment, self._generator, self._plan.generators):
                result = self._generator.run(
                    self._job, poll_s=_POLL_S, on_poll=events.handle, processes=self._plan.generators
                )
            if self._beside is not None:
                self._steps = self._beside.finish(result.window)
        except LoadInterrupted as stop:
            if stop.result.window.duration_ns <= 0:  # the warm-up was not over: nothing of this launch counts
                raise KeyboardInterrupt from None
            try:
                launch = self._launch(stop.result)
            except MlpatternsError:  # what interrupted the load may have ended the deployment too
                raise KeyboardInterrupt from None
            raise Interrupted(launch) from None
        self.planned = result.planned
        return self._launch(result), result

    @contextlib.contextmanager
    def _function_beside(self) -> Iterator[None]:
        """The function beside the load does not outlive a load that fails."""
        try:
            yield
        except BaseException:
            if self._beside is not None:
                self._beside.abandon()
            raise

    def _open_beside(self, start_ns: int) -> None:
        if self._beside is not None:
            self._beside.open(start_ns, self._job.duration_ns)

    def _poll(self) -> None:
        self._monitor.sample(poll=True)
        if self._beside is not None:
            self._beside.poll()

    def _silence(self, samples: Samples, window: Window) -> str:
        """Why the service is taken for dead; a function beside the load may have ended a part of it."""
        is_meant = self._beside is not None and self._beside.has_meddled
        answered_ns = samples.done_ns[samples.succeeded].max(initial=0)
        if is_meant and answered_ns >= window.end_ns - _STILL_ANSWERS_NS:
            return ""
        return why_silent(self._deployment, self._plan, samples, window=window)

    def _open_window(self) -> None:
        if self._stats_before is None:  # each generator process opens a window; the first counts
            self._stats_before = self._deployment.stats()

    def _launch(self, result: LoadResult) -> Launch:
        self._monitor.sample()
        report, schedule, samples = result.generator, self._plan.schedule, samples_of(result, self._plan.tokens)
        self._answers = int(samples.succeeded.sum())
        window = sending = result.window
        if self._plan.requests:  # no rate is cut at an answer of the warm-up, which was over before
            samples = take_rows(samples, np.flatnonzero(samples.due_in(window)))
            window, sending = (samples.span_of(result.window, answered=answered) for answered in (True, False))
        silence = ""
        if not result.stopped_early:
            silence = self._silence(samples, sending)
        # A silent service answers no question for its metrics either.
        stats = (self._deployment.processes if silence else self._deployment).stats()
        usage = self._monitor.usage()
        return Launch(
            samples=samples,
            window=window,
            usage=usage,
            stats=stats if self._stats_before is None else stats.since(self._stats_before),
            warmup=result.warmup,
            generator=replace(
                report,
                ceiling_rps=self._generator.ceiling_of(self._job, 0.0 if result.stopped_early else report.rate_rps),
                library_overhead_ns=self._generator.library_overhead_ns if self._job.endpoint.remote else None,
            ),
            cold_start_ns=self._deployment.cold_start_ns,
            request_bytes=np.array([len(message) for message in self._job.messages], dtype=np.int64),
            open_loop=not schedule.closed,
            rate_rps=self._plan.rate_of(samples, result.window),
            first_failure=describe_first_failure(
                self._deployment, self._plan.payload, samples, window=window, stats=stats, answers=result.failed
            ),
            silence=silence,
            track=track_of(usage, samples.done_ns, (window,)),
            sorting_ns=(self._sorting_ns, sorting_time_ns()),
            answer_form=self._deployment.answer_form,
            steps=self._steps,
            requests=self._plan.requests,
        )


def job_for(
    deployment: Deployment, plan: LoadPlan, messages: tuple[bytes, ...], *, conversations: bool = False
) -> LoadJob:
    """The job of the load generator for a plan.

    ``messages``: the requests as bytes, as :meth:`Deployment.messages` makes them. ``conversations``: whether callers
    keep to the conversations of the payload, and think; else turns are requests as any other, so that the thinking does
    not limit what the service can do.
    """
    talks, wire = plan.payload.conversations if conversations else None, plan.payload.wire
    return LoadJob(
        endpoint=replace(deployment.endpoint, wire=wire),  # its client is this side's
        messages=messages,
        order=plan.payload.order(all_requests=talks is None),
        schedule=plan.schedule,
        duration_ns=plan.duration_ns,
        warmup_ns=plan.warmup_ns,
        timeout_ns=plan.timeout_ns,
        keep_answers=CHECKED_ANSWERS if plan.check else 0,
        stream=deployment.streams or wire.protocol == "client" or asks_for_streams(wire, messages),
        keep_texts=plan.tokens is not None,
        think_ns=b"" if talks is None else talks.think_ns,
        figures=plan.figures,
    )
