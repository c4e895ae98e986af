"""The error of a request that failed under load: the request is sent once more, and the service asked why.

An error in the middle of a stream is one too, though its status is 200.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.serving.stream_failure import stream_failure
from pytest_mlpatterns.serving.tracebacks import error_line
from pytest_mlpatterns.workload.request_builder import text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from pytest_mlpatterns.serving.deployment import Deployment

__all__ = ["error_in", "error_of"]

_LONGEST = 200
_RAISED = 500
"""Status after which a traceback is to be expected; 502, 503 and 504 are answers of a service that is busy."""
_KEYS = ("error", "detail", "message")
"""Names under which services put the text of an error in JSON."""
_MODEL_RAISED = "the model raised "


def error_of(deployment: Deployment, request: dict[str, Any], timeout_s: float) -> str:
    """The error of a request, in one line; empty if it succeeds this time, or is not answered.

    Args:
        deployment: what failed it.
        request: arguments of ``httpx.Client.request``.
        timeout_s: time limit for the answer.
    """
    import httpx

    printed = deployment.processes.log_sizes()
    try:
        response = deployment.ask(deployment.client, request, timeout_s)
    except httpx.HTTPError:
        return ""
    body, at = request["content"], deployment.endpoint
    if response.is_success and not stream_failure(response, at.wire, body, stream=at.stream):
        return ""
    return error_in(response, deployment, printed, body=body)


def error_in(response: httpx.Response, deployment: Deployment, printed: Sequence[int], *, body: bytes) -> str:
    """The error of a failed request, in one line: from the service's traceback, or from its answer.

    Args:
        response: the answer.
        deployment: what answered.
        printed: what its processes had printed before the request, as :meth:`Processes.log_sizes` says it.
        body: of the request.
    """
    at = deployment.endpoint
    failure = stream_failure(response, at.wire, body, stream=at.stream)
    if response.status_code == _RAISED or failure:
        with contextlib.suppress(DeploymentError):
            if found := error_line(deployment.processes.traceback_since(printed)):
                return found
    return " ".join(failure.split())[:_LONGEST] or _text_of(response)


def _text_of(response: httpx.Response) -> str:
    text: Any = text_of(response)
    try:
        given = response.json()
    except (ValueError, RecursionError):
        given = None
    if isinstance(given, dict):
        text = next((given[key] for key in _KEYS if given.get(key)), text)
        text = text.get("message", text) if isinstance(text, dict) else text
    line = " ".join(str(text).split())[:_LONGEST]
    return line.removeprefix(_MODEL_RAISED) or str(response.status_code)
