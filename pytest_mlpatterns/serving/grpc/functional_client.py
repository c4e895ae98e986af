"""The functional client of a gRPC service: an ``httpx`` transport that sends each request as a unary call of grpcio.

``POST /v2/models/NAME/infer`` becomes ModelInfer of that model; ``GET /v2/health/ready`` and ``/live`` become
ServerReady and ServerLive. A gRPC status becomes the HTTP status that gateways use for it. Every call opens a channel
and closes it, so that no thread, socket or back-off timer outlives the call. No load goes this way: it goes through
``loadgen/http2.py``.
"""

import re
import time

import grpc
import httpx

from pytest_mlpatterns.serving.bounded_client import MAX_ANSWER_BYTES
from pytest_mlpatterns.wire.grpc_call import INFER_METHOD, SERVICE, model_in

_HEALTH_METHODS = {"/v2/health/ready": f"/{SERVICE}/ServerReady", "/v2/health/live": f"/{SERVICE}/ServerLive"}
_DEFAULT_TIMEOUT_S = 30.0  # Time limit of a call without one, in seconds
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a refused connection must not delay the next call
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.max_send_message_length", -1),
]
_NOT_CONNECTED = re.compile("failed to connect|DNS resolution failed|errors resolving")
_INTERRUPTED = re.compile("Stream removed|Socket closed|Connection reset|Broken pipe|RST_STREAM")
"""Details of errors that grpcio itself raises. Their status codes can also come from the service."""
GATEWAY_STATUSES = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""Statuses of gRPC, and the HTTP statuses that gateways use for them."""


class GrpcTransport(httpx.BaseTransport):
    """The transport of an ``httpx.Client`` for a gRPC service without TLS."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the call that corresponds to a request.

        Raises httpx.TransportError: the service is not reachable, does not answer in time, or ends without a status.
        """
        path, message = request.url.path, request.read()
        if model := model_in(path):
            from pytest_mlpatterns.wire.open_inference_grpc import model_field

            method, message = INFER_METHOD, model_field(model) + message
        elif path in _HEALTH_METHODS:
            method, message = _HEALTH_METHODS[path], b""
        else:
            known = ", ".join(("/v2/models/NAME/infer", *_HEALTH_METHODS))
            return httpx.Response(404, text=f"{path} corresponds to no gRPC call; expected one of {known}")
        timeout_s = (request.extensions.get("timeout") or {}).get("read") or _DEFAULT_TIMEOUT_S
        deadline = time.monotonic() + timeout_s
        # Without this limit a silent server keeps the socket of a finished call for 20 s.
        connect_timeout = ("grpc.min_reconnect_backoff_ms", round(timeout_s * 1000) + 100)
        host, port = request.url.host, request.url.port or 80
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            with grpc.insecure_channel(target, options=[*_OPTIONS, connect_timeout]) as channel:
                answer = channel.unary_unary(method)(message, timeout=timeout_s)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            if code is grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() >= deadline:
                raise httpx.ReadTimeout(f"no answer after {timeout_s:g} s", request=request) from None
            if _NOT_CONNECTED.search(details):
                raise httpx.ConnectError(details, request=request) from None
            if _INTERRUPTED.search(details):
                raise httpx.RemoteProtocolError(
                    f"the call ended without an answer: {details}", request=request
                ) from None
            return httpx.Response(GATEWAY_STATUSES[code], text=details)
        if method != INFER_METHOD and not answer.endswith(b"\1"):  # the only field: whether the server is ready or live
            return httpx.Response(503, text="the service reports that it is not ready")
        return httpx.Response(200, content=answer)
