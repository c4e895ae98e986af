"""Which threads serve requests, where in a stack the serving begins, and when a thread is idle.

A thread that serves counts awake or not: a lock, a sleep or a file is named by the function that waits for it. But a
thread waits for the next request, too, and that is no part of any. So the loops around the serving are cut off, and a
stack that ends in the wait of such a loop is idle. Another thread, such as one that refreshes a table, sleeps between
its turns; its waits belong to no request, so it counts by its CPU time alone.

On a busy machine a thread waits for a core, too. Most of that is seen in the server around the serving, which reads a
request when it gets a core, and loses it when its write wakes the client: :func:`is_of_server` knows these places.
Pure.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pytest_mlpatterns.patterns import model_thread
from pytest_mlpatterns.patterns.batched import WAKES
from pytest_mlpatterns.profiling.frame_names import is_of_model, is_ours, place_of
from pytest_mlpatterns.system import child

if TYPE_CHECKING:
    from pytest_mlpatterns.profiling.recording import RawFrame, RawStack

__all__ = ["is_idle", "is_of_server", "is_own", "is_torn", "serves", "without_loops"]

_LOOPS = (
    "asyncio/base_events.py",
    "asyncio/events.py",
    "asyncio/runners.py",
    "concurrent/futures/thread.py",
    "multiprocessing/process.py",
    "multiprocessing/popen_fork.py",
    "multiprocessing/popen_spawn_posix.py",
    "multiprocessing/spawn.py",
    "anyio/_backends/_asyncio.py",
    "selectors.py",
    "queue.py",
    "threading.py",
    "runpy.py",
    "click/core.py",
    "uvicorn/__main__.py",
    "uvicorn/_compat.py",
    "uvicorn/_subprocess.py",
    "uvicorn/config.py",
    "uvicorn/main.py",
    "uvicorn/server.py",
    "uvicorn/workers.py",
    "granian/_loops.py",
    "granian/cli.py",
    "granian/server/",
    "hypercorn/__main__.py",
    "hypercorn/asyncio/run.py",
    "hypercorn/run.py",
    "gunicorn/app/",
    "gunicorn/arbiter.py",
    "socketserver.py",
    "grpc/_server.py",
)
"""Files whose functions run the loops around the serving: at the root of a stack they show nothing."""
_OUR_LOOPS = (
    "serving/external/asgi_server.py",
    "engines/local/worker.py",
    "serving/redis/queue_worker.py",
    place_of(model_thread),
    place_of(child),
)
"""Those of this package; tests compare the places in ``serving``, which is no layer below, with the modules."""
_SERVERS = (
    *_LOOPS,
    "http/server.py",
    "wsgiref/",
    "werkzeug/serving.py",
    "waitress/",
    "cheroot/",
    "gunicorn/",
    "hypercorn/",
    "tornado/",
    "sanic/",
    "aiohttp/",
)
"""Files that wait for the next request."""
_POOLS = (
    "concurrent/futures/thread.py",
    "anyio/_backends/_asyncio.py",
    "socketserver.py",
    "grpc/_server.py",
    "waitress/task.py",
    "cheroot/workers/threadpool.py",
    "gunicorn/workers/gthread.py",
    "starlette/concurrency.py",
)
"""Files at the root of threads that serve requests, beside the main thread."""
_DEPTH_OF_POOL = 6
"""Frames from the root within which a thread shows what it is for."""
_WAITS = ("select", "poll", "accept", "wait", "get", "readinto", "recv", "readline", "peek", "serve_forever", "run")
"""Functions in which a server waits."""


_PROTOCOLS = "/uvicorn/protocols/"
_ENTRY = "run_asgi"
"""The function by which uvicorn calls an application."""
_OF_SERVERS = ("asyncio/", "uvicorn/", "starlette/routing.py", "h11/", *_SERVERS)
_OUR_SERVERS = ("serving/http/", "serving/grpc/", "engines/local/", place_of(model_thread))


def serves(stack: RawStack, pid: int) -> bool:
    """Whether the thread of a stack serves requests."""
    if stack.thread == pid or stack.name == "MainThread":
        return True
    return any(_is_in(frame.file, _POOLS) or _calls_models(frame) for frame in stack.frames[:_DEPTH_OF_POOL])


def is_own(stack: RawStack) -> bool:
    """Whether a thread belongs to this package and serves no request: the one that listens to the parent."""
    return stack.name == "lifeline"


def without_loops(frames: tuple[RawFrame, ...]) -> tuple[RawFrame, ...]:
    """The frames from the first function on that is not one of the loops around the serving."""
    for number, frame in enumerate(frames):
        if not _is_loop(frame):
            return frames[number:]
    return ()


def is_idle(frames: tuple[RawFrame, ...]) -> bool:
    """Whether a thread waits for the next request.

    Args:
        frames: of a thread that serves, without the loops at their root.
    """
    if not frames:
        return True
    leaf = frames[-1]
    if leaf.name not in _WAITS:
        return False
    for frame in reversed(frames):
        if _is_in(frame.file, _SERVERS) and not _is_wait_of_any(frame):
            return True
        if not _is_standard(frame.file):
            return False
    return False


def is_of_server(frames: tuple[RawFrame, ...]) -> bool:
    """Whether a stack ends in the server that reads requests and writes answers, ours or another, not in a model."""
    leaf = frames[-1]
    if _PROTOCOLS in leaf.file or (leaf.name == WAKES and is_ours(leaf.file)):
        return True
    if any(is_of_model(frame) for frame in frames):
        return False
    return _is_in(leaf.file, _OUR_SERVERS if is_ours(leaf.file) else _OF_SERVERS)


def is_torn(frames: tuple[RawFrame, ...]) -> bool:
    """Whether a stack has a call that cannot be: it was read while the thread went from one function to another.

    uvicorn calls an application by one function; its others call only what belongs to a server.
    """
    for caller, callee in pairwise(frames):
        if _PROTOCOLS in caller.file and caller.name != _ENTRY and not is_ours(callee.file):
            named = callee.file.startswith("<") or not callee.file
            if not (named or _is_standard(callee.file) or _is_in(callee.file, _OF_SERVERS)):
                return True
    return False


def _calls_models(frame: RawFrame) -> bool:
    return frame.name == model_thread.ROOT and is_ours(frame.file)


def _is_loop(frame: RawFrame) -> bool:
    if frame.file.startswith("<") or frame.name == "<module>" or _calls_models(frame):
        return True
    return _is_in(frame.file, _OUR_LOOPS if is_ours(frame.file) else _LOOPS)


def _is_in(file: str, endings: tuple[str, ...]) -> bool:
    """Whether a path ends in one of these files, or is in one of these folders."""
    return any(f"/{one}" in file if one.endswith("/") else file.endswith(f"/{one}") for one in endings)


def _is_wait_of_any(frame: RawFrame) -> bool:
    """Whether it is a file whose waits any program uses, so that the waiting program stays unknown."""
    return frame.file.endswith(("/selectors.py", "/queue.py", "/threading.py"))


def _is_standard(file: str) -> bool:
    return "/lib/python3" in file and "-packages/" not in file
