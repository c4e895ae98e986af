"""The gRPC server of a model: ``inference.GRPCInferenceService`` of the Open Inference Protocol (V2), over grpcio.

It also serves ``grpc.health.v1``, but no reflection: clients of this protocol have its messages, and its ``.proto``
file ships. Inference messages stay bytes, so that tensors are views of the received message. A model that is a plain
function runs on the event loop, as in the HTTP server.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from time import perf_counter_ns
from typing import Any

import grpc

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.request_clock import RequestClock, set_clock
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import SplitTally
from pytest_mlpatterns.serving.clocks import LoopWatch
from pytest_mlpatterns.serving.http.inference_call import WireTally
from pytest_mlpatterns.serving.http.metadata import ModelMetadata
from pytest_mlpatterns.serving.http.model_caller import ModelCaller
from pytest_mlpatterns.serving.http.stream_response import not_streamed
from pytest_mlpatterns.wire import WireError
from pytest_mlpatterns.wire.grpc_call import HEALTH, SERVICE, message_class
from pytest_mlpatterns.wire.open_inference_grpc import encode_answer, outputs_in, read_call

_GRACE_S = 1.0  # Time that open calls have at the end, in seconds
_SERVING = 1  # Value of the status in ``grpc.health.v1``
_WINDOW_BYTES = 1 << 24
"""Bytes that a client may send ahead of what is read, so that an input of 16 MiB waits for nothing."""
_LARGEST_FRAME_BYTES = 2**24 - 1  # Largest frame of HTTP/2 (RFC 9113, 6.5.2)
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""HTTP statuses of errors of the layers, and the corresponding gRPC statuses."""


class GrpcServer:
    """Serves one model over gRPC."""

    def __init__(self, caller: ModelCaller, name: str, max_body_bytes: int, *, position: int = 0) -> None:
        self.split: SplitTally | None = None
        self.watch: LoopWatch | None = None
        self.tally: WireTally = WireTally(position)
        self._caller = caller
        self._name = name
        self._metadata = ModelMetadata(name, caller, self.tally)
        options = [
            ("grpc.max_receive_message_length", max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1),  # the port is held by the parent process
            ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
            ("grpc.http2.max_frame_size", _LARGEST_FRAME_BYTES),
        ]
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers(self._handlers())

    async def serve(self, port: int, on_ready: Callable[[], None], ended: asyncio.Event) -> None:
        """Serve on 127.0.0.1 until the event is set."""
        self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()
        on_ready()
        await ended.wait()
        await self._server.stop(_GRACE_S)

    def _handlers(self) -> list[Any]:
        """Handlers by service and method. Inference takes and returns bytes; the other methods use message classes."""
        known = self._metadata
        answers: dict[str, Callable[[], Any]] = {
            "ServerLive": lambda: {"live": True},
            "ServerReady": lambda: {"ready": True},
            "ModelReady": lambda: {"ready": True},
            "ServerMetadata": known.server,
            "ModelMetadata": known.metadata,
            "ModelConfig": lambda: {"config": known.config()},
            "ModelStatistics": known.statistics,
            "RepositoryIndex": lambda: {"models": known.index()},
        }
        inference = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer),
            **{method: self._metadata_handler(method, answer) for method, answer in answers.items()},
        }
        package = HEALTH.rpartition(".")[0]
        takes, gives = message_class(f"{package}.HealthCheckRequest"), message_class(f"{package}.HealthCheckResponse")
        kinds = {"request_deserializer": takes.FromString, "response_serializer": gives.SerializeToString}
        health = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, **kinds),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, **kinds),
        }
        named = {SERVICE: inference, HEALTH: health}
        return [grpc.method_handlers_generic_handler(service, methods) for service, methods in named.items()]

    # --- inference --------------------------------------------------------------------------------------------------

    async def _infer(self, data: bytes, context: Any) -> bytes:
        began_ns, clock = perf_counter_ns(), RequestClock()
        set_clock(clock)
        watched = None if self.watch is None else self.watch.begin()
        self._caller.requests += 1
        try:
            call = read_call(data)
            if (text := self._name_error(call.model_name, call.model_version)) is not None:
                raise RequestError(404, text)
            self.tally.note_read(len(data), began_ns)
            outputs = await self._caller(call.request.inputs, lambda: read_call(data).request.inputs)
            if isinstance(outputs, Stream):
                raise not_streamed(
                    outputs, "which ModelInfer of gRPC cannot carry; choose the wire rest+json or openai"
                )
            started_ns = perf_counter_ns()
            answer = self._encoded(call, outputs)
            self.tally.note_sent(len(answer), len(answer), started_ns)
        except WireError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except RequestError as error:
            if error.retry_after_s is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", str(error.retry_after_s * 1000)),))
            await context.abort(_CODES.get(error.status, grpc.StatusCode.UNKNOWN), str(error))
        if self.watch is not None:
            self.watch.end(clock, perf_counter_ns() - began_ns, watched)
        if self.split is not None:
            self.split.add(clock.parts, perf_counter_ns() - began_ns)
        return answer

    def _encoded(self, call: Any, outputs: Any) -> bytes:
        try:
            answer = encode_answer(call.request, outputs, self._name)
        except WireError as error:
            raise RequestError(500, f"the model returned outputs that cannot be sent: {error}") from error
        if not self._metadata.inputs:
            self._metadata.learn(call.request.specification, outputs_in(answer))
        return answer

    def _name_error(self, name: str, version: str) -> str | None:
        """The error if a request names another model or version; None if it names this one, or none."""
        if name not in ("", self._name):
            return f"no model {name!r} is served here; the only one is {self._name!r}"
        return f"model {name!r} has no version {version!r}; the only one is '1'" if version not in ("", "1") else None

    # --- health and metadata --------------------------------------------------------------------------------------

    def _metadata_handler(self, method: str, answer: Callable[[], Any]) -> Any:
        """The handler of a method that answers with the fields of a message; methods of a model name it."""
        takes, gives = (message_class(f"inference.{method}{kind}") for kind in ("Request", "Response"))

        async def handle(request: Any, context: Any) -> Any:
            if method.startswith("Model") and (text := self._name_error(request.name, request.version)) is not None:
                await context.abort(grpc.StatusCode.NOT_FOUND, text)
            return gives(**answer())

        return grpc.unary_unary_rpc_method_handler(
            handle, request_deserializer=takes.FromString, response_serializer=gives.SerializeToString
        )

    async def _check(self, request: Any, context: Any) -> Any:
        if request.service not in ("", self._name, SERVICE):
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"no service {request.service!r} is served here, expected {SERVICE!r} or {self._name!r}",
            )
        return message_class("grpc.health.v1.HealthCheckResponse")(status=_SERVING)

    async def _watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield await self._check(request, context)
        await asyncio.Event().wait()  # the status does not change; the server's stop cancels this call
