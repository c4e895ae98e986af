"""One service process: builds its layers and the model, serves them, tells about itself, and ends with its parent.

It serves over HTTP with uvicorn, over gRPC with grpcio, or takes requests from a broker's stream. The parent sends one
:class:`WorkerJob`; the worker answers :class:`Ready` or :class:`LoadFailed`, and then a :class:`WorkerStats` for every
:class:`StatsQuestion`. This module must not know load.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.http.app import Answering, ModelApp
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
    from pytest_mlpatterns.serving.http.inference_call import WireTally
    from pytest_mlpatterns.serving.local.handler_stack import HandlerStack


_INTERNAL_KEEP_ALIVE_S = 3600


def main() -> None:
    """The child process."""
    channel = Channel()
    job: WorkerJob = channel.receive()
    ended: list[Callable[[], None]] = []
    known: list[tuple[Answering, HandlerStack, Tally | WireTally]] = []

    def on_message(message: object) -> None:
        if isinstance(message, StatsQuestion) and known:
            answering, chain, tally = known[0]
            layers = (*chain.layers(), tally.snapshot())
            channel.send(WorkerStats(message.number, answering.requests, tuple(answering.tracebacks), layers))

    def on_close() -> None:
        for end in ended:
            end()

    channel.listen(on_message, on_close)  # from now on, so that a model that is still loading ends with the parent too
    chain = _loaded(job, channel)
    answering = Answering(chain.inner)
    if isinstance(job.source, ListenGrpc):
        from pytest_mlpatterns.serving.grpc.server import GrpcServer

        def face() -> GrpcServer:
            made = GrpcServer(answering, job.name, job.max_body_bytes, position=job.position)
            known.append((answering, chain, made.tally))
            return made

        _serve_grpc(job.source, face, chain, ended, lambda: channel.send(Ready()))
    elif isinstance(job.source, Listen):
        from pytest_mlpatterns.serving.http.async_jobs import AsyncJobs

        app = ModelApp(
            answering,
            job.name,
            job.max_body_bytes,
            jobs=AsyncJobs(chain.queue) if job.jobs and chain.queue else None,
            internal=job.source.internal,
            position=job.position,
        )
        known.append((answering, chain, app.tally))
        _serve(job.source, app, chain, ended, lambda: channel.send(Ready()))
    else:
        tally = Tally(job.source.position, "queued")
        known.append((answering, chain, tally))
        _consume(job.source, answering, tally, ended, lambda: channel.send(Ready()))


def _loaded(job: WorkerJob, channel: Channel) -> HandlerStack:
    """The layers and the model; the process ends where it cannot be built."""
    sys.path[:] = job.import_path
    if job.trees is not None:
        install(*job.trees)
    try:
        from pytest_mlpatterns.serving.local.handler_stack import HandlerStack

        chain = HandlerStack(job.node, job.identity, job.wire.between_processes)
        if job.trees is not None and (strays := modules_from(*job.trees)):
            raise wrong_tree(strays, *job.trees)
    except BaseException as error:  # also SystemExit: whatever it was, the test wants to see it
        channel.send(LoadFailed(user_traceback(error)))
        raise SystemExit(1) from error
    return chain


def _serve(
    source: Listen,
    app: ModelApp,
    chain: HandlerStack,
    ended: list[Callable[[], None]],
    tell_ready: Callable[[], None],
) -> None:
    """Serve over HTTP until the parent closes the channel."""
    server = _server_of(app, internal=source.internal)
    listener = inherited_socket(source.socket_fd)

    def end() -> None:
        server.should_exit = True

    async def serve() -> None:
        await chain.start()
        asyncio.get_running_loop().call_soon(tell_ready)
        await server.serve(sockets=[listener])
        await chain.close()

    ended.append(end)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(serve())


def _serve_grpc(
    source: ListenGrpc,
    face: Callable[[], GrpcServer],
    chain: HandlerStack,
    ended: list[Callable[[], None]],
    tell_ready: Callable[[], None],
) -> None:
    """Serve over gRPC until the parent closes the channel; the face is made on the loop, to which it belongs."""
    import uvloop

    async def serve() -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        ended.append(lambda: loop.call_soon_threadsafe(end.set))  # type: ignore[arg-type]
        await chain.start()
        await face().serve(source.port, tell_ready, end)
        await chain.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _consume(
    source: Consume,
    answering: Answering,
    tally: Tally,
    ended: list[Callable[[], None]],
    tell_ready: Callable[[], None],
) -> None:
    """Take requests from the stream until the parent closes the channel."""
    import contextlib

    import uvloop

    from pytest_mlpatterns.serving.redis.queue_worker import consume

    async def run(instances: list[Any]) -> Sequence[Any]:
        answering.requests += 1
        return await answering(instances)

    async def serve() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        ended.append(lambda: loop.call_soon_threadsafe(task.cancel))  # type: ignore[arg-type]
        loop.call_soon(tell_ready)
        with contextlib.suppress(asyncio.CancelledError):
            await consume(source.subscription, run, tally)

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
