"""The error of a request that failed under load: the request is sent once more, and the service asked why.

A stream with an error in its middle counts as failed, though its status is 200.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.serving.tracebacks import error_line
from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.wire.stream_events import promises_end
from pytest_mlpatterns.wire.stream_request import (
    AUTO,
    WHOLE,
    Reader,
    StreamFault,
    StreamSetting,
    asked_by,
    described_fault,
    fault_of,
    form_in,
    new_reader,
    usual_form,
)
from pytest_mlpatterns.workload.request_builder import text_of

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.serving.deployment import Deployment

_LONGEST = 200  # Letters of an error in a message
_RAISED = 500
"""Status after which a traceback is to be expected; 502, 503 and 504 are answers of a service that is busy."""
_KEYS = ("error", "detail", "message")  # Names under which services put the text of an error in JSON
_MODEL_RAISED = "the model raised "
_WORDS = {
    StreamFault.NO_STREAM: "its answer is no stream: ",
    StreamFault.ERROR_EVENT: "the stream ended with an error: ",
    StreamFault.CUT_OFF: "the stream ended without [DONE]",
    StreamFault.EMPTY_STREAM: "the stream is empty: ",
}


def error_of(deployment: Deployment, request: dict[str, Any], timeout_s: float) -> str:
    """The error of a request (arguments of httpx), in one line; empty if it succeeds this time, or is not answered."""
    import httpx

    printed = deployment.processes.traceback_from_now()
    try:
        response = deployment.ask(deployment.client, request, timeout_s)
    except httpx.HTTPError:
        return ""
    body, at = request["content"], deployment.endpoint
    if response.is_success and not stream_failure(response, at.wire, body, stream=at.stream):
        return ""
    return error_in(response, deployment, printed, body=body)


def error_in(response: httpx.Response, deployment: Deployment, printed: Callable[[], str], *, body: bytes) -> str:
    """The error of a failed request, in one line: from the service's traceback, or from its answer."""
    at = deployment.endpoint
    failure = stream_failure(response, at.wire, body, stream=at.stream)
    if response.status_code == _RAISED or failure:
        with contextlib.suppress(DeploymentError):
            if found := error_line(printed()):
                return found
    return " ".join(failure.split())[:_LONGEST] or _text_of(response)


def _text_of(response: httpx.Response) -> str:
    line = " ".join(error_text(response).split())[:_LONGEST]
    return line.removeprefix(_MODEL_RAISED) or str(response.status_code)


def error_text(response: httpx.Response) -> str:
    """The text of the error in an answer; of a list of faults, as FastAPI gives it, their places and messages.

    The query of a redirection is left out, since it may hold a credential.
    """
    if response.has_redirect_location:
        target = response.headers["location"].partition("?")[0]
        return f"it redirects to {target}, which is not followed: send the requests there"
    try:
        given = response.json()
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return text_of(response)
    text: Any = next((given[key] for key in _KEYS if given.get(key)), text_of(response))
    if isinstance(text, list) and all(isinstance(fault, dict) and "msg" in fault for fault in text):
        return "; ".join(
            ".".join(map(str, where)) + f": {fault['msg']}" if (where := fault.get("loc")) else str(fault["msg"])
            for fault in text
        )
    return str(text.get("message", text) if isinstance(text, dict) else text)


def stream_failure(response: httpx.Response, wire: Wire, body: bytes, *, stream: StreamSetting = AUTO) -> str:
    """The reason, in words; empty if the response is a whole stream, or none and none was requested.

    A stream is to come if a request of the wire ``openai`` or the target asks for it. Elsewhere the first answer shows
    it.
    """
    reader = _reader_of(response, wire, stream)
    fault = stream_fault(response, wire, body, stream=stream, reader=reader)
    if fault is None:
        return ""
    if reader.why:
        return f"the stream is broken: {reader.why}"
    if fault is StreamFault.MALFORMED:
        return f"the stream has an event that is not one of {wire}"
    media_type = response.headers.get("content-type", "")
    return _WORDS[fault] + described_fault(fault, reader, media_type=media_type, opening=response.content)


def stream_fault(
    response: httpx.Response, wire: Wire, body: bytes, *, stream: StreamSetting = AUTO, reader: Reader | None = None
) -> StreamFault | None:
    """What is wrong, as :func:`stream_failure` describes it, by a reader of its own if None; None if nothing is."""
    is_openai, is_stated = promises_end(wire), stream not in (AUTO, WHOLE)
    asked, reader = asked_by(body, by_default=not is_openai), reader or _reader_of(response, wire, stream)
    if form_in(response.headers, wire, stream) is None:
        is_expected = (is_openai or is_stated) and asked.stream
        return StreamFault.NO_STREAM if is_expected and response.is_success else None
    has_chunks = reader.feed(response.content) + reader.end() > 0
    return fault_of(reader, has_chunks=has_chunks, asked=asked)


def _reader_of(response: httpx.Response, wire: Wire, stream: StreamSetting) -> Reader:
    """What reads a response: of its own form, or of the expected one if it is no stream."""
    form = form_in(response.headers, wire, stream) or usual_form(stream)
    return new_reader(form, stream, is_openai=promises_end(wire))
