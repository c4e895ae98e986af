"""The supervisor process: starts programs, and ends them together with all processes that they started.

Each program runs in its own session. On Linux the supervisor adopts orphans, so it also ends workers whose parent has
died or that have sessions of their own: SIGTERM to the process groups, then SIGKILL to the remaining processes, then a
check that none survived. The same happens when pytest ends, in any way. If the supervisor is killed itself, the
programs get SIGTERM (Linux), and pytest ends what remains.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psutil

from pytest_mlpatterns.serving.external.programs import (
    SOCKET,
    Ended,
    NotStarted,
    Program,
    Started,
    StopAll,
    SupervisePrograms,
)
from pytest_mlpatterns.system import orphans
from pytest_mlpatterns.system.child import Channel, Mailbox
from pytest_mlpatterns.system.log_file import LOOK_S, LogFile
from pytest_mlpatterns.system.process_limits import tracer_permission
from pytest_mlpatterns.system.sockets import free_port, listening_socket
from pytest_mlpatterns.wording import did_you_mean

if TYPE_CHECKING:
    import socket

_LIKE = 0.8  # Likeness of a command to one that is meant: a machine has thousands of names
_PLACEHOLDER = re.compile(r"\{((?:[a-z]\w*_)?port)\}")


def main() -> None:
    """The child process."""
    channel = Channel()
    job: SupervisePrograms = channel.receive()
    events: Mailbox[Ended | StopAll | None] = Mailbox()
    is_done = threading.Event()

    def on_close() -> None:  # the process ends soon after this function returns
        events.put(None)
        is_done.wait()

    channel.listen(events.put, on_close)
    signal.signal(signal.SIGTERM, lambda *_: events.put(None))
    orphans.adopt_orphans()
    running: list[subprocess.Popen[bytes]] = []
    try:
        started_ns = time.perf_counter_ns()
        try:
            ports = _start(job, running)
        except OSError as error:
            program = job.programs[len(running)]
            channel.send(NotStarted(f"{program.words[0]} cannot be started: {_reason_of(error, program)}"))
            return
        for number, process in enumerate(running):
            threading.Thread(target=_watch, args=(number, process, events.put), daemon=True).start()
        channel.send(Started(tuple(ports), started_ns, tuple(process.pid for process in running)))
        logs = [LogFile(program.log) for program in job.programs]
        while isinstance(event := _next(events, logs), Ended):
            channel.send(event)
    finally:
        channel.send(_end(running, job.stop_ns / 1e9))
        is_done.set()


def _next(events: Mailbox[Any], logs: Sequence[LogFile]) -> Any:
    """The next event. In between the logs are limited, and Python handles signals of other threads."""
    while True:
        with contextlib.suppress(TimeoutError):
            return events.get(LOOK_S)
        for log in logs:
            log.limit()


def _start(job: SupervisePrograms, running: list[subprocess.Popen[bytes]]) -> list[Mapping[str, int]]:
    """Start the programs and return their ports. ``running`` gets each started program, even if a later one fails."""
    found: list[Mapping[str, int]] = []
    with contextlib.ExitStack() as held:
        shared = held.enter_context(listening_socket()) if job.shares_socket else None
        for program in job.programs:
            listener = shared
            if listener is None and SOCKET in program.words:
                listener = held.enter_context(listening_socket())
            found.append(_ports_of(program, None if listener is None else listener.getsockname()[1]))
            running.append(_spawn(program, found[-1], listener))
    return found


def _ports_of(program: Program, listening: int | None) -> dict[str, int]:
    """A free port for each name."""
    ports = {} if listening is None else {"port": listening}
    for text in (*program.words, *program.env.values()):
        for name in _PLACEHOLDER.findall(text):
            if name not in ports:
                ports[name] = free_port()
    return ports


def _prepared(program: Program) -> Callable[[], None] | None:
    """What the process of a program calls before it becomes the program; None if there is nothing to do."""
    permission = tracer_permission() if program.profiled else None
    calls = [call for call in (orphans.end_with_creator(), permission) if call is not None]

    def prepare() -> None:
        for call in calls:
            call()

    return prepare if calls else None


def _spawn(program: Program, ports: Mapping[str, int], listener: socket.socket | None) -> subprocess.Popen[bytes]:
    descriptors = [] if listener is None else [listener.fileno()]

    def filled(text: str) -> str:
        text = text.replace(SOCKET, str(*descriptors))
        return _PLACEHOLDER.sub(lambda match: str(ports[match[1]]), text)

    words = [filled(word) for word in program.words]
    env = {**os.environ, **{name: filled(text) for name, text in program.env.items()}}
    if program.under is not None:
        words, env = [*program.under.words, *words], program.under.environment(env)
    with program.log.open("ab") as output:
        return subprocess.Popen(
            words,
            env=env,
            cwd=program.cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=descriptors,
            preexec_fn=_prepared(program),  # noqa: PLW1509 - it makes a few system calls and takes no lock
        )


def _watch(number: int, process: subprocess.Popen[bytes], send: Callable[[Ended], None]) -> None:
    send(Ended(number, process.wait()))


def _end(running: Sequence[subprocess.Popen[bytes]], grace_s: float) -> orphans.Stopped:
    """End the programs, their descendants, and all processes of their sessions."""
    sessions = {process.pid for process in running}
    family = _family(sessions)
    for process in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
            os.killpg(process.pid, signal.SIGCONT)  # a process that is stopped goes on, to receive it
    deadline = time.monotonic() + grace_s
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    grace_s = min(deadline - time.monotonic(), orphans.GRACE_S)
    return orphans.end_remaining(lambda: orphans.alive(family) | _family(sessions), grace_s)


def _family(sessions: set[int]) -> set[psutil.Process]:
    """Descendants of this process, and all processes of these sessions."""
    return orphans.below(os.getpid()) | orphans.related("", sessions)


def _reason_of(error: OSError, program: Program) -> str:
    """Why a command cannot be started; its first word may be misspelled."""
    missing, hint, word = f" ({error.filename})" if error.filename else "", "", program.words[0]
    if error.filename == word:
        hint = did_you_mean(word, _commands({**os.environ, **program.env}), likeness=_LIKE)
    return f"{error.strerror}{missing}; {hint}".rstrip("; ")


def _commands(env: Mapping[str, str]) -> set[str]:
    """The names of all commands of an environment."""
    found: set[str] = set()
    for directory in os.get_exec_path(env):
        with contextlib.suppress(OSError):
            found.update(os.listdir(directory))
    return found
