"""The functional client of a service that a client of the user's own asks: an ``httpx`` transport that calls it.

A pickled input goes to the client, which is opened for it and closed after it; any other request goes out over HTTP. No
load goes this way.
"""

import asyncio
import socket
import ssl
import threading

import httpx

from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.serving.bounded_client import BoundedTransport
from pytest_mlpatterns.wire import WireError
from pytest_mlpatterns.workload.own_client import PICKLED, Caller, ClientWire, run_now

_DEFAULT_TIMEOUT_S = 30.0  # Time limit of a call without one, in seconds


def connected(client: httpx.Client, url: str, timeout_s: float) -> httpx.Response:
    """An answer as soon as the port is open. Raises httpx.HTTPError: it is not."""
    return client.post(url, headers={"content-type": PICKLED}, timeout=timeout_s)


class ClientTransport(BoundedTransport):
    """The transport of an ``httpx.Client`` beside a client of the user's own."""

    def __init__(self, wire: ClientWire, context: ssl.SSLContext | None) -> None:
        super().__init__(context)
        self._wire = wire

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Let the client send an input; without one nothing is sent.

        Raises httpx.TransportError: the service is not reachable, or the client does not return in time. Raises
        DeploymentError: the client raises an exception.
        """
        if request.headers.get("content-type") != PICKLED:
            return super().handle_request(request)
        timeout_s = (request.extensions.get("timeout") or {}).get("read") or _DEFAULT_TIMEOUT_S
        host, port = request.url.host, request.url.port
        if port != 0:
            try:
                socket.create_connection(
                    (host, port or (443 if request.url.scheme == "https" else 80)), timeout_s
                ).close()
            except OSError as error:
                raise httpx.ConnectError(str(error), request=request) from None
        if not (content := request.read()):
            return httpx.Response(204)
        caller = Caller(self._wire.load(), "" if port == 0 else request.url.netloc.decode(), scheme=request.url.scheme)
        (value,) = self._wire.decode_outputs(content, {})
        thread = threading.Thread(target=self._call, args=(caller, value), daemon=True)
        thread.start()
        thread.join(timeout_s)
        if thread.is_alive():
            raise httpx.ReadTimeout(f"perf_client {self._wire.name} has not returned", request=request)
        answer = caller.answer
        if answer.error:
            raise DeploymentError(f"perf_client {self._wire.name} raised {answer.error}\n{answer.traceback}")
        try:
            return httpx.Response(200, content=self._wire.encode_outputs(answer.value).joined())
        except WireError as error:
            raise httpx.DecodingError(f"the answer cannot be pickled: {error}", request=request) from None

    def _call(self, caller: Caller, value: object) -> None:
        async def call() -> None:
            await caller.call(value)
            await caller.close()

        if self._wire.is_async:
            asyncio.run(call())
        else:
            run_now(call())
