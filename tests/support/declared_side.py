"""A load generator and deployments whose figures are declared: a side of a test without a server or a process."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from pytest_mlpatterns import Deployment
from pytest_mlpatterns.loadgen.columns import _columns
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, WindowOpened
from pytest_mlpatterns.records.addressing import Answer, Remote
from pytest_mlpatterns.records.launch import GeneratorReport, Usage, Warmup
from pytest_mlpatterns.records.outcomes import FailedAnswer
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.serving.deployment import Traits
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.workload.endpoint import Endpoint
from support.synthetic import MS, START_NS, samples

PORT = 9


class DeclaredGenerator(Generator):
    """Answers all requests after a time, 10 ms if the port of the service has no other; two are always in flight."""

    def __init__(
        self, ceiling_rps: float | None = None, outcome: int = 200, *, latency_ms: Mapping[int, int] | None = None
    ) -> None:
        super().__init__(Path("unused.log"))
        self.jobs: list[LoadJob] = []
        self.started = 0
        self.closed = False
        self.failed: dict[int, FailedAnswer] = {}
        self.answers: list[Answer] = []
        self.now_ns = START_NS
        self.library_overhead_ns = 5.0
        self._ceiling_rps, self._outcome = ceiling_rps, outcome
        self._latency_ms = latency_ms or {}
        self.late_ns = 0  # by which each request is sent late

    @property
    def ports(self) -> list[int]:
        """The port of each load so far; of a load in slices both."""
        return [one.endpoint.port for job in self.jobs for one in (job, job.beside) if one is not None]

    def start(self, processes: int = 1) -> None:
        self.started = processes

    def ceiling_of(self, job: LoadJob, rate_rps: float = 0.0) -> float | None:
        return self._ceiling_rps

    def run(self, job: LoadJob, *, on_poll: Any, **_: Any) -> LoadResult:
        self.jobs.append(job)
        on_poll(WindowOpened(self.now_ns))
        result = self.result(job)
        self.now_ns = result.window.end_ns - 1
        on_poll(None)
        self.now_ns += 1
        return result

    def result(self, job: LoadJob) -> LoadResult:
        """What a load gives; slices of both sides follow each other."""
        own_ns, other_ns = job.duration_ns, 0 if job.beside is None else job.beside.duration_ns
        begins_ns = self.now_ns + np.arange(job.slices) * (own_ns + other_ns)
        result = self._of(job, begins_ns)
        if job.beside is None:
            return result
        return replace(result, beside=self._of(job.beside, begins_ns + own_ns))

    def _of(self, job: LoadJob, begins_ns: Any) -> LoadResult:
        latency_ns = self._latency_ms.get(job.endpoint.port, 10) * MS
        within_ns = np.arange(0, job.duration_ns, latency_ns // 2)
        due_ns = (begins_ns[:, None] + within_ns).ravel()
        found = samples(due_ns, latency_ns + self.late_ns, lag_ns=self.late_ns, outcome=self._outcome)
        slices = tuple(Window(int(begin), int(begin) + job.duration_ns) for begin in begins_ns)
        report = GeneratorReport(MS, job.duration_ns * len(slices), found.outcome.size, connections=2)
        return LoadResult(
            _columns(found),
            Window(slices[0].start_ns, slices[-1].end_ns),
            Warmup(0, 0, None),
            report,
            self.answers,
            stopped_early=False,
            failed=self.failed,
            slices=slices if len(slices) > 1 else (),
        )

    def close(self) -> None:
        self.closed = True


class DeclaredMonitor:
    """Sees 12 ms of CPU time more in each sample, 50 ms after the one before, and in some of them busy neighbours."""

    pids: tuple[int, ...] = ()

    def __init__(self, busy: Sequence[int] = ()) -> None:
        self._seen = 0
        self._busy = busy

    def sample(self, *, poll: bool = False) -> None:
        self._seen += not poll

    def usage(self) -> Usage:
        steps = np.arange(self._seen)
        others = np.cumsum([100 * MS * (step in self._busy) for step in steps])
        none = 0 * steps
        columns = (START_NS + 50 * MS * steps, 12 * MS * steps, none, none, others, none, none, none)
        return Usage(*columns, cores=2, machine_cores=2)


def declared_deployment(
    remote: Remote | None = None,
    *,
    port: int = PORT,
    events: list[str] | None = None,
    busy: Sequence[int] = (),
    stats: Callable[[], PatternStats] = PatternStats,
) -> Deployment:
    """A deployment of such a monitor; its end is noted in ``events``."""
    processes = ForeignProcesses((), lambda: None if events is None else events.append(f"close {port}"), stats)
    endpoint = Endpoint((("127.0.0.1", port),), "/v1/models/m:predict", "m", remote=remote)
    return Deployment(endpoint, processes, Traits(make_monitor=lambda: DeclaredMonitor(busy)))
