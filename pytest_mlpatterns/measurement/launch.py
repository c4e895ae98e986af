"""One launch: start a deployment, drive load at it, watch it, and hand back everything seen as one record.

Puts serve, load and observe together. It must not know limits, baselines or pytest.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_mlpatterns.errors import DeploymentError, InvalidResultError, SettingError
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.generator import LoadInterrupted
from pytest_mlpatterns.loadgen.messages import Event, LoadJob, WindowOpened
from pytest_mlpatterns.measurement.capacity import CapacitySearch
from pytest_mlpatterns.records.addressing import Answer, Progress
from pytest_mlpatterns.records.launch import GeneratorReport, Launch, Warmup
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.system.monitor import ResourceMonitor
from pytest_mlpatterns.wire import decode_answer, headers_of
from pytest_mlpatterns.workload.request_builder import answer_in
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.loadgen.messages import LoadResult
    from pytest_mlpatterns.records.launch import Capacity, LaunchValue
    from pytest_mlpatterns.records.objective import Objective
    from pytest_mlpatterns.records.telemetry import PatternStats
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.payload import Payload
    from pytest_mlpatterns.workload.plan import LoadPlan

__all__ = ["Interrupted", "LaunchRunner", "job_for"]

_POLL_S = 0.05
_CHECKED_ANSWERS = 200
_UNDONE = (b"content-encoding",)
"""Headers of what the functional client has undone already."""
MAX_SEARCH_NS = 15_000_000_000
"""Longest capacity search, where the test's budget allows it."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during the load; ``launch`` is what was measured until then, maybe nothing."""

    def __init__(self, launch: Launch) -> None:
        super().__init__()
        self.launch = launch


