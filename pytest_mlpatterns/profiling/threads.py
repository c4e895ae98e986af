"""Which threads serve requests, where in a stack the serving begins, and when a thread is idle.

A thread that serves counts awake or not: a lock, a sleep or a file is named by the function that waits for it. But a
thread waits for the next request, too, and that is no part of any. So the loops around the serving are cut off, and a
stack that ends in the wait of such a loop is idle. Another thread, such as one that refreshes a table, sleeps between
its turns; its waits belong to no request, so it counts by its CPU time alone.

On a busy machine a thread waits for a core, too. Most of that is seen where it wakes another process, as the write of
an answer does: that one then takes its core. :func:`wakes` knows these places. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.profiling.layers import is_ours

if TYPE_CHECKING:
    from pytest_mlpatterns.profiling.recording import RawFrame, RawStack

__all__ = ["is_idle", "is_own", "serves", "wakes", "without_loops"]

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
"""Files whose functions run the loops around the serving: at the root of a stack they say nothing."""
_OUR_LOOPS = (
    "serving/external/asgi_server.py",
    "serving/local/worker.py",
    "serving/redis/queue_worker.py",
    "patterns/model_thread.py",
    "system/child.py",
)
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
    "patterns/model_thread.py",
    "socketserver.py",
    "grpc/_server.py",
    "waitress/task.py",
    "cheroot/workers/threadpool.py",
    "gunicorn/workers/gthread.py",
    "starlette/concurrency.py",
)
"""Files at the root of threads that serve requests, beside the main thread."""
_WAITS = ("select", "poll", "accept", "wait", "get", "readinto", "recv", "readline", "peek", "serve_forever", "run")
"""Functions in which a server waits."""


_WAKES = ("send", "sendall", "write", "ask", "call", "_call", "put")
"""Functions of servers and of this package that wake another thread or process."""


def serves(stack: RawStack, pid: int) -> bool:
    """Whether the thread of a stack serves requests.

    Args:
        stack: of the thread.
        pid: of its process.
    """
    if stack.thread == pid or stack.name == "MainThread":
        return True
    return any(_is_in(frame.file, _POOLS) for frame in stack.frames[:6])


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


def wakes(frames: tuple[RawFrame, ...]) -> bool:
    """Whether a stack ends where a server or this package wakes another thread or process."""
    leaf = frames[-1]
    return leaf.name in _WAKES and (is_ours(leaf.file) or _is_in(leaf.file, ("uvicorn/protocols/", *_SERVERS)))


def _is_loop(frame: RawFrame) -> bool:
    if frame.file.startswith("<") or frame.name == "<module>":
        return True
    return _is_in(frame.file, _OUR_LOOPS if is_ours(frame.file) else _LOOPS)


def _is_in(file: str, endings: tuple[str, ...]) -> bool:
    """Whether a path ends in one of these files, or is in one of these folders."""
    return any(f"/{one}" in file if one.endswith("/") else file.endswith(f"/{one}") for one in endings)


def _is_wait_of_any(frame: RawFrame) -> bool:
    """Whether it is a file whose waits any program uses, so that it does not say who waits."""
    return frame.file.endswith(("/selectors.py", "/queue.py", "/threading.py"))


def _is_standard(file: str) -> bool:
    return "/lib/python3" in file and "-packages/" not in file
