"""Whether a deployment still answers after a load, and what its first failed request was.

The last requests of the load, the processes and one more request show whether it answers. This module must not know
limits or baselines.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_mlpatterns.analysis.health.sustained import silence_of
from pytest_mlpatterns.errors import DeploymentError, InvalidResultError
from pytest_mlpatterns.records.outcomes import FailedAnswer, Failure, FirstFailure, describe_outcome
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.serving.failed_request import error_of
from pytest_mlpatterns.serving.tracebacks import error_line
from pytest_mlpatterns.system.process_tree import describe_stopped
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.workload.schedule import ClosedLoop, Stages

if TYPE_CHECKING:
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.payload import Payload
    from pytest_mlpatterns.workload.plan import LoadPlan

_SHORTEST_WAIT_S = 2.0  # Shortest wait for an answer that shows that a service lives, in seconds
_RETRY_S = 1.0  # Time in which a service that refuses connections may come back, as after the restart of a worker
_PAUSE_S = 0.1  # Time between two attempts to connect, in seconds
_LONGEST_WAIT_S = 2.0  # Time limit for the request that shows why others failed, in seconds: it is for a message only


def why_silent(
    deployment: Deployment, plan: LoadPlan, samples: Samples, *, window: Window, owed_s: float | None = None
) -> str:
    """Why a service is taken for dead at the end of a load; empty if it still answers.

    ``owed_s``: seconds in which the service may still be busy with what a load beyond its capacity left to it, so that
    only a request without an answer shows that it is dead; None for a load that is meant to be sustained.
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
    if silence.is_certain and owed_s is None:
        return said
    if owed_s is None and not silence.is_suspected:
        return ""
    waited = _waited(deployment, plan, silence.target, request=silence.request, owed_s=owed_s or 0.0)
    return f"{said}; one more request got no answer within {waited}" if waited else ""


def require_answer(
    deployment: Deployment, plan: LoadPlan, samples: Samples, *, window: Window, when: str, owed_s: float = 0.0
) -> None:
    """Refuse a load beyond the capacity that the service did not survive.

    ``when``: begins the message, such as ``in the search for the capacity``. ``owed_s``: as in :func:`why_silent`; at
    least a time-out, which each step of a search leaves.
    """
    if why := why_silent(deployment, plan, samples, window=window, owed_s=max(owed_s, plan.timeout_ns / 1e9)):
        raise InvalidResultError(f"{when} {why}")


def require_every_answer(deployment: Deployment, plan: LoadPlan, *, when: str) -> None:
    """Send one more request to each address of a service."""
    for target in range(len(deployment.addresses)):
        if waited := _waited(deployment, plan, target):
            raise InvalidResultError(
                f"{when} the service no longer answers: one more request got no answer within {waited}"
            )


def _waited(deployment: Deployment, plan: LoadPlan, target: int, *, request: int = 0, owed_s: float = 0.0) -> str:
    """How long one more request waited in vain for any answer; empty if it got one."""
    wait_s = max(owed_s + plan.timeout_ns / 1e9, _SHORTEST_WAIT_S)
    if _answers(deployment, deployment.request_of(plan.payload, request), target, wait_s=wait_s):
        return ""
    return format_duration(wait_s * 1e9)


def _answers(deployment: Deployment, request: dict[str, Any], target: int, *, wait_s: float) -> bool:
    """Whether a request to an address gets any answer."""
    import httpx

    client = deployment.client_of(target)
    began = time.monotonic()
    while True:
        try:
            deployment.ask(client, request, wait_s)
        except httpx.HTTPError:
            if time.monotonic() - began >= _RETRY_S:
                return False
        except DeploymentError:  # of the user's own client: the service is there
            return True
        else:
            return True
        time.sleep(_PAUSE_S)  # a server that refuses connections announces nothing when it is back


def describe_first_failure(
    deployment: Deployment,
    payload: Payload,
    samples: Samples,
    *,
    window: Window | None,
    stats: PatternStats,
    answers: Mapping[int, FailedAnswer],
) -> FirstFailure | None:
    """The first failed input and its error: ``perf_payload item 1 -> ZeroDivisionError: division by zero``.

    A model's error is taken from its traceback. If there is none, or several, it is the error of an answer under load;
    without one, the request is sent once more.

    ``window``: only requests that were due in it count; None: all. ``answers``: by outcome, the first answer that did
    not count and has a reason. Returns None if no request failed.
    """
    counts = samples.failed if window is None else samples.failed & samples.due_in(window)
    failed = np.flatnonzero(counts)
    if not failed.size:
        return None
    first = failed[np.argmin(samples.due_ns[failed])]
    number, outcome = int(samples.request[first]), int(samples.outcome[first])
    error = ""
    is_answer = outcome >= 0 or Failure(outcome).is_answer
    if is_answer and len(stats.tracebacks) == 1:
        error = error_line(stats.tracebacks[0])
    elif outcome in answers:
        number, error = answers[outcome]
    elif is_answer:
        error = error_of(deployment, deployment.request_of(payload, number), _LONGEST_WAIT_S)
    return FirstFailure(payload.name_of(number), error or describe_outcome(outcome))
