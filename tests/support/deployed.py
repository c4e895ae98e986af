"""Patterns that are really deployed, with a load of several callers whose answers are checked."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from msgspec.structs import replace

from pytest_mlpatterns import Deployment, Pattern
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.serving.model import service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop
from support.services.deploy import make_start_options

MS = 1_000_000
CALLERS = 16


class Checked:
    """A check that compares every answer it is shown, and says that it was shown some."""

    def __init__(self, expected: Callable[[Any], Any]) -> None:
        self.expected = expected
        self.seen = 0

    def __call__(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        assert list(outputs) == [self.expected(one) for one in inputs]
        self.seen += len(inputs)


class Killer:
    """Kills a process of a role, once, when the window is some time old."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.killed: int | None = None

    def __call__(self, progress: Progress, runner: LaunchRunner) -> None:
        if self.killed is None and progress.elapsed_ns > 200 * MS:
            member = next(one for one in runner.deployment.processes.workers if one.role == self.role)
            self.killed = member.child.pid
            os.kill(self.killed, signal.SIGKILL)


def callers_for(payload: object, milliseconds: int, check: Checked | None = None) -> LoadPlan:
    """A closed loop of 16 callers for so long, after a tenth of a second."""
    return LoadPlan(read_payload(payload), ClosedLoop(CALLERS), milliseconds * MS, 100 * MS, 10_000 * MS, check)


@contextmanager
def deployed(
    pattern: Pattern,
    model: object,
    plan: LoadPlan,
    *,
    module: ModuleType,
    generator: Generator,
    directory: Path,
    on_progress: Callable[[Progress, LaunchRunner], None] | None = None,
    smoke: bool = False,
) -> Iterator[LaunchRunner]:
    """The pattern around a model of a test module, ready for the load of the plan."""
    recipe = service_plan(pattern, model, [module])

    def start() -> Deployment:
        return launch(recipe, replace(make_start_options(directory), payload=plan.payload))

    def tell(progress: Progress) -> None:
        if on_progress is not None:
            on_progress(progress, runner)

    runner = LaunchRunner(start, plan, generator, on_progress=tell, smoke=smoke)
    try:
        yield runner
    finally:
        runner.close()
