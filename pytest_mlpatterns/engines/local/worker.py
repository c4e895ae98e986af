"""One service process: makes its layers and the model, serves them, reports statistics, and ends with its parent.

It serves HTTP with uvicorn, gRPC with grpcio, takes requests from a broker's stream, or only calls its model. The
parent sends one :class:`WorkerJob`. The worker answers :class:`Ready` or :class:`LoadFailed`, and then a
:class:`WorkerStats` for every :class:`StatsQuestion` and a :class:`WorkerFacts` for every :class:`FactsQuestion`.
"""

from __future__ import annotations

import asyncio
import pickle
import queue
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from msgspec import Struct

from pytest_mlpatterns.engines.local.messages import Call, Listen, ListenGrpc, WorkerJob
from pytest_mlpatterns.patterns.pattern import ModelNode
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import SplitTally, Tally
from pytest_mlpatterns.serving.clocks import LoopWatch
from pytest_mlpatterns.serving.http.app import ModelApp
from pytest_mlpatterns.serving.http.inference_call import WireTally
from pytest_mlpatterns.serving.http.model_caller import ModelCaller
from pytest_mlpatterns.serving.http.stream_response import not_streamed
from pytest_mlpatterns.serving.model import UnusableModelError
from pytest_mlpatterns.serving.processes import (
    FactsQuestion,
    LoadFailed,
    Ready,
    StatsQuestion,
    WorkerFacts,
    WorkerStats,
)
from pytest_mlpatterns.serving.tracebacks import user_traceback
from pytest_mlpatterns.system.child import Channel
from pytest_mlpatterns.system.import_redirect import install, modules_from, wrong_tree
from pytest_mlpatterns.system.loaded_packages import loaded_modules
from pytest_mlpatterns.system.orphans import adopt_orphans
from pytest_mlpatterns.system.process_limits import permit_tracer, raise_file_limit
from pytest_mlpatterns.system.sockets import BACKLOG, inherited_socket

if TYPE_CHECKING:
    from pytest_mlpatterns.engines.local.plain_caller import PlainCaller
    from pytest_mlpatterns.loadgen.messages import LoadJob
    from pytest_mlpatterns.serving.handler_stack import HandlerStack
    from pytest_mlpatterns.serving.held_memory import HeldMemoryTally
    from pytest_mlpatterns.serving.http.async_jobs import Queue
    from pytest_mlpatterns.serving.http.uvicorn_server import PromptServer
    from pytest_mlpatterns.serving.redis.queue_worker import Subscription

_INTERNAL_KEEP_ALIVE_S = 3600
"""Time for which connections inside a deployment stay open, in seconds: longer than any load."""
_Loaded = TypeVar("_Loaded")


def main() -> None:
    """The child process."""
    raise_file_limit()
    channel = Channel()
    adopt_orphans()
    job: WorkerJob = channel.receive()
    if job.profiled:
        permit_tracer()
    parent = _Parent(channel)
    if job.traced:
        from pytest_mlpatterns.serving.held_memory import HeldMemoryTally, trace_memory  # as good as never

        if job.traced == "start":
            trace_memory()
        parent.held = HeldMemoryTally()
    if isinstance(job.source, Call):
        _call(_load(job, channel, _caller_of), parent, channel)
        return
    stack = _load(job, channel, _stack_of)
    if job.counted:
        stack.run_queue.ignore()
    caller = ModelCaller(stack.handler)
    if isinstance(job.source, ListenGrpc):
        _serve_grpc(job, job.source.port, _Service(parent, stack, caller))
    elif isinstance(job.source, Listen):
        _serve_http(job, job.source, _Service(parent, stack, caller))
    else:
        _consume(job, job.source, _Service(parent, stack, caller))


class _Parent:
    """The parent as the worker knows it: it asks for statistics and facts, and the worker ends with it.

    ``statistics``: answers the questions; None until the worker serves. ``end``: ends the worker when the parent closes
    the channel; None until the worker serves. ``held``: reports the memory of the worker with its statistics; None if
    it does not follow its allocations.
    """

    def __init__(self, channel: Channel) -> None:
        self.statistics: Callable[[int], WorkerStats] | None = None
        self.end: Callable[[], object] | None = None
        self.held: HeldMemoryTally | None = None
        self.asked: Callable[[Any], None] | None = None
        self._channel = channel
        channel.listen(self._on_message, self._on_close)

    def report_ready(self) -> None:
        """Report that the model is built and requests are accepted."""
        self._channel.send(Ready())

    def _on_message(self, message: object) -> None:
        if isinstance(message, StatsQuestion) and self.statistics is not None:
            self._channel.send(self.statistics(message.number))
        elif isinstance(message, FactsQuestion):
            modules = loaded_modules()
            from pytest_mlpatterns.system.environment_facts import own_facts  # not while a model loads

            self._channel.send(WorkerFacts(message.number, own_facts(), modules))
        elif self.asked is not None:
            self.asked(message)

    def _on_close(self) -> None:
        if self.end is not None:
            self.end()


class _Service(Struct, frozen=True):
    """What a worker serves, and for which parent."""

    parent: _Parent
    stack: HandlerStack
    caller: ModelCaller

    def count_with(self, *tallies: Tally | WireTally | SplitTally) -> None:
        """Answer questions for statistics from now on; ``tallies`` count in the server."""

        def statistics(number: int) -> WorkerStats:
            held = () if self.parent.held is None else (self.parent.held,)
            layers = (*self.stack.layers(), *(tally.snapshot() for tally in (*tallies, *held)))
            return WorkerStats(number, self.caller.requests, tuple(self.caller.tracebacks), layers)

        self.parent.statistics = statistics


