"""The supervisor process: starts programs, and ends them together with all processes that they started.

Each program runs in its own session. On Linux the supervisor adopts orphans, so it also ends workers whose parent has
died or that have sessions of their own: SIGTERM to the process groups, then SIGKILL to the remaining processes, then a
check that none survived. The same happens when pytest ends, in any way.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil

from pytest_mlpatterns.serving.external.programs import (
    KILL_S,
    ORPHANS_GRACE_S,
    SOCKET,
    Ended,
    NotStarted,
    Started,
    Stopped,
)
from pytest_mlpatterns.system.child import Channel
from pytest_mlpatterns.system.sockets import listening_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.serving.external.programs import Program, StopAll, SupervisePrograms

__all__ = ["main"]

_PLACEHOLDER = re.compile(r"\{((?:[a-z]\w*_)?port)\}")
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h


def main() -> None:
    """The child process."""
    channel = Channel()
    job: SupervisePrograms = channel.receive()
    events: queue.SimpleQueue[Ended | StopAll | None] = queue.SimpleQueue()
    is_done = threading.Event()

    def on_close() -> None:  # the process ends soon after this function returns
        events.put(None)
        is_done.wait()

    channel.listen(events.put, on_close)
    signal.signal(signal.SIGTERM, lambda *_: events.put(None))
    _adopt_orphans()
    running: list[subprocess.Popen[bytes]] = []
    try:
        started_ns = time.perf_counter_ns()
        try:
            ports = _start(job, running)
        except OSError as error:
            channel.send(NotStarted(f"{job.programs[len(running)].words[0]} cannot be started: {_reason_of(error)}"))
            return
        for number, process in enumerate(running):
            threading.Thread(target=_watch, args=(number, process, events.put), daemon=True).start()
        channel.send(Started(tuple(ports), started_ns))
        while isinstance(event := _next(events), Ended):
            channel.send(event)
    finally:
        channel.send(_end(running, job.stop_ns / 1e9))
        is_done.set()


def _next(events: queue.SimpleQueue[Any]) -> Any:
    """The next event. The wait has steps, because Python handles a signal of another thread between them."""
    while True:
        with contextlib.suppress(queue.Empty):
            return events.get(timeout=1.0)


def _start(job: SupervisePrograms, running: list[subprocess.Popen[bytes]]) -> list[Mapping[str, int]]:
    """Start the programs and return their ports. ``running`` gets each started program, even if a later one fails."""
    shared = listening_socket() if job.shares_socket else None
    found: list[Mapping[str, int]] = []
    with contextlib.ExitStack() as held:
        if shared is not None:
            held.enter_context(shared)
        for program in job.programs:
            with contextlib.ExitStack() as own:
                listener = shared
                if listener is None and SOCKET in program.words:
                    listener = own.enter_context(listening_socket())
                ports = _ports_of(program, None if listener is None else listener.getsockname()[1])
                running.append(_spawn(program, ports, listener))
            found.append(ports)
    return found


def _ports_of(program: Program, listening: int | None) -> dict[str, int]:
    """A free port for each name; all sockets stay bound until the end, so that the ports are distinct."""
    ports = {} if listening is None else {"port": listening}
    with contextlib.ExitStack() as held:
        for text in (*program.words, *program.env.values()):
            for name in _PLACEHOLDER.findall(text):
                if name not in ports:
                    unused = held.enter_context(socket.socket())
                    unused.bind(("127.0.0.1", 0))
                    ports[name] = unused.getsockname()[1]
    return ports


def _spawn(program: Program, ports: Mapping[str, int], listener: socket.socket | None) -> subprocess.Popen[bytes]:
    descriptors = [] if listener is None else [listener.fileno()]

    def filled(text: str) -> str:
        text = text.replace(SOCKET, str(*descriptors))
        return _PLACEHOLDER.sub(lambda match: str(ports[match[1]]), text)

    with program.log.open("ab") as output:
        return subprocess.Popen(
            [filled(word) for word in program.words],
            env={**os.environ, **{name: filled(text) for name, text in program.env.items()}},
            cwd=program.cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=descriptors,
        )


def _watch(number: int, process: subprocess.Popen[bytes], send: Callable[[Ended], None]) -> None:
    send(Ended(number, process.wait()))


def _end(running: Sequence[subprocess.Popen[bytes]], grace_s: float) -> Stopped:
    """End the programs, their descendants, and all processes of their sessions."""
    sessions = {process.pid for process in running}
    family = _family(sessions)
    for process in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    grace_s = min(deadline - time.monotonic(), ORPHANS_GRACE_S)
    _, remaining = psutil.wait_procs([*{*family, *_family(sessions)}], max(0.0, grace_s))
    killed = [_name(orphan) for orphan in remaining]
    deadline = time.monotonic() + KILL_S
    while remaining and time.monotonic() < deadline:
        for orphan in remaining:
            with contextlib.suppress(psutil.Error):
                orphan.kill()
        psutil.wait_procs(remaining, 0.2)
        remaining = [orphan for orphan in {*remaining, *_family(sessions)} if _is_alive(orphan)]
    return Stopped(tuple(killed), tuple(f"{_name(orphan)} ({orphan.pid})" for orphan in remaining))


def _family(sessions: set[int]) -> set[psutil.Process]:
    """Descendants of this process, and all processes of these sessions."""
    found = set(psutil.Process().children(recursive=True))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid in sessions or os.getsid(process.pid) in sessions:
                found.add(process)
    return {process for process in found if _is_alive(process)}


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return "a process that has ended"


def _reason_of(error: OSError) -> str:
    missing = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror}{missing}"


def _adopt_orphans() -> None:
    """Become the parent of orphans (Linux). On other systems orphans are found by their session only."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
