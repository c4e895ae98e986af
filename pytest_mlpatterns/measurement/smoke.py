"""A smoke run: one request instead of a load, recorded as a launch of one sample."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.measurement.answer_check import check_answers
from pytest_mlpatterns.records.addressing import Answer
from pytest_mlpatterns.records.launch import GeneratorReport, Launch, Warmup
from pytest_mlpatterns.records.outcomes import Failure, FirstFailure
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.serving.failed_request import error_in, stream_fault

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.wire.stream_request import StreamFault
    from pytest_mlpatterns.workload.plan import LoadPlan

__all__ = ["answer_of", "send_one"]

_DECODED_HEADERS = (b"content-encoding",)
"""Headers to drop because httpx has already decoded the body."""


def send_one(deployment: Deployment, plan: LoadPlan) -> Launch:
    """Send a single request, and check its answer if the plan has a check.

    Raises:
        DeploymentError: there is no answer.
        InvalidResultError: the plan has a check, and the answer is an error or cannot be read.
    """
    import httpx

    from pytest_mlpatterns.serving.bounded_client import describe_error

    request = deployment.request_of(plan.payload)
    before, printed = deployment.stats(), deployment.processes.traceback_from_now()
    started = time.perf_counter_ns()
    try:
        response = deployment.ask(deployment.client, request, plan.timeout_ns / 1e9)
    except httpx.HTTPError as error:
        raise DeploymentError(f"{deployment.url}: {describe_error(error)}") from error
    done, at = time.perf_counter_ns(), deployment.endpoint
    fault = stream_fault(response, at.wire, request["content"], stream=at.stream)
    is_whole = response.is_success and fault is None
    if plan.check is not None:
        check_answers(deployment, plan, [answer_of(response)] if is_whole else [])
    why = "" if is_whole else error_in(response, deployment, printed, body=request["content"])
    return Launch(
        samples=_samples(response, started, done, outcome=_outcome(response, fault)),
        window=Window(started, done + 1),
        usage=None,
        stats=deployment.stats().since(before),
        warmup=Warmup(0, 0, None),
        generator=GeneratorReport(cpu_ns=0, wall_ns=done - started, completed=1, connections=1),
        cold_start_ns=deployment.cold_start_ns,
        request_bytes=np.array([len(request["content"])], dtype=np.int64),
        open_loop=False,
        first_failure=None if is_whole else FirstFailure(plan.payload.name_of(0), why),
    )


def _outcome(response: httpx.Response, fault: StreamFault | None) -> int:
    return response.status_code if fault is None or not response.is_success else Failure[fault.name]


def _samples(response: httpx.Response, sent_ns: int, done_ns: int, *, outcome: int) -> Samples:
    sent = np.array([sent_ns], dtype=np.int64)
    return Samples(
        due_ns=sent,
        sent_ns=sent,
        done_ns=np.array([done_ns], dtype=np.int64),
        outcome=np.array([outcome], dtype=np.int16),
        request=np.zeros(1, dtype=np.uint32),
        target=np.zeros(1, dtype=np.uint8),
        received_bytes=np.array([len(response.content)], dtype=np.uint32),
    )


def answer_of(response: httpx.Response, number: int = 0) -> Answer:
    """The response to the request of this index in the form that the load generator gives."""
    headers = [pair for pair in response.headers.raw if pair[0].lower() not in _DECODED_HEADERS]
    return Answer(number, response.content, b"\r\n" + b"\r\n".join(b"%s: %s" % pair for pair in headers))
