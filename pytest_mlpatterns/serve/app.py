"""The HTTP face of a model: REST JSON as KServe and TF Serving define it (V1), as one ASGI application.

``POST /v1/models/<name>:predict`` with ``{"instances": [...]}`` → ``{"predictions": [...]}``;
``GET /v1/models/<name>``; ``GET /v2/health/ready`` and ``/live``. Errors are ``{"error": text}``. A plain function is
called on the event loop: the process does one thing at a time, as the reference pattern should; an ``async`` model is
awaited. This module must not know processes.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import orjson

from pytest_mlpatterns.serve.model import user_traceback
from pytest_mlpatterns.wire import CONTENT_TYPE, WireError, decode_instances, encode_error, encode_predictions

if TYPE_CHECKING:
    from pytest_mlpatterns.serve.model import Model

__all__ = ["ModelApp", "RequestError"]

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MAX_TRACEBACKS = 3
_JSON_HEADER = (b"content-type", CONTENT_TYPE.encode())


class RequestError(Exception):
    """An answer other than 200: its status and the text of its error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ModelApp:
    """Serves one model; counts what it answers and keeps the first tracebacks of the model.

    Args:
        model: takes a list of inputs, returns as many outputs.
        name: the name in the addresses.
        max_body_bytes: a longer request is refused with 413.
    """

    def __init__(self, model: Model, name: str, max_body_bytes: int) -> None:
        self.predict_requests = 0
        self.tracebacks: list[str] = []
        self._model = model
        self._name = name
        self._max_body_bytes = max_body_bytes
        self._predict_path = f"/v1/models/{name}:predict"
        self._status_path = f"/v1/models/{name}"

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request (ASGI)."""
        try:
            status, body = 200, await self._answer(scope, receive)
        except RequestError as error:
            status, body = error.status, encode_error(str(error))
        headers = [_JSON_HEADER, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: _Scope, receive: _Receive) -> bytes:
        path, method = scope["path"], scope["method"]
        if path == self._predict_path:
            if method != "POST":
                raise RequestError(405, f"{method} {path}: expected POST")
            self.predict_requests += 1
            return await self._predict(await self._read(scope, receive))
        if method not in ("GET", "HEAD"):
            raise RequestError(404 if path != self._status_path else 405, f"{method} {path}: nothing is served here")
        if path in ("/v2/health/ready", "/v2/health/live"):
            return b"{}"
        if path == self._status_path:
            version = {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
            return orjson.dumps({"name": self._name, "ready": True, "model_version_status": [version]})
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

    async def _predict(self, body: bytes) -> bytes:
        try:
            instances = decode_instances(body)
        except WireError as error:
            raise RequestError(400, str(error)) from error
        try:
            outputs: Any = self._model(instances)
            if inspect.isawaitable(outputs):
                outputs = await outputs
        except (Exception, SystemExit) as error:  # a model that wants to exit does not end the service
            self._remember(user_traceback(error))
            raise RequestError(500, f"the model raised {type(error).__name__}: {error}") from error
        if not hasattr(outputs, "__len__"):
            found = type(outputs).__name__
            raise RequestError(
                500, f"the model returned {found}, which has no length; it must return a list of outputs"
            )
        if len(outputs) != len(instances):
            raise RequestError(
                500,
                f"the model returned {len(outputs)} outputs for {len(instances)} inputs; it must return one for each",
            )
        try:
            return encode_predictions(outputs)
        except WireError as error:
            raise RequestError(500, f"the model returned outputs that cannot be sent: {error}") from error

    def _remember(self, text: str) -> None:
        if text not in self.tracebacks and len(self.tracebacks) < _MAX_TRACEBACKS:
            self.tracebacks.append(text)

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the body is over the limit of {self._max_body_bytes} bytes")