class LaunchRunner:
    """Starts deployments of one test and measures them, one launch at a time.

    Args:
        start: starts a deployment and waits until it is ready.
        plan: what is sent to it.
        generator: the process that sends it; not used in a smoke run.
        on_progress: takes a sign of life some times a second.
        smoke: send one request instead of a load.
        settle: waits until nothing else of ours uses the machine; called before every start.
    """

    def __init__(
        self,
        start: Callable[[], Deployment],
        plan: LoadPlan,
        generator: Generator,
        on_progress: Callable[[Progress], None],
        *,
        smoke: bool = False,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self.plan = plan
        self.smoke = smoke
        self._start = start
        self._generator = generator
        self._on_progress = on_progress
        self._settle = settle
        self._deployment: Deployment | None = None
        self._measured = False

    @property
    def deployment(self) -> Deployment:
        """The deployment that runs now; started when first asked for.

        Raises:
            DeploymentError: it did not start.
        """
        if self._deployment is None:
            self._settle()
            self._deployment = self._start()
            self._measured = False
        return self._deployment

    def measure(self) -> Launch:
        """Measure one launch; a deployment that was measured already is started afresh.

        Raises:
            DeploymentError: it did not start, or one of its processes died.
            InvalidResultError: a check is given and an answer could not be read.
            Interrupted: Ctrl-C; carries what was measured so far.
            Exception: whatever the check raises.
        """
        if self._measured:
            self.close()
        deployment = self.deployment
        self._measured = True
        if self.smoke:
            return _send_one(deployment, self.plan)
        return _measure(deployment, self.plan, self._generator, self._on_progress)

    def search(
        self,
        decided: Callable[[LaunchValue], bool],
        objective: Objective | None,
        budget_ns: int,
    ) -> Capacity:
        """Search for what the deployment that runs now sustains.

        Args:
            decided: ends the search early, see :func:`pytest_mlpatterns.analysis.capacity_search.climb`.
            objective: a latency objective to keep, None for throughput alone.
            budget_ns: time after which the search ends.

        Raises:
            DeploymentError: it did not start, or one of its processes died.
        """
        deployment = self.deployment
        plan = replace(self.plan, schedule=ClosedLoop(1), check=None)
        messages = deployment.messages(plan.payload)
        template = job_for(deployment, plan, messages)
        search = CapacitySearch(
            template=template,
            generator=self._generator,
            deadline_ns=time.perf_counter_ns() + min(budget_ns, MAX_SEARCH_NS),
            on_progress=self._on_progress,
            generators=plan.generators,
            ceiling_rps=self._generator.ceiling_of(template),
        )
        capacity = search.run(decided, objective)
        deployment.stats()  # a process that died in the search is told, not taken for capacity
        return capacity

    def log_tail(self) -> str:
        """What the deployment's processes printed last."""
        return "" if self._deployment is None else self._deployment.log_tail()

    def close(self) -> None:
        """End the deployment."""
        if self._deployment is not None:
            self._deployment.close()
            self._deployment = None


def _measure(
    deployment: Deployment,
    plan: LoadPlan,
    generator: Generator,
    on_progress: Callable[[Progress], None],
) -> Launch:
    """Warm up, measure one window, drain; watch the deployment meanwhile."""
    messages = deployment.messages(plan.payload)
    job = job_for(deployment, plan, messages)
    observer = ResourceMonitor(lambda: deployment.pids)
    before: list[PatternStats] = []

    def on_poll(event: Event | None) -> None:
        observer.sample()
        if isinstance(event, WindowOpened):
            before.append(deployment.stats())
        elif isinstance(event, Progress):
            on_progress(event)

    def launch_of(recorded: LoadResult) -> Launch:
        observer.sample()
        now = deployment.stats()
        launch = _launch(deployment, plan, messages, recorded, observer, now.since(before[0]) if before else now)
        overhead = generator.library_overhead_ns if deployment.endpoint.remote else None
        report = launch.generator
        rate_rps = 0.0 if recorded.stopped_early else report.rate_rps
        ceiling = generator.ceiling_of(job, rate_rps)
        report = replace(report, ceiling_rps=ceiling, library_overhead_ns=overhead)
        return replace(launch, generator=report)

    observer.sample()
    try:
        recorded = generator.run(job, poll_s=_POLL_S, on_poll=on_poll, processes=plan.generators)
    except LoadInterrupted as stop:
        raise Interrupted(launch_of(stop.result)) from None
    launch = launch_of(recorded)
    if plan.check is not None:
        _check_answers(deployment, plan, recorded.answers)
    return launch


def job_for(deployment: Deployment, plan: LoadPlan, messages: tuple[bytes, ...]) -> LoadJob:
    """What the generator is asked to do for a plan."""
    return LoadJob(
        endpoint=deployment.endpoint,
        messages=messages,
        order=plan.payload.order(),
        schedule=plan.schedule,
        duration_ns=plan.duration_ns,
        warmup_ns=plan.warmup_ns,
        timeout_ns=plan.timeout_ns,
        keep_answers=_CHECKED_ANSWERS if plan.check else 0,
    )


def _send_one(deployment: Deployment, plan: LoadPlan) -> Launch:
    """Send a single request: a launch of one sample."""
    import httpx

    request = plan.payload.first(deployment.path)
    before = deployment.stats()
    started = time.perf_counter_ns()
    try:
        response = deployment.ask(deployment.client, request, plan.timeout_ns / 1e9)
    except httpx.HTTPError as error:
        raise DeploymentError(f"{deployment.url}: {type(error).__name__}: {error}") from error
    done = time.perf_counter_ns()
    if plan.check is not None:
        head = b"\r\n" + b"\r\n".join(
            b"%s: %s" % pair for pair in response.headers.raw if pair[0].lower() not in _UNDONE
        )
        _check_answers(deployment, plan, [Answer(0, response.content, head)] if response.is_success else [])
    moment = np.array([started], dtype=np.int64)
    samples = Samples(
        due_ns=moment,
        sent_ns=moment,
        done_ns=np.array([done], dtype=np.int64),
        outcome=np.array([response.status_code], dtype=np.int16),
        request=np.zeros(1, dtype=np.uint32),
        target=np.zeros(1, dtype=np.uint8),
        received_bytes=np.array([len(response.content)], dtype=np.uint32),
    )
    return Launch(
        samples=samples,
        window=Window(started, done + 1),
        usage=None,
        stats=deployment.stats().since(before),
        warmup=Warmup(0, 0, None),
        generator=GeneratorReport(cpu_ns=0, wall_ns=done - started, completed=1, connections=1),
        cold_start_ns=deployment.cold_start_ns,
        request_bytes=np.array([len(request["content"])], dtype=np.int64),
        open_loop=False,
    )


def _launch(
    deployment: Deployment,
    plan: LoadPlan,
    messages: Sequence[bytes],
    recorded: LoadResult,
    observer: ResourceMonitor,
    stats: PatternStats,
) -> Launch:
    return Launch(
        samples=samples_of(recorded),
        window=recorded.window,
        usage=observer.usage(),
        stats=stats,
        warmup=recorded.warmup,
        generator=recorded.generator,
        cold_start_ns=deployment.cold_start_ns,
        request_bytes=np.array([len(message) for message in messages], dtype=np.int64),
        open_loop=not plan.schedule.closed,
    )


def _output_in(answer: Answer, deployment: Deployment, payload: Payload) -> Any:
    """What an answer holds: an output as the wire or the service gives it back; of a user's own request the bytes."""
    if payload.bodies:
        return decode_answer(deployment.endpoint.wire, answer.body, headers_of(answer.head), deployment.path)[0]
    if payload.builder is None:
        return answer.body
    import httpx

    return answer_in(httpx.Response(httpx.codes.OK, headers=headers_of(answer.head), content=answer.body))


def _check_answers(deployment: Deployment, plan: LoadPlan, answers: Sequence[Answer]) -> None:
    """Hand the user's check the inputs and outputs, index by index."""
    assert plan.check is not None
    if not answers:
        raise InvalidResultError("check= has no successful answer to look at")
    try:
        outputs = [_output_in(answer, deployment, plan.payload) for answer in answers]
    except (ValueError, IndexError) as error:
        raise InvalidResultError(f"check= could not read an answer: {error}") from error
    verdict = plan.check([plan.payload.inputs[answer.request] for answer in answers], outputs)
    if verdict is None:
        return
    found = np.asarray(verdict)
    if found.dtype != np.bool_:
        raise SettingError(
            f"check= returned {verdict!r}, expected None, True, False or an array of them; assert inside it, or "
            "return whether the answers are right"
        )
    if not found.all():
        raise AssertionError(
            f"check= returned {verdict!r} for {len(outputs)} answers from under load; "
            "return None or True, or assert inside it"
        )
