"""A deployment that is no server: one process that holds a model and calls it in a loop.

It stands beside served deployments in a comparison: the same processor, the same statistics, environment and end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.engines.local.plain_caller import Called
from pytest_mlpatterns.errors import ChildError, DeploymentError, ModelLoadError
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.serving.deployment import Deployment, Traits
from pytest_mlpatterns.serving.model import ServicePlan, StartOptions, ended_on_error, start_with_cpus
from pytest_mlpatterns.serving.readiness import left_s, too_slow_to_answer
from pytest_mlpatterns.system.cpu_share import current_share
from pytest_mlpatterns.wire import REST_JSON, codec_of
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import Payload

if TYPE_CHECKING:
    from pytest_mlpatterns.engines.local.launcher import Launcher
    from pytest_mlpatterns.engines.local.processes import SupervisedWorker

_POLL_S = 0.1  # Interval at which the monitor samples while a loop runs, in seconds
_ONE_CALL_S = 30.0  # Time limit of one call outside the loop, as for a functional request to a server


class PlainCalls(Deployment):
    """A model that is called without a server."""

    def __init__(self, launcher: Launcher) -> None:
        super().__init__(Endpoint(()), launcher.processes, Traits(current_share()))
        self._worker: SupervisedWorker = launcher.workers[0]

    def messages(self, payload: Payload) -> tuple[bytes, ...]:
        """One empty message for each input: nothing is sent."""
        return (b"",) * len(payload.inputs)

    def call(self, number: int, wait_s: float = _ONE_CALL_S) -> Any:
        """The output for the input of this index, in the form that a server would have answered.

        Raises TimeoutError: it did not return in time.
        """
        called: Called = self._ask(number, Called, wait_s=wait_s)
        if called.traceback:
            raise DeploymentError(f"the call with perf_payload item {number} failed:\n{called.traceback}")
        if called.output is None:
            raise ValueError("its output cannot be written as JSON")
        return codec_of(REST_JSON).decode_outputs(called.output, {})[0]

    def loop(self, job: LoadJob, wait_s: float, on_poll: Callable[[], None]) -> LoadResult:
        """Call the model in the closed loop of a job.

        ``wait_s``: time after which it must be over, the calls that run at its end included. ``on_poll``: called
        several times a second meanwhile. Raises TimeoutError: the calls did not return in time.
        """
        result: LoadResult = self._ask(job, LoadResult, wait_s=wait_s, on_poll=on_poll)
        return result

    def _ask(
        self, asked: int | LoadJob, kind: type, *, wait_s: float, on_poll: Callable[[], None] = lambda: None
    ) -> Any:
        deadline = time.monotonic() + wait_s
        try:
            self._worker.child.send(asked)
            while True:
                try:
                    answer = self._worker.child.receive(_POLL_S)
                except TimeoutError:
                    if time.monotonic() >= deadline:
                        raise
                    on_poll()
                    continue
                if isinstance(answer, kind):  # not one to a question whose time was up
                    return answer
        except ChildError as error:
            raise DeploymentError(f"its process: {error}") from error


def deploy_calls(plan: ServicePlan, inputs: bytes, options: StartOptions) -> PlainCalls:
    """Start the process, and wait until the model has been called once."""
    return start_with_cpus(options.cpus, lambda: _deployed(plan, inputs, options))


def _deployed(plan: ServicePlan, inputs: bytes, options: StartOptions) -> PlainCalls:
    from pytest_mlpatterns.engines.local.launcher import Launcher
    from pytest_mlpatterns.engines.local.processes import await_loaded

    started_ns = time.perf_counter_ns()
    launcher = Launcher(plan, options)
    with ended_on_error(launcher.stop):
        launcher.start_caller(inputs)
        await_loaded(launcher.workers[0], plan.name, started_ns, options=options)
        deployment = PlainCalls(launcher)
        try:
            deployment.call(0, left_s(started_ns, options))
        except DeploymentError as error:
            raise ModelLoadError(str(error)) from error
        except TimeoutError:
            raise too_slow_to_answer(plan.name, deployment.log_tail(), options=options) from None
        except ValueError:  # only what is compared with answers has to be written
            pass
    deployment.note_first_answer(started_ns)
    return deployment
