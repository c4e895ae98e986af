"""The parts of Ray Serve that our layers call in a replica, without Ray: errors, ``serve.batch`` and a handle."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@dataclass
class FakeHandle:
    """A handle of a deployment: how it answers, and the inputs of each call, by method."""

    answer: Callable[[list[Any]], Any] = lambda instances: instances
    pieces: tuple[Any, ...] = ()  # what a streamed request yields; an error in it is raised
    calls: list[tuple[str, list[Any]]] = field(default_factory=list)
    cancelled: int = 0

    def options(self, *, method_name: str, stream: bool = False) -> Any:
        return SimpleNamespace(remote=self._stream if stream else self._call)

    async def _call(self, instances: list[Any]) -> Any:
        self.calls.append(("call", instances))
        await asyncio.sleep(0)
        found = self.answer(instances)
        return await found if asyncio.iscoroutine(found) else found

    def _stream(self, instances: list[Any]) -> "_Pieces":
        self.calls.append(("chunks", instances))
        return _Pieces(self)


class _Pieces:
    """The response of a streamed call."""

    def __init__(self, handle: FakeHandle) -> None:
        self._handle = handle
        self._left = list(handle.pieces)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if not self._left:
            raise StopAsyncIteration
        if isinstance(piece := self._left.pop(0), Exception):
            raise piece
        return piece

    def cancel(self) -> None:
        self._handle.cancelled += 1


def fake_serve(patch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Put modules of Ray Serve in the place of Ray's, and return their errors by name."""
    serve, errors, serve_errors = (
        ModuleType("ray.serve"),
        ModuleType("ray.exceptions"),
        ModuleType("ray.serve.exceptions"),
    )
    named = {
        errors: ("ActorDiedError", "ActorUnavailableError", "NodeDiedError", "OwnerDiedError", "WorkerCrashedError"),
        serve_errors: ("BackPressureError", "DeploymentUnavailableError"),
    }
    made = {name: (module, type(name, (Exception,), {})) for module, names in named.items() for name in names}
    for name, (module, error) in made.items():
        setattr(module, name, error)
    serve.batch = _batch  # type: ignore[attr-defined]
    ray = ModuleType("ray")
    ray.serve = serve  # type: ignore[attr-defined]
    for module in (ray, serve, errors, serve_errors):
        patch.setitem(sys.modules, module.__name__, module)
    return SimpleNamespace(**{name: error for name, (_, error) in made.items()})


_Batched = Callable[[list[Any]], Awaitable[list[Any]]]


def _batch(
    *, max_batch_size: int, batch_wait_timeout_s: float, max_concurrent_batches: int
) -> Callable[[_Batched], Callable[[Any], Awaitable[Any]]]:
    """Gathers what is there when the event loop comes round, up to the size of a batch."""
    assert batch_wait_timeout_s >= 0
    waiting: list[tuple[Any, asyncio.Future[Any]]] = []
    free = asyncio.Semaphore(max_concurrent_batches)
    tasks: set[asyncio.Task[None]] = set()

    async def flush(function: _Batched) -> None:
        async with free:
            sent = [waiting.pop(0) for _ in range(min(len(waiting), max_batch_size))]
            if not sent:
                return
            outputs = await function([item for item, _ in sent])
            for (_, future), output in zip(sent, outputs, strict=True):
                if not future.done():
                    future.set_result(output)

    def decorator(function: _Batched) -> Callable[[Any], Awaitable[Any]]:
        async def gather(item: Any) -> Any:
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            waiting.append((item, future))
            await asyncio.sleep(0)
            task = asyncio.create_task(flush(function))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            return await future

        return gather

    return decorator
