"""The HTTP server of a model, as an ASGI application.

``POST /v1/models/<name>:predict`` takes V1 requests (REST JSON of KServe and TF Serving, or the same in MessagePack).
``POST /v2/models/<name>/infer`` takes V2 requests (Open Inference Protocol, JSON or binary), and ``POST /invocations``
MLflow's and SageMaker's clients. They are decoded in :mod:`pytest_mlpatterns.serving.http.inference_call`; other
requests are answered in :mod:`pytest_mlpatterns.serving.http.metadata`. An error is ``{"error": text}`` in all of them.
``POST /v1/completions`` and ``POST /v1/chat/completions`` take requests of the wire ``openai``. There, and over V1 in
JSON, the answer of a model that yields is a stream.

With asynchronous jobs, an inference request is answered 202 with a ``Location``. A GET of that address waits up to a
second for the result and answers 200, or 202 again.

A model that is a plain function runs on the event loop, so the process handles one request at a time, as the reference
pattern should. An ``async`` model is awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import aclosing
from functools import lru_cache, partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.request_clock import QUEUE_WAIT, WIRE, RequestClock, charge, current_clock, set_clock
from pytest_mlpatterns.patterns.stream import NOT_STREAMED, Stream, replayed
from pytest_mlpatterns.patterns.tally import SplitTally
from pytest_mlpatterns.serving.clocks import LoopWatch, written_parts
from pytest_mlpatterns.serving.http.inference_call import (
    STREAMED,
    WireTally,
    is_plain_json,
    read_inference_call,
    stored_inference_call,
)
from pytest_mlpatterns.serving.http.metadata import INDEX, ModelMetadata
from pytest_mlpatterns.serving.http.model_caller import ModelCaller, ModelLock
from pytest_mlpatterns.serving.http.stream_response import (
    HEADERS,
    ClientWatch,
    RestEvents,
    StreamResponse,
    StreamTimes,
    begun,
    not_streamed,
)
from pytest_mlpatterns.wire import Body, WireError
from pytest_mlpatterns.wire.body import JSON_HEADERS
from pytest_mlpatterns.wire.invocations import INVOCATIONS
from pytest_mlpatterns.wire.kserve_v1 import decode_instances, encode_error, encode_predictions
from pytest_mlpatterns.wire.openai import (
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
    from pytest_mlpatterns.serving.http.async_jobs import AsyncJobs
    from pytest_mlpatterns.wire.open_inference import InferRequest

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 64 * 2**20  # Limit of a request body for the servers of an engine
BODY = "mlpatterns.body"  # Key of a long body in the ASGI scope; the body is complete when ``receive`` returns
_WATCH = "mlpatterns.watch"
_BEGAN_NS = "mlpatterns.began_ns"  # Key of when a request began whose time counts in the split of latencies
_JOBS_PATH = "/v1/jobs/"
_CARRIED = "choose the wire rest+json or openai"
_POLLED = "Queued(wait=False) is for clients that poll, which those of the wire openai do not; write Queued()"
_RAW_JSON = [(b"content-type", b"application/json")]
_EMPTY = Body((b"{}",), JSON_HEADERS)
OPENAI_PATHS = frozenset({COMPLETIONS, CHAT, MODELS})


class ModelApp:
    """Serves one model over HTTP.

    Args:
        jobs: answers requests with 202, for results that are fetched later; None: the response contains the result.
        internal: the clients are other processes of the deployment. Responses then have a ``Server-Timing`` header
            (``dur`` is the time that the request took here, ``free`` when the model ended the call before, ``parts``
            where the time went), and may use encodings that only this package knows. A plain model is called for one
            request at a time.

    Attributes:
        split: counts where the time of the requests goes; None, as at first: nothing does.
        watch: charges waits for a processor outside of models; None, as at first: those waits are not taken out.
    """

    def __init__(
        self,
        caller: ModelCaller,
        name: str,
        max_body_bytes: int,
        *,
        jobs: AsyncJobs | None = None,
        internal: bool = False,
        position: int = 0,
    ) -> None:
        self.split: SplitTally | None = None
        self.watch: LoopWatch | None = None
        self.tally: WireTally = WireTally(position)
        self._caller = caller
        self._jobs = jobs
        self._internal = internal
        self._model_lock = ModelLock() if internal and not caller.needs_loop else None
        self._name = name
        self.max_body_bytes = max_body_bytes
        self._metadata = ModelMetadata(name, caller, self.tally)
        self._openai = OpenAIApi(name, self.tally)
        self._predict_path = f"/v1/models/{name}:predict"
        self._infer_paths = (f"/v2/models/{name}/infer", f"/v2/models/{name}/versions/1/infer")
        self._call_paths = frozenset({self._predict_path, *self._infer_paths, INVOCATIONS})

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request (ASGI)."""
        try:
            await self._respond(scope, receive, send)
        except asyncio.CancelledError:
            if _WATCH not in scope or not scope[_WATCH].has_left:
                raise
        finally:
            if _WATCH in scope:
                scope[_WATCH].stop()

    async def _respond(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        headers: list[tuple[bytes, bytes]] = []
        started, clock, watch = perf_counter_ns(), RequestClock(), self.watch
        set_clock(clock)
        watched = None if watch is None else watch.begin()
        free_ns = max(self._model_lock.free_ns if self._model_lock else 0, self._caller.free_ns)
        try:
            status, body = await self._answer(scope, receive, headers)
        except RequestError as error:
            is_openai = scope["path"] in OPENAI_PATHS
            status = error.status
            body = self._openai.error(error) if is_openai else Body((encode_error(str(error)),), JSON_HEADERS)
            if error.retry_after_s is not None:
                headers.append((b"retry-after", b"%d" % error.retry_after_s))
        worked_ns = perf_counter_ns() - started  # before the first write, which wakes the client
        if watch is not None and status == 200 and _BEGAN_NS in scope:  # a job goes on
            (watch.end_for_gateway if self._internal else watch.end)(clock, worked_ns, watched)
        if self._internal:
            parts = written_parts(clock.report())
            headers.append((b"server-timing", b"model;dur=%.3f;free=%d;parts=%s" % (worked_ns / 1e6, free_ns, parts)))
        if isinstance(body, StreamResponse):
            times = StreamTimes(clock, started)
            await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS]})
            await body.send(send, scope[_WATCH], times, tally=self.split)
            return
        if self.split is not None and status == 200 and _BEGAN_NS in scope:
            self.split.add(clock.parts, worked_ns)
        headers += _RAW_JSON if body.headers is JSON_HEADERS else _raw(body.headers)
        headers.append((b"content-length", b"%d" % body.size))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in body.parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": body.parts[-1]})

    async def _answer(
        self, scope: _Scope, receive: _Receive, headers: list[tuple[bytes, bytes]]
    ) -> tuple[int, Body | StreamResponse]:
        path, method = scope["path"], scope["method"]
        if path in self._call_paths:
            if method != "POST":
                raise RequestError(405, f"{method} {path}: expected POST")
            self._caller.requests += 1
            return await self._infer(scope, receive, headers)
        if path in OPENAI_PATHS:
            return 200, await self._answer_openai(scope, receive)
        known = self._metadata.answer(path)
        if method not in (("POST",) if path.rstrip("/") == INDEX else ("GET", "HEAD")):
            raise RequestError(404 if known is None else 405, f"{method} {path}: nothing is served here")
        if known is not None:
            return 200, Body((known,), JSON_HEADERS)
        if self._jobs is not None and path.startswith(_JOBS_PATH):
            return await self._result(self._jobs, scope, headers)
        raise RequestError(
            404, f"{path}: nothing is served here; the model is at {self._predict_path} and {self._infer_paths[0]}"
        )

    async def _infer(
        self, scope: _Scope, receive: _Receive, headers: list[tuple[bytes, bytes]]
    ) -> tuple[int, Body | StreamResponse]:
        scope[_BEGAN_NS] = perf_counter_ns()
        request_headers = dict(scope["headers"])
        is_v2 = scope["path"] in self._infer_paths
        body = await self._read(scope, request_headers, receive)
        if scope["path"] == self._predict_path and self._jobs is None and is_plain_json(request_headers):
            return 200, await self._predict_plain(body, scope, receive)
        call = read_inference_call(
            body,
            request_headers,
            self.tally,
            max_bytes=self.max_body_bytes,
            answer_v2=self._answer_v2 if is_v2 else None,
            is_invocation=scope["path"] == INVOCATIONS,
        )
        if self._jobs is not None:
            location = _JOBS_PATH + await self._jobs.submit(call.inputs, self.split, scope[_BEGAN_NS])
            asked = {"as": call.kind if call.kind != "json" else None, "coding": call.coding}
            return self._accepted(
                location, "&".join(f"{key}={value}" for key, value in asked.items() if value), headers
            )
        outputs = await self._outputs(call.inputs, call.decode)
        if not isinstance(outputs, Stream):
            return 200, call.answer(outputs)
        if call.kind not in STREAMED:
            raise not_streamed(outputs, f"which this format of {scope['path']} cannot carry; {_CARRIED}")
        return 200, await self._begin(outputs, scope, receive)

    async def _result(self, jobs: AsyncJobs, scope: _Scope, headers: list[tuple[bytes, bytes]]) -> tuple[int, Body]:
        path = scope["path"]
        outputs = await jobs.result(path.removeprefix(_JOBS_PATH))
        query = scope.get("query_string", b"").decode("latin-1")
        if outputs is None:
            return self._accepted(path, query, headers)
        asked = parse_qs(query)
        return 200, stored_inference_call(
            asked.get("as", ["json"])[0], asked.get("coding", [None])[0], self.tally
        ).answer(outputs)

    async def _read(
        self, scope: _Scope, headers: MutableMapping[bytes, bytes], receive: _Receive
    ) -> bytes | memoryview:
        if int(headers.get(b"content-length", 0)) > self.max_body_bytes:
            raise self._too_large()
        message = await receive()
        if self._caller.has_streamed and not message.get("more_body"):
            scope[_WATCH] = ClientWatch(receive)
        if BODY in scope:
            if message["type"] == "http.disconnect":
                raise RequestError(400, "the client closed the connection before the end of its request")
            return memoryview(scope[BODY]).toreadonly()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return body
        parts, size = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.max_body_bytes:
                raise self._too_large()
        return b"".join(parts)

    async def _begin(self, stream: Stream, scope: _Scope, receive: _Receive) -> StreamResponse:
        if _WATCH not in scope:
            scope[_WATCH] = ClientWatch(receive)
        return await begun(stream, RestEvents(current_clock() if self._internal else None), self.tally)

    async def _answer_openai(self, scope: _Scope, receive: _Receive) -> Body | StreamResponse:
        path, method = scope["path"], scope["method"]
        is_list = path == MODELS
        if method != ("GET" if is_list else "POST"):
            raise RequestError(405, f"{method} {path}: expected {'GET' if is_list else 'POST'}")
        if is_list:
            return self._openai.models()
        self._caller.requests += 1
        scope[_BEGAN_NS] = perf_counter_ns()
        request = self._openai.read(path, await self._read(scope, dict(scope["headers"]), receive))
        if self._jobs is not None:
            raise RequestError(NOT_STREAMED, _POLLED)
        outputs = await self._outputs([request.given], None)
        if (isinstance(outputs, Stream) or request.is_stream) and _WATCH not in scope:
            scope[_WATCH] = ClientWatch(receive)
        return await self._openai.answer(request, outputs)

    async def _outputs(self, inputs: list[Any], decode: Callable[[], Sequence[Any]] | None) -> Any:
        if self._model_lock is None:
            return await self._caller(inputs, decode)
        waits_since_ns = perf_counter_ns()
        async with self._model_lock:
            charge(QUEUE_WAIT, perf_counter_ns() - waits_since_ns)
            return await self._caller(inputs, decode)

    async def _predict_plain(self, body: bytes | memoryview, scope: _Scope, receive: _Receive) -> Body | StreamResponse:
        """The same as an :class:`InferenceCall` for uncompressed V1 JSON, in half the time."""
        tally, started_ns = self.tally, perf_counter_ns()
        try:
            inputs = decode_instances(body)
        except WireError as error:
            raise RequestError(400, str(error)) from error
        read_ns = perf_counter_ns()
        outputs = await self._outputs(inputs, partial(decode_instances, body))
        if isinstance(outputs, Stream):
            tally.add_plain(len(body), 0, read_ns - started_ns, encode_ns=0)
            charge(WIRE, read_ns - started_ns)
            return await self._begin(outputs, scope, receive)
        answered_ns = perf_counter_ns()
        try:
            answer = encode_predictions(outputs)
        except WireError as error:
            raise RequestError(500, f"the model returned outputs that cannot be sent: {error}") from error
        encode_ns = perf_counter_ns() - answered_ns
        tally.add_plain(len(body), len(answer), read_ns - started_ns, encode_ns=encode_ns)
        charge(WIRE, read_ns - started_ns + encode_ns)
        return Body((answer,), JSON_HEADERS)

    def _answer_v2(self, request: InferRequest, outputs: Any) -> Body:
        from pytest_mlpatterns.wire.open_inference import encode_answer, outputs_in

        answer = encode_answer(request, outputs, self._name, rows_allowed=self._internal)
        if not self._metadata.inputs:
            self._metadata.learn(request.specification, outputs_in(answer))
        return answer

    def _accepted(self, location: str, query: str, headers: list[tuple[bytes, bytes]]) -> tuple[int, Body]:
        headers.append((b"location", (f"{location}?{query}" if query else location).encode()))
        return 202, _EMPTY

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the body is over the limit of {self.max_body_bytes} bytes")


