"""One service process: makes its layers and the model, serves them, reports statistics, and ends with its parent.

It serves HTTP with uvicorn, gRPC with grpcio, or takes requests from a broker's stream. The parent sends one
:class:`WorkerJob`. The worker answers :class:`Ready` or :class:`LoadFailed`, and then a :class:`WorkerStats` for every
:class:`StatsQuestion`.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.http.app import ModelApp, ModelCaller
from pytest_mlpatterns.serving.local.messages import (
    Consume,
    Listen,
    ListenGrpc,
    LoadFailed,
    Ready,
    StatsQuestion,
    WorkerJob,
    WorkerStats,
)
from pytest_mlpatterns.serving.model import user_traceback
from pytest_mlpatterns.system.child import Channel
from pytest_mlpatterns.system.import_redirect import install, modules_from, wrong_tree
from pytest_mlpatterns.system.sockets import BACKLOG, inherited_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import uvicorn

    from pytest_mlpatterns.serving.grpc.server import GrpcServer
    from pytest_mlpatterns.serving.http.async_jobs import Queue
    from pytest_mlpatterns.serving.http.inference_call import WireTally
    from pytest_mlpatterns.serving.local.handler_stack import HandlerStack


_INTERNAL_KEEP_ALIVE_S = 3600


def main() -> None:
    """The child process."""
    channel = Channel()
    job: WorkerJob = channel.receive()
    on_close: list[Callable[[], None]] = []
    serving: list[tuple[ModelCaller, HandlerStack, Tally | WireTally]] = []

    def on_message(message: object) -> None:
        if isinstance(message, StatsQuestion) and serving:
            caller, stack, tally = serving[0]
            layers = (*stack.layers(), tally.snapshot())
            channel.send(WorkerStats(message.number, caller.requests, tuple(caller.tracebacks), layers))

    def close() -> None:
        for end in on_close:
            end()

    channel.listen(on_message, close)  # before the model loads: a process that is loading must end with the parent
    stack = _load(job, channel)
    caller = ModelCaller(stack.handler)
    lifetime = _Lifetime(stack, on_close, lambda: channel.send(Ready()))
    if isinstance(job.source, ListenGrpc):
        from pytest_mlpatterns.serving.grpc.server import GrpcServer

        def make_server() -> GrpcServer:
            server = GrpcServer(caller, job.name, job.max_body_bytes, position=job.position)
            serving.append((caller, stack, server.tally))
            return server

        _serve_grpc(job.source, make_server, lifetime)
    elif isinstance(job.source, Listen):
        from pytest_mlpatterns.serving.http.async_jobs import AsyncJobs

        app = ModelApp(
            caller,
            job.name,
            job.max_body_bytes,
            jobs=AsyncJobs(cast("Queue", stack.handler)) if job.is_polled else None,
            internal=job.source.internal,
            position=job.position,
        )
        serving.append((caller, stack, app.tally))
        _serve(job.source, app, lifetime)
    else:
        tally = Tally(job.source.position, "queued")
        serving.append((caller, stack, tally))
        _consume(job.source, caller, tally, lifetime)


@dataclass(frozen=True, slots=True)
class _Lifetime:
    """What begins and ends with a server: the layers; functions that end it; the report that it is ready."""

    stack: HandlerStack
    on_close: list[Callable[[], None]]
    report_ready: Callable[[], None]


def _load(job: WorkerJob, channel: Channel) -> HandlerStack:
    """Load the model and make the layers; if that fails, report it and end the process."""
    sys.path[:] = job.import_path
    if job.trees is not None:
        install(*job.trees)
    try:
        from pytest_mlpatterns.serving.local.handler_stack import HandlerStack

        stack = HandlerStack(job.node, job.identity, job.wire.between_processes, job.own_server)
        if job.trees is not None and (strays := modules_from(*job.trees)):
            raise wrong_tree(strays, *job.trees)
    except BaseException as error:  # also SystemExit: the test reports any of them
        channel.send(LoadFailed(user_traceback(error)))
        raise SystemExit(1) from error
    return stack


def _serve(
    source: Listen,
    app: ModelApp,
    lifetime: _Lifetime,
) -> None:
    """Serve over HTTP until the parent closes the channel."""
    server = _server_of(app, internal=source.internal)
    listener = inherited_socket(source.socket_fd)

    def end() -> None:
        server.should_exit = True

    async def serve() -> None:
        await lifetime.stack.start()
        asyncio.get_running_loop().call_soon(lifetime.report_ready)
        await server.serve(sockets=[listener])
        await lifetime.stack.close()

    lifetime.on_close.append(end)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(serve())


def _serve_grpc(
    source: ListenGrpc,
    make_server: Callable[[], GrpcServer],
    lifetime: _Lifetime,
) -> None:
    """Serve over gRPC until the parent closes the channel; the server must be made on its event loop."""
    import uvloop

    async def serve() -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        lifetime.on_close.append(lambda: loop.call_soon_threadsafe(end.set))  # type: ignore[arg-type]
        await lifetime.stack.start()
        await make_server().serve(source.port, lifetime.report_ready, end)
        await lifetime.stack.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _consume(
    source: Consume,
    caller: ModelCaller,
    tally: Tally,
    lifetime: _Lifetime,
) -> None:
    """Take requests from the stream until the parent closes the channel."""
    import contextlib

    import uvloop

    from pytest_mlpatterns.serving.redis.queue_worker import consume

    async def run(instances: list[Any]) -> Sequence[Any]:
        caller.requests += 1
        return await caller(instances)

    async def serve() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        lifetime.on_close.append(lambda: loop.call_soon_threadsafe(task.cancel))  # type: ignore[arg-type]
        await lifetime.stack.start()
        loop.call_soon(lifetime.report_ready)
        with contextlib.suppress(asyncio.CancelledError):
            await consume(source.subscription, run, tally)
        await lifetime.stack.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _server_of(app: ModelApp, *, internal: bool) -> uvicorn.Server:
    import uvicorn

    from pytest_mlpatterns.serving.http.long_body import body_protocol

    config = uvicorn.Config(
        app,
        http=body_protocol(app.max_body_bytes),
        loop="auto",
        lifespan="off",
        ws="none",
        access_log=False,
        server_header=False,
        date_header=False,
        log_level="warning",
        backlog=BACKLOG,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=_INTERNAL_KEEP_ALIVE_S if internal else 5,
    )
    return uvicorn.Server(config)
