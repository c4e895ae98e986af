"""One service process: builds the model, serves it with uvicorn, answers questions about itself, ends with its parent.

The parent sends one :class:`WorkerJob`; the worker answers :class:`Listening` or :class:`LoadFailed`, and then a
:class:`WorkerStats` for every :class:`StatsQuestion`. This module must not know patterns or load.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.children import Channel
from pytest_mlpatterns.serve.model import user_traceback

if TYPE_CHECKING:
    import uvicorn

    from pytest_mlpatterns.serve.app import ModelApp
    from pytest_mlpatterns.serve.model import Model, ModelSource

__all__ = ["BACKLOG", "Listening", "LoadFailed", "StatsQuestion", "WorkerJob", "WorkerStats", "listening_socket"]

BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """What a worker serves; ``socket_fd`` is an inherited listening socket, or None to open one."""

    model: ModelSource
    name: str
    import_path: tuple[str, ...]
    max_body_bytes: int
    socket_fd: int | None


@dataclass(frozen=True, slots=True)
class Listening:
    """The model is built and the port accepts."""

    port: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model could not be built; the traceback is the user's."""

    traceback: str


@dataclass(frozen=True, slots=True)
class StatsQuestion:
    """Asks a worker what it knows of itself."""

    number: int


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What one worker knows of itself since its start, in answer to the question of this number."""

    number: int
    predict_requests: int
    tracebacks: tuple[str, ...]


def listening_socket() -> socket.socket:
    """A socket that listens on 127.0.0.1, on a port that the system chose.

    The protocol is named because asyncio sets TCP_NODELAY only then; without it an answer can wait 40 ms for the
    acknowledgement of the one before.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener


def main() -> None:
    """The child process."""
    channel = Channel()
    job: WorkerJob = channel.receive()
    serving: list[tuple[ModelApp, uvicorn.Server]] = []

    def on_message(message: object) -> None:
        if isinstance(message, StatsQuestion) and serving:
            app, _ = serving[0]
            channel.send(WorkerStats(message.number, app.predict_requests, tuple(app.tracebacks)))

    def on_close() -> None:
        for _, server in serving:
            server.should_exit = True

    channel.listen(on_message, on_close)  # from now on, so that a model that is still loading ends with the parent too
    sys.path[:] = job.import_path
    try:
        model = job.model.load()
    except BaseException as error:  # also SystemExit: whatever it was, the test wants to see it
        channel.send(LoadFailed(user_traceback(error)))
        raise SystemExit(1) from error
    listener = listening_socket() if job.socket_fd is None else _inherited(job.socket_fd)
    app = _app_of(model, job)
    server = _server_of(app)
    serving.append((app, server))

    async def serve() -> None:
        asyncio.get_running_loop().call_soon(channel.send, Listening(listener.getsockname()[1]))
        await server.serve(sockets=[listener])

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(serve())


def _app_of(model: Model, job: WorkerJob) -> ModelApp:
    from pytest_mlpatterns.serve.app import ModelApp

    return ModelApp(model, job.name, job.max_body_bytes)


def _server_of(app: ModelApp) -> uvicorn.Server:
    import uvicorn

    config = uvicorn.Config(
        app,
        http="httptools",
        loop="auto",
        lifespan="off",
        ws="none",
        access_log=False,
        server_header=False,
        date_header=False,
        log_level="warning",
        backlog=BACKLOG,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def _inherited(descriptor: int) -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=descriptor)
