"""What loads a deployment: the load generator, or the deployment's own process if it is called without a server.

:class:`CallLoop` takes the jobs of a generator and gives the same results, so that calls are measured in the same
blocks as requests. Every load keeps the generator off the cores of the deployment and passes its events to observers.
This module must not know what is compared.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.engines.local.plain_caller import CallRecord, CallRound
from pytest_mlpatterns.engines.local.plain_calls import PlainCalls
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult, WindowOpened
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.system.cpu_share import other_cores
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.workload.schedule import ClosedLoop
from pytest_mlpatterns.workload.window_plan import RequestWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.serving.deployment import Deployment

_SLACK_NS = 5_000_000_000
"""Time beyond the window and the time-out of a call after which the process counts as stuck; a busy machine may delay
the last message by a second."""


class CallLoop:
    """Stands for the load generator of one deployment without a server.

    ``library_overhead_ns``: None, as no client library is between.
    """

    library_overhead_ns: None = None

    def __init__(self, deployment: PlainCalls) -> None:
        self._deployment = deployment

    @property
    def pids(self) -> tuple[int, ...]:
        """No process of its own."""
        return ()

    def start(self, processes: int = 1) -> None:
        """Do nothing: the process runs already."""

    def ceiling_of(self, job: LoadJob, rate_rps: float = 0.0) -> None:
        """Nothing is between the model and its caller that could be the limit."""

    def run(
        self, job: LoadJob, *, poll_s: float, on_poll: Callable[[Event | None], None], processes: int = 1
    ) -> LoadResult:
        """Run one job of a closed loop to its end; arguments as of :meth:`Generator.run`."""
        assert isinstance(job.schedule, ClosedLoop)
        window = job.window if isinstance(job.window, RequestWindow) else None
        asked = CallRound(
            callers=job.schedule.concurrency,
            order=job.order,
            length_ns=job.most_ns,
            requests=None if window is None else window.requests,
            least_ns=0 if window is None else window.least_ns,
        )
        on_poll(WindowOpened(time.perf_counter_ns()))
        wait_ns = job.most_ns + job.timeout_ns + _SLACK_NS
        try:
            record = self._deployment.loop(asked, wait_ns / 1e9, lambda: on_poll(None))
        except TimeoutError:
            raise DeploymentError(
                f"a call has not returned after {format_duration(job.timeout_ns)}, the time-out; raise it with "
                'perf(timeout="1min"), or give smaller inputs'
            ) from None
        return _result(record, job)


def load_source(deployment: Deployment, generator: Generator) -> Generator | CallLoop:
    """What loads a deployment: the load generator, or its own process if it serves nothing."""
    return CallLoop(deployment) if isinstance(deployment, PlainCalls) else generator


def _result(record: CallRecord, job: LoadJob) -> LoadResult:
    """The calls as a load generator records requests: due and sent when they began, and no byte received."""
    calls = len(record.done_ns) // 8
    return LoadResult(
        columns={
            "due_ns": record.began_ns,
            "sent_ns": record.began_ns,
            "done_ns": record.done_ns,
            "outcome": record.outcome,
            "request": record.request,
            "target": bytes(calls),
            "received_bytes": bytes(4 * calls),
        },
        window=Window(record.start_ns, record.end_ns),
        warmup=Warmup(0, 0, None),
        generator=GeneratorReport(cpu_ns=0, wall_ns=record.end_ns - record.start_ns, completed=calls, connections=0),
        answers=[],
        stopped_early=False,
        failed={} if record.failed is None else {max(memoryview(record.outcome).cast("h")): record.failed},
        planned=job.window if isinstance(job.window, RequestWindow) else None,
    )


@contextlib.contextmanager
def apart_from(deployment: Deployment, generator: Generator | CallLoop, processes: int) -> Iterator[None]:
    """Meanwhile the generator loads a deployment from other cores.

    ``deployment``: what is loaded; without ``cpus=`` nothing changes.
    """
    deployment.drop_connections()  # a server of one thread waits for the next request on one that is idle
    if deployment.cpu_share is None:
        yield
        return
    generator.start(processes)
    with other_cores(deployment.cpu_share, generator.pids):
        yield


class LoadEvents(Struct, frozen=True):
    """Observers of one load; ``on_opened`` gets the time at which the window opened."""

    on_progress: Callable[[Progress], None]
    on_window: Callable[[], None] = lambda: None
    on_poll: Callable[[], None] = lambda: None
    on_opened: Callable[[int], None] = lambda _start_ns: None

    def handle(self, event: Event | None) -> None:
        """Pass on one event; None is a poll without one. :meth:`Generator.run` takes this method as ``on_poll``."""
        self.on_poll()
        if isinstance(event, WindowOpened):
            self.on_opened(event.start_ns)
            self.on_window()
        elif isinstance(event, Progress):
            self.on_progress(event)