def _load(job: WorkerJob, channel: Channel, build: Callable[[WorkerJob], _Loaded]) -> _Loaded:
    """Load the model and make what is around it; if that fails, report it and end the process."""
    sys.path[:] = job.import_path
    if job.trees is not None:
        install(*job.trees)
    try:
        loaded = build(job)
        if job.trees is not None and (strays := modules_from(*job.trees)):
            raise wrong_tree(strays, *job.trees)
    except UnusableModelError as error:
        channel.send(LoadFailed("", error.why))
        raise SystemExit(1) from error
    except BaseException as error:  # also SystemExit: the test reports any of them
        channel.send(LoadFailed(user_traceback(error)))
        raise SystemExit(1) from error
    return loaded


def _stack_of(job: WorkerJob) -> HandlerStack:
    """The layers of a service around its model."""
    from pytest_mlpatterns.engines.local.upstream import Upstream
    from pytest_mlpatterns.serving.handler_stack import HandlerStack

    wire = job.wire.between_processes
    stack = HandlerStack(job.node, job.identity, wire=wire, own_server=job.own_server, upstream=Upstream)
    if job.profiled:
        stack.follow_awaits()
    return stack


def _caller_of(job: WorkerJob) -> PlainCaller:
    """What calls a model itself, with the inputs of the job."""
    from pytest_mlpatterns.engines.local.plain_caller import PlainCaller  # of one comparison alone

    assert isinstance(job.node, ModelNode)
    assert isinstance(job.source, Call)
    return PlainCaller(job.node.target.load(), pickle.loads(job.source.inputs), job.node.target.name)  # noqa: S301 - only our own parent writes here


def _call(caller: PlainCaller, parent: _Parent, channel: Channel) -> None:
    """Call the model as the parent asks for it, until it closes the channel."""
    waiting: queue.SimpleQueue[int | LoadJob | None] = queue.SimpleQueue()

    def end() -> None:
        caller.end()
        waiting.put(None)

    parent.statistics = lambda number: WorkerStats(number, caller.calls, tuple(caller.tracebacks))
    parent.asked, parent.end = waiting.put, end
    parent.report_ready()
    while (asked := waiting.get()) is not None:
        channel.send(caller.answer(asked))


def _serve_http(job: WorkerJob, source: Listen, service: _Service) -> None:
    """Serve HTTP until the parent closes the channel."""
    from pytest_mlpatterns.serving.http.async_jobs import AsyncJobs

    app = ModelApp(
        service.caller,
        job.name,
        job.max_body_bytes,
        jobs=AsyncJobs(cast("Queue", service.stack.handler)) if job.is_polled else None,
        internal=source.internal,
        position=job.position,
    )
    app.watch = LoopWatch(service.stack.run_queue)
    if source.internal:
        service.count_with(app.tally)
    else:
        app.split = SplitTally(job.position)
        service.count_with(app.tally, app.split)
    server = _server_of(app, internal=source.internal)
    listener = inherited_socket(source.socket_fd)

    async def serve() -> None:
        await service.stack.start()
        asyncio.get_running_loop().call_soon(service.parent.report_ready)
        await server.serve(sockets=[listener])
        await service.stack.close()

    service.parent.end = server.end
    _run(serve())


def _serve_grpc(job: WorkerJob, port: int, service: _Service) -> None:
    """Serve gRPC until the parent closes the channel; the server must be made on its event loop."""
    from pytest_mlpatterns.serving.grpc.server import GrpcServer

    async def serve() -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        service.parent.end = lambda: loop.call_soon_threadsafe(end.set)
        await service.stack.start()
        server = GrpcServer(service.caller, job.name, job.max_body_bytes, position=job.position)
        server.split, server.watch = SplitTally(job.position), LoopWatch(service.stack.run_queue)
        service.count_with(server.tally, server.split)
        await server.serve(port, service.parent.report_ready, end)
        await service.stack.close()

    _run(serve())


def _consume(job: WorkerJob, source: Subscription, service: _Service) -> None:
    """Take requests from a stream of a broker until the parent closes the channel."""
    import contextlib

    from pytest_mlpatterns.serving.redis.queue_worker import consume

    tally = Tally(job.position, "queued")
    service.count_with(tally)

    async def run(instances: list[Any], decode: Callable[[], list[Any]]) -> Sequence[Any]:
        service.caller.requests += 1
        return await whole_outputs(service.caller, instances, decode)

    async def serve() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        service.parent.end = lambda: loop.call_soon_threadsafe(task.cancel)
        await service.stack.start()
        loop.call_soon(service.parent.report_ready)
        with contextlib.suppress(asyncio.CancelledError):
            await consume(source, run, tally)
        await service.stack.close()

    _run(serve())


def _run(serving: Coroutine[Any, Any, None]) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving)


async def whole_outputs(caller: ModelCaller, instances: list[Any], decode: Callable[[], list[Any]]) -> Sequence[Any]:
    """The outputs of a request that came through a broker."""
    outputs = await caller(instances, decode)
    if isinstance(outputs, Stream):
        raise not_streamed(outputs, "which a broker does not carry chunk by chunk; write Queued(broker='memory://')")
    return outputs  # type: ignore[no-any-return]


def _server_of(app: ModelApp, *, internal: bool) -> PromptServer:
    import uvicorn

    from pytest_mlpatterns.serving.http.uvicorn_server import PromptServer, body_protocol

    config = uvicorn.Config(
        app,
        http=body_protocol(app.max_body_bytes),
        loop="auto",
        workers=1,  # else the environment gives their number, and may give a word
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
    return PromptServer(config)
