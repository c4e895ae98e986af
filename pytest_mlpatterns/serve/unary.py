"""Functional requests to a gRPC service, as ``httpx`` makes them: a transport that makes of each a call.

``POST /v2/models/NAME/infer`` becomes ModelInfer of that model, ``GET /v2/health/ready`` and ``/live`` become
ServerReady and ServerLive; a status of gRPC comes back as the HTTP status that gateways make of it. One connection a
call: nothing here is fast, and no load goes this way.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import httpx

from pytest_mlpatterns.load.headers import HeaderReader, RequestBlocks
from pytest_mlpatterns.load.http2 import Http2
from pytest_mlpatterns.load.job import GRPC_OUTCOMES, Failure
from pytest_mlpatterns.wire.call import INFER_METHOD, SERVICE, message_prefix, model_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.load.dialogue import Bytes

__all__ = ["GATEWAY_STATUSES", "GrpcTransport"]

_HEALTH_PATHS = {"/v2/health/ready": f"/{SERVICE}/ServerReady", "/v2/health/live": f"/{SERVICE}/ServerLive"}
_PIECE = 1 << 18
GATEWAY_STATUSES = {
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}
"""Statuses of gRPC, and those of HTTP that gateways make of them."""


class GrpcTransport(httpx.BaseTransport):
    """For an ``httpx.Client`` of a gRPC service without TLS."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Make the call that a request stands for.

        Raises:
            httpx.TransportError: nobody answers, not in time, or with something else than gRPC.
        """
        body = request.read()
        if model := model_in(request.url.path):
            from pytest_mlpatterns.wire.protobuf import call_message

            method, message = INFER_METHOD, call_message([body], model)
        elif request.url.path in _HEALTH_PATHS:
            method, message = _HEALTH_PATHS[request.url.path], message_prefix(0)
        else:
            known = ", ".join(("/v2/models/NAME/infer", *_HEALTH_PATHS))
            return httpx.Response(404, text=f"{request.url.path} stands for no call of gRPC; {known} do")
        timeout_s = (request.extensions.get("timeout") or {}).get("read") or 30.0
        outcome, answer = _call((request.url.host, request.url.port or 80), method, message, timeout_s)
        if outcome > GRPC_OUTCOMES:
            return httpx.Response(GATEWAY_STATUSES[outcome - GRPC_OUTCOMES], content=answer)
        if outcome < 0:
            raise httpx.RemoteProtocolError(f"no call of gRPC was answered: {Failure(outcome).label}", request=request)
        if method != INFER_METHOD and not answer.endswith(b"\1"):  # of its one field, which says whether it is
            return httpx.Response(503, text="the service says that it is not ready")
        return httpx.Response(outcome, content=answer)


def _call(address: tuple[str, int], method: str, message: bytes, timeout_s: float) -> tuple[int, bytes]:
    """Make one call: its outcome, and the answer's message or what the service says of the error."""
    deadline = time.monotonic() + timeout_s
    dialogue = Http2([message], RequestBlocks.of(address, method), HeaderReader(), keep=True)
    try:
        with socket.create_connection(address, timeout_s) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _send(sock, [dialogue.opening()])
            asked = dialogue.ask(0)
            _send(sock, [asked] if isinstance(asked, bytes) else asked)
            while True:
                sock.settimeout(max(deadline - time.monotonic(), 0.001))
                if not (data := sock.recv(_PIECE)):
                    raise httpx.RemoteProtocolError("the service closed the connection without an answer")
                if outcome := dialogue.take(data):
                    return outcome, dialogue.body() if outcome == httpx.codes.OK else dialogue.grpc_message.encode()
                _send(sock, dialogue.outbox)
                dialogue.outbox.clear()
    except TimeoutError:
        raise httpx.ReadTimeout(f"no answer after {timeout_s:g} s") from None
    except ConnectionRefusedError as error:
        raise httpx.ConnectError(str(error)) from error
    except OSError as error:
        raise httpx.ReadError(str(error)) from error


def _send(sock: socket.socket, pieces: Sequence[Bytes]) -> None:
    for piece in pieces:
        sock.sendall(piece)
