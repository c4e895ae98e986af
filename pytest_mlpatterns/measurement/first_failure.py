"""The first input whose request failed in a measured window, and its error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.records.outcomes import Failure, describe_outcome
from pytest_mlpatterns.serving.failed_request import error_of
from pytest_mlpatterns.serving.tracebacks import error_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.records.outcomes import FailedAnswer
    from pytest_mlpatterns.records.samples import Samples, Window
    from pytest_mlpatterns.records.telemetry import PatternStats
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.payload import Payload

__all__ = ["describe_first_failure"]

_LONGEST_WAIT_S = 2.0


def describe_first_failure(
    deployment: Deployment,
    payload: Payload,
    samples: Samples,
    *,
    window: Window | None,
    stats: PatternStats,
    answers: Mapping[int, FailedAnswer],
) -> str:
    """The first failed input and its error: ``perf_payload item 1 -> ZeroDivisionError: division by zero``.

    A model's error is taken from its traceback. If there is none, or several, it is what an answer under load said; and
    if none said anything, the request is sent once more.

    Args:
        deployment: what failed it; it still runs.
        payload: what was sent.
        samples: the requests.
        window: only requests that were due in it count; None: all.
        stats: has the tracebacks of the model.
        answers: by outcome, the first answer that did not count and says why.

    Returns:
        The text; empty if no request failed.
    """
    counts = samples.failed if window is None else samples.failed & samples.due_in(window)
    failed = np.flatnonzero(counts)
    if not failed.size:
        return ""
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
    return f"{payload.name_of(number)} -> {error or describe_outcome(outcome)}"