@lru_cache(maxsize=256)
def _raw(headers: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


class OpenAIApi:
    """Reads the requests of this wire, and writes their answers."""

    def __init__(self, name: str, tally: WireTally) -> None:
        self._name = name
        self._tally = tally

    def models(self) -> Body:
        """The answer to ``GET /v1/models``."""
        return Body((encode_models(self._name),), JSON_HEADERS)

    def read(self, path: str, body: bytes | memoryview) -> OpenAIRequest:
        """Decode a request."""
        started_ns = perf_counter_ns()
        try:
            request = read_openai_request(path, body, self._name)
        except OpenAIError as error:
            raise RequestError(error.status, str(error)) from error
        self._tally.note_read(len(body), started_ns)
        return request

    async def answer(self, request: OpenAIRequest, outputs: Any) -> Body | StreamResponse:
        """The answer, whole or streamed."""
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
        self._tally.note_sent(len(body), len(body), started_ns)
        return Body((body,), JSON_HEADERS)

    def error(self, error: RequestError) -> Body:
        """The body of an error."""
        cause = error.__cause__
        param, code = (cause.param, cause.code) if isinstance(cause, OpenAIError) else (None, None)
        return Body((encode_openai_error(error.status, str(error), param=param, code=code),), JSON_HEADERS)
