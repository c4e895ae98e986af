"""Whether a deployment still answers after a load: by its last requests, its processes, and one more request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.silence import silence_of
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.system.stopped import describe_stopped
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.workload.schedule import ClosedLoop, Stages

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.silence import Silence
    from pytest_mlpatterns.records.samples import Samples, Window
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.plan import LoadPlan

__all__ = ["why_silent"]

_SHORTEST_WAIT_S = 2.0
_RETRY_S = 1.0
"""Time in which a service that refuses connections may come back, as after the restart of a worker."""
_PAUSE_S = 0.1
_BACKLOG = 2
"""Time-outs in which a service works off what a step of a search left to it: the step before kept within one."""


def why_silent(
    deployment: Deployment, plan: LoadPlan, samples: Samples, *, window: Window, searching: bool = False
) -> str:
    """Why a service is taken for dead at the end of a load; empty if it still answers.

    Args:
        deployment: what was loaded.
        plan: what was sent.
        samples: every request of the load.
        window: the measured window.
        searching: whether the load was a step of a search for the capacity, which may leave the service so much work
            that only a request without an answer shows that it is dead.

    Raises:
        DeploymentError: one of its processes has ended, or is stopped.
    """
    schedule = plan.schedule
    think_ns = schedule.think_time_ns if isinstance(schedule, ClosedLoop | Stages) and schedule.closed else None
    silence = silence_of(samples, window, think_ns=think_ns)
    if silence is None:
        return ""
    said = silence.describe(window, plan.timeout_ns)
    if stopped := describe_stopped(deployment.pids):
        raise DeploymentError(f"{said}; {stopped}")
    deployment.processes.stats()
    if silence.is_certain and not searching:
        return said
    wait_s = max((_BACKLOG if searching else 1) * plan.timeout_ns / 1e9, _SHORTEST_WAIT_S)
    if not (searching or silence.is_suspected) or _answers(deployment, plan, silence, wait_s=wait_s):
        return ""
    return f"{said}; one more request got no answer within {format_duration(wait_s * 1e9)}"


def _answers(deployment: Deployment, plan: LoadPlan, silence: Silence, *, wait_s: float) -> bool:
    """Whether one more request to the silent address, with the input that was answered last, gets any answer."""
    import httpx

    client = deployment.client_of(silence.target)
    request = deployment.request_of(plan.payload, silence.request)
    began = time.monotonic()
    while True:
        try:
            deployment.ask(client, request, wait_s)
        except httpx.HTTPError:
            if time.monotonic() - began >= _RETRY_S:
                return False
        else:
            return True
        time.sleep(_PAUSE_S)  # a server that refuses connections announces nothing when it is back
