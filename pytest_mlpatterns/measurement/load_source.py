"""What loads a deployment: the load generator, or the deployment's own process if it is called without a server.

:class:`CallLoop` takes the jobs of a generator and gives the same results, so that calls are measured in the same
blocks as requests. Every load keeps the generator off the cores of the deployment and passes its events to observers.
This module must not know what is compared.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from msgspec import Struct

from pytest_mlpatterns.engines.local.plain_calls import PlainCalls
from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.loadgen.ceiling import measure_ceiling
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult, WindowOpened
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.setup import merged_facts
from pytest_mlpatterns.serving.deployment import Deployment, Traits
from pytest_mlpatterns.serving.model import StartOptions, start_with_cpus
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.system.cpu_share import current_share, other_cores
from pytest_mlpatterns.system.environment_facts import process_facts
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.own_client import ClientWire
from pytest_mlpatterns.workload.schedule import ClosedLoop
from pytest_mlpatterns.workload.window_plan import RequestWindow

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
        on_poll(WindowOpened(time.perf_counter_ns()))
        wait_ns = job.most_ns + job.timeout_ns + _SLACK_NS
        try:
            return self._deployment.loop(job, wait_ns / 1e9, lambda: on_poll(None))
        except TimeoutError:
            raise DeploymentError(
                f"a call has not returned after {format_duration(job.timeout_ns)}, the time-out; raise it with "
                'perf(timeout="1min"), or give smaller inputs'
            ) from None


class InProcess(Deployment):
    """A client that is measured by itself: the process of a load generator of its own is the deployment."""

    def __init__(self, generator: Generator, wire: ClientWire) -> None:
        pids = generator.pids
        processes = ForeignProcesses(pids, generator.close, on_facts=lambda: merged_facts(map(process_facts, pids)))
        super().__init__(Endpoint((("127.0.0.1", 0),), wire=wire), processes, Traits(current_share()))
        self.generator: Generator = generator


def deploy_in_process(wire: ClientWire, options: StartOptions, processes: int) -> InProcess:
    """Start the process, and let the client answer the first input in it."""
    return start_with_cpus(options.cpus, lambda: _in_process(wire, options, processes))


def _in_process(wire: ClientWire, options: StartOptions, processes: int) -> InProcess:
    started_ns = time.perf_counter_ns()
    generator = Generator(options.directory / f"client-{started_ns:x}.log", measure_ceiling)
    try:
        generator.start(processes)
        deployment = InProcess(generator, wire)
        assert options.payload is not None
        job = LoadJob(
            deployment.endpoint,
            deployment.messages(options.payload)[:1],
            ClosedLoop(1),
            options.timeout_ns,
            warmup_ns=0,
            timeout_ns=options.timeout_ns,
            window=RequestWindow(1, 0, options.timeout_ns),
            stream=True,
        )
        result = generator.run(job, poll_s=1.0, on_poll=lambda _event: None)
        if not samples_of(result).succeeded.any():
            waited = f"has not returned within {format_duration(options.timeout_ns)}, the start-up time limit"
            said = next((f"raised {one.words}" for one in result.failed.values()), waited)
            raise DeploymentError(f"perf_client {wire.name} {said}, with perf_payload item 0")
    except ChildError as error:
        generator.close()
        raise DeploymentError(f"perf_client {wire.name}: {error}") from error
    except BaseException:
        generator.close()
        raise
    deployment.note_first_answer(started_ns)
    return deployment


def load_source(deployment: Deployment, generator: Generator) -> Generator | CallLoop:
    """What loads a deployment: the load generator, or its own process if it serves nothing."""
    if isinstance(deployment, InProcess):
        return deployment.generator
    return CallLoop(deployment) if isinstance(deployment, PlainCalls) else generator


@contextlib.contextmanager
def apart_from(deployment: Deployment, generator: Generator | CallLoop, processes: int) -> Iterator[None]:
    """Meanwhile the generator loads a deployment from other cores.

    ``deployment``: what is loaded; without ``cpus=`` nothing changes.
    """
    deployment.drop_connections()  # a server of one thread waits for the next request on one that is idle
    if deployment.cpu_share is None or isinstance(deployment, InProcess):
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
