"""The error of a request that failed under load: the request is sent once more, and the service asked why.

A stream with an error in its middle counts as failed, though its status is 200.

Tracebacks of the user's code: without the frames of this package and of importlib, and as they stand in a log.

Applications import this module in their own processes, so it needs the standard library only.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import pkgutil
import re
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import DeploymentError
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
from pytest_mlpatterns.wording import count, listed
from pytest_mlpatterns.workload.request_builder import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.wire import Wire

MAX_TRACEBACKS = 3  # Different tracebacks that a process keeps
_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
_IMPORTERS = (f"{Path(importlib.__file__).parent}{os.sep}", pkgutil.__file__, "<frozen importlib")
_OURS = "pytest_mlpatterns"  # Module of the errors whose message has all that a user needs
_HEADER = "Traceback (most recent call last):\n"
_WHOLE = re.compile(re.escape(_HEADER) + r"(?:(?:[ \t].*)?\n)+(?P<error>\S.*)\n")
_LONGEST_LINE = 300  # Letters of an error's line in a message
_FRAME = re.compile(r'(?P<lead>[ |]*)File "[^"]*/(?:site|dist)-packages/(?P<package>[^"/]+)')
"""The first line of a frame of an installed package in a printed traceback; a group of exceptions has bars."""
_FEWEST_FOLDED = 2  # Frames that one line takes the place of, or more
_OF_LISTS = re.compile(r"\b(list|sequence)\b")  # Messages of Python about an operation that a list does not have


def user_frames(frames: TracebackType | None) -> TracebackType | None:
    """The same frames without those of this package and of importlib; all of them if the error is one of ours."""
    entries = []
    while frames is not None:
        entries.append(frames)
        frames = frames.tb_next
    kept = [one for one in entries if not _is_internal(one.tb_frame.f_code.co_filename)]
    if not kept and entries and entries[-1].tb_frame.f_code.co_filename.startswith(_PACKAGE):
        kept = entries
    found = None
    for one in reversed(kept):
        found = TracebackType(found, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return found


def user_traceback(error: BaseException) -> str:
    """The traceback of an error in the user's code, and of the errors that led to it; our own message stands alone."""
    if type(error).__module__ == _OURS and all(
        _is_internal(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__)
    ):
        return "".join(traceback.format_exception_only(error)).rstrip()
    for one in _chain(error):
        one.__traceback__ = user_frames(one.__traceback__)
    return "".join(traceback.format_exception(error)).rstrip()


def last_traceback(text: str) -> str:
    """The last whole traceback in the output of a program; empty if there is none."""
    found = list(_WHOLE.finditer(text))
    return found[-1][0].rstrip() if found else ""


def error_line(text: str) -> str:
    """The line of a traceback that names the error: ``KeyError: 'no_such_feature'``; empty if there is none."""
    found = list(_WHOLE.finditer(f"{text}\n"))
    return found[-1]["error"][:_LONGEST_LINE] if found else ""


def folded(text: str) -> str:
    """The output of a program in which one line stands for neighbouring frames of installed packages.

    The last frame of a traceback stays, since the error comes from there.
    """
    lines, found, at = text.split("\n"), [], 0
    while at < len(lines):
        packages, end = [], at
        while end < len(lines) and (frame := _FRAME.match(lines[end])):
            after = _end_of_frame(lines, end, len(frame["lead"]))
            if after == len(lines) or not lines[after].startswith(f'{frame["lead"]}File "'):
                break
            packages.append(frame["package"].removesuffix(".py"))
            end = after
        if len(packages) >= _FEWEST_FOLDED:
            lead = lines[at].partition("File")[0]
            found.append(f"{lead}[{len(packages)} frames of {listed([*dict.fromkeys(packages)])}]")
        else:
            end = max(end, at + 1)
            found += lines[at:end]
        at = end
    return "\n".join(found)


def _end_of_frame(lines: list[str], start: int, lead: int) -> int:
    """The index after the lines of a frame: its code, which is indented more than its first line."""
    end = start + 1
    while end < len(lines) and len(lines[end]) - len(lines[end].lstrip(" |")) > lead:
        end += 1
    return end


def _chain(error: BaseException) -> list[BaseException]:
    """An error, its cause, the cause of that, and so on."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and not any(one is other for other in found):
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


def _is_internal(file: str) -> bool:
    return file.startswith((_PACKAGE, *_IMPORTERS))


def advice_on(error: BaseException, frames: TracebackType | None) -> str:
    """What to do about an error of a model, after a semicolon; empty if that is not known."""
    if isinstance(error, pickle.PicklingError) or "Can't pickle" in str(error):
        return "; put the model in a module: code of a test file is sent by value, so other processes cannot import it"
    return _advice_on_inputs(error, [] if frames is None else _batch_of(frames))


def _batch_of(frames: TracebackType) -> list[object]:
    """The list of inputs that a model was called with; empty if it has another one in its place meanwhile."""
    frame = frames.tb_frame
    arguments = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    return next((found for name in arguments if isinstance(found := frame.f_locals.get(name), list)), [])


def _advice_on_inputs(error: BaseException, batch: list[object]) -> str:
    """For a model that takes the list of inputs for one input, or an input for an array."""
    if not batch:
        return ""
    as_list = f"; the model gets a list of inputs, here {count(len(batch), 'input')}"
    as_array = "over JSON an array arrives as a list: numpy.asarray(batch)"
    holds_lists = any(isinstance(one, list) for one in batch)
    if isinstance(error, AttributeError) and isinstance(error.obj, list):
        return f"; {as_array}" if holds_lists else as_list
    if isinstance(error, TypeError) and _OF_LISTS.search(str(error)):
        return f"{as_list}, and {as_array}" if holds_lists else as_list
    return ""


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
    """The error of a request, in one line; empty if it succeeds this time, or is not answered.

    Args:
        request: arguments of ``httpx.Client.request``.
    """
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
    """What is wrong, as :func:`stream_failure` describes it; None if nothing is.

    Args:
        reader: reads the stream; None for one of its own.
    """
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
