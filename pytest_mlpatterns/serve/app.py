"""The HTTP face of a model: REST JSON as KServe and TF Serving define it (V1), as one ASGI application.

``POST /v1/models/<name>:predict`` with ``{"instances": [...]}`` → ``{"predictions": [...]}``;
``GET /v1/models/<name>``; ``GET /v2/health/ready`` and ``/live``. Errors are ``{"error": text}``. Where answers are
fetched later, a predict request is answered 202 with a ``Location``; asked there, the service waits up to a second for
the result and answers 200 with it, or 202 again. A plain function is called on the event loop: the process does one
thing at a time, as the reference pattern should; an ``async`` model is awaited. This module must not know processes.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import orjson

from pytest_mlpatterns.patterns.layer import RequestError, matched
from pytest_mlpatterns.serve.model import user_traceback
from pytest_mlpatterns.wire import WireError
from pytest_mlpatterns.wire.v1 import CONTENT_TYPE, decode_instances, encode_error, encode_predictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.patterns.layer import Inner
    from pytest_mlpatterns.serve.jobs import Jobs

__all__ = ["Answering", "ModelApp"]

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MAX_TRACEBACKS = 3
_JOBS_PATH = "/v1/jobs/"
_JSON_HEADER = (b"content-type", CONTENT_TYPE.encode())


class Answering:
    """Asks a model, or the layers around it, and makes every failure one of the request's.

    Args:
        inner: takes a list of inputs, returns as many outputs, or an awaitable of them.

    Attributes:
        requests: how many came, counted by those who hand them over.
        tracebacks: the first few distinct ones of the user's code.
    """

    def __init__(self, inner: Inner) -> None:
        self.requests = 0
        self.tracebacks: list[str] = []
        self._inner = inner

    async def __call__(self, instances: list[Any]) -> Sequence[Any]:
        """The outputs, one for each input.

        Raises:
            RequestError: the model raised, or returned something else.
        """
        try:
            outputs: Any = self._inner(instances)
            if inspect.isawaitable(outputs):
                outputs = await outputs
        except RequestError:
            raise
        except (Exception, SystemExit) as error:  # a model that wants to exit does not end the service
            text = user_traceback(error)
            if text not in self.tracebacks and len(self.tracebacks) < _MAX_TRACEBACKS:
                self.tracebacks.append(text)
            raise RequestError(500, f"the model raised {type(error).__name__}: {error}") from error
        return matched(outputs, len(instances), "the model")


class ModelApp:
    """Serves one model over HTTP.

    Args:
        answering: gives the outputs.
        name: the name in the addresses.
        max_body_bytes: a longer request is refused with 413.
        jobs: where requests are answered 202, and their results are fetched later; None: answers come on the request.
        timed: say in the header ``Server-Timing`` how long an answer took.
    """

    def __init__(
        self, answering: Answering, name: str, max_body_bytes: int, *, jobs: Jobs | None = None, timed: bool = False
    ) -> None:
        self._answering = answering
        self._jobs = jobs
        self._timed = timed
        self._name = name
        self._max_body_bytes = max_body_bytes
        self._predict_path = f"/v1/models/{name}:predict"
        self._status_path = f"/v1/models/{name}"

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request (ASGI)."""
        headers = [_JSON_HEADER]
        started = perf_counter_ns() if self._timed else 0
        try:
            status, body = await self._answer(scope, receive, headers)
        except RequestError as error:
            status, body = error.status, encode_error(str(error))
            if error.retry_after_s is not None:
                headers.append((b"retry-after", b"%d" % error.retry_after_s))
        if self._timed:
            headers.append((b"server-timing", b"model;dur=%.3f" % ((perf_counter_ns() - started) / 1e6)))
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: _Scope, receive: _Receive, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
        path, method = scope["path"], scope["method"]
        if path == self._predict_path:
            if method != "POST":
                raise RequestError(405, f"{method} {path}: expected POST")
            self._answering.requests += 1
            return await self._predict(await self._read(scope, receive), headers)
        if method not in ("GET", "HEAD"):
            raise RequestError(404 if path != self._status_path else 405, f"{method} {path}: nothing is served here")
        if path in ("/v2/health/ready", "/v2/health/live"):
            return 200, b"{}"
        if self._jobs is not None and path.startswith(_JOBS_PATH):
            outputs = await self._jobs.result(path.removeprefix(_JOBS_PATH))
            return self._accepted(path, headers) if outputs is None else (200, _encoded(outputs))
        if path == self._status_path:
            version = {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
            return 200, orjson.dumps({"name": self._name, "ready": True, "model_version_status": [version]})
        raise RequestError(404, f"{path}: nothing is served here; the model is at {self._predict_path}")

    async def _read(self, scope: _Scope, receive: _Receive) -> bytes:
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > self._max_body_bytes:
                raise self._too_large()
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return body
        parts, size = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_body_bytes:
                raise self._too_large()
        return b"".join(parts)

    async def _predict(self, body: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
        try:
            instances = decode_instances(body)
        except WireError as error:
            raise RequestError(400, str(error)) from error
        if self._jobs is not None:
            return self._accepted(_JOBS_PATH + await self._jobs.submit(instances), headers)
        return 200, _encoded(await self._answering(instances))

    def _accepted(self, location: str, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
        headers.append((b"location", location.encode()))
        return 202, b"{}"

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the body is over the limit of {self._max_body_bytes} bytes")


def _encoded(outputs: Sequence[Any]) -> bytes:
    try:
        return encode_predictions(outputs)
    except WireError as error:
        raise RequestError(500, f"the model returned outputs that cannot be sent: {error}") from error
