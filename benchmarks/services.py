"""The services that benchmarks drive, each in a process of its own: ``python services.py NAME`` prints its port.

``fixed`` sends one fixed answer to whatever arrives. ``tiny`` answers raw ASGI with a small matrix product. The others
are FastAPI as its users write it: ``MODEL-validated`` has a pydantic model for the body, ``MODEL-lean`` reads the JSON
itself; MODEL is ``digits`` or ``identity``. These run under uvicorn without an access log, on 127.0.0.1. ``grpc-echo``
is a gRPC service of grpcio on uvloop.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = "/v1/models/model:predict"
QUICKSTART = Path(__file__).resolve().parents[1] / "examples" / "quickstart"


def identity(batch: list[Any]) -> list[Any]:
    """The model that costs nothing."""
    return batch


def tiny() -> Any:
    """Raw ASGI around a small numpy model."""
    import numpy as np
    import orjson

    weights = np.random.default_rng(0).random((64, 10))

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        scores = np.asarray(orjson.loads(body)["instances"], dtype=float) @ weights
        answer = orjson.dumps({"predictions": scores.argmax(1)}, option=orjson.OPT_SERIALIZE_NUMPY)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def model_named(name: str) -> Callable[[list[Any]], list[Any]]:
    """A model that a FastAPI service serves."""
    if name == "identity":
        return identity
    sys.path.insert(0, str(QUICKSTART))
    digits: Callable[[list[Any]], list[Any]] = importlib.import_module("model").Digits()
    return digits


def validated(model: Callable[[list[Any]], list[Any]]) -> Any:
    """FastAPI with a pydantic model for the body."""
    from fastapi import FastAPI
    from pydantic import create_model

    body_type = create_model("Body", instances=(list[list[float]], ...))
    app = FastAPI()

    async def predict(body: Any) -> dict[str, Any]:
        return {"predictions": model(body.instances)}

    predict.__annotations__["body"] = body_type
    app.post(PATH)(predict)
    return app


def lean(model: Callable[[list[Any]], list[Any]]) -> Any:
    """FastAPI that reads the JSON itself and answers with a response of its own."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    app = FastAPI()

    async def predict(request: Any) -> Any:
        return JSONResponse({"predictions": model((await request.json())["instances"])})

    predict.__annotations__["request"] = Request
    predict.__annotations__["return"] = JSONResponse
    app.post(PATH)(predict)
    return app


def app_named(name: str) -> Any:
    """The application of this name."""
    if name == "tiny":
        return tiny()
    model, _, kind = name.partition("-")
    return {"validated": validated, "lean": lean}[kind](model_named(model))


class Fixed(asyncio.Protocol):
    """One fixed answer to every piece of bytes."""

    ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 19\r\n\r\n{"predictions":[7]}'

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, _data: bytes) -> None:
        self.transport.write(self.ANSWER)


async def serve_fixed() -> None:
    """The fastest service that Python has."""
    server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", 0)
    os.write(1, b"%d\n" % server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def echo_grpc() -> None:
    """A gRPC service of grpcio that sends every message back."""
    import grpc

    async def echo(message: bytes, _context: Any) -> bytes:
        return message

    server = grpc.aio.server()
    methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)])
    os.write(1, b"%d\n" % server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    if sys.argv[1] in ("grpc-echo", "fixed"):
        uvloop.run(echo_grpc() if sys.argv[1] == "grpc-echo" else serve_fixed())
        return
    app = app_named(sys.argv[1])
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    os.write(1, b"%d\n" % listener.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
