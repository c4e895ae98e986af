"""The paths of the wire ``openai`` on our own server: ``/v1/completions``, ``/v1/chat/completions``, ``/v1/models``."""

from __future__ import annotations

from contextlib import aclosing
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.recording import replayed
from pytest_mlpatterns.patterns.request_clock import WIRE, charge
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.serving.http.stream_response import StreamResponse, begun
from pytest_mlpatterns.wire import Body, WireError
from pytest_mlpatterns.wire.openai_answer import (
    CHAT,
    COMPLETIONS,
    MODELS,
    OpenAIError,
    OpenAIRequest,
    OpenAIWriter,
    encode_models,
    encode_openai_error,
    read_openai_request,
)

if TYPE_CHECKING:
    from pytest_mlpatterns.serving.http.inference_call import WireTally

__all__ = ["OPENAI_PATHS", "OpenAIApi"]

OPENAI_PATHS = frozenset({COMPLETIONS, CHAT, MODELS})
_JSON = (("content-type", "application/json"),)


class OpenAIApi:
    """Reads the requests of this wire, and writes their answers.

    Args:
        name: name of the model.
        tally: counts the cost.
    """

    def __init__(self, name: str, tally: WireTally) -> None:
        self._name = name
        self._tally = tally

    def models(self) -> Body:
        """The answer to ``GET /v1/models``."""
        return Body((encode_models(self._name),), _JSON)

    def read(self, path: str, body: bytes | memoryview) -> OpenAIRequest:
        """Decode a request.

        Raises:
            RequestError: it is malformed.
        """
        started_ns = perf_counter_ns()
        try:
            request = read_openai_request(path, body, self._name)
        except OpenAIError as error:
            raise RequestError(error.status, str(error)) from error
        tally = self._tally
        tally.requests += 1
        tally.received += len(body)
        tally.received_plain += len(body)
        took_ns = perf_counter_ns() - started_ns
        tally.decode_ns += took_ns
        charge(WIRE, took_ns)
        return request

    async def answer(self, request: OpenAIRequest, outputs: Any) -> Body | StreamResponse:
        """The answer, whole or streamed.

        Args:
            request: the request.
            outputs: a stream, or a list of one text.

        Raises:
            RequestError: the model failed before the first chunk, or yielded something else than text.
        """
        stream = outputs if isinstance(outputs, Stream) else replayed(list(outputs))
        writer = OpenAIWriter(request)
        if request.is_stream:
            return await begun(stream, writer, self._tally)
        async with aclosing(stream):
            try:
                async for chunk in stream:
                    writer.add(chunk)
                    if writer.is_full:
                        break
            except WireError as error:
                raise RequestError(500, f"the model yielded a chunk that cannot be sent: {error}") from error
        started_ns = perf_counter_ns()
        body = writer.whole()
        self._tally.sent += len(body)
        self._tally.sent_plain += len(body)
        took_ns = perf_counter_ns() - started_ns
        self._tally.encode_ns += took_ns
        charge(WIRE, took_ns)
        return Body((body,), _JSON)

    def error(self, error: RequestError) -> Body:
        """The body of an error."""
        cause = error.__cause__
        param, code = (cause.param, cause.code) if isinstance(cause, OpenAIError) else (None, None)
        return Body((encode_openai_error(error.status, str(error), param=param, code=code),), _JSON)
