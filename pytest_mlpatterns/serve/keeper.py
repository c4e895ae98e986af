"""Programs of the user's own, started for a test: how they start, and that they end with all that they started.

A child of ours keeps them, each in a session of its own. It adopts what they leave behind (Linux), so that a server
whose parent dies before its children, or whose workers have sessions of their own, is still followed and ended: SIGTERM
to the groups, then SIGKILL to everybody who is left, then a look at who survived that. The same happens where pytest
itself ends, however it ends. This module must not know HTTP, nor what the programs are for.
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
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from pytest_mlpatterns.children import Channel, Child
from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.serve.sockets import listening_socket
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["SOCKET", "Ended", "Kept", "Program", "Stopped", "describe_killed"]

SOCKET = "{socket}"
"""Stands for the number of an inherited listening socket, as ``{port}`` and ``{NAME_port}`` do for free ports."""
_PLACEHOLDER = re.compile(r"\{((?:[a-z]\w*_)?port)\}")
_ORPHANS_GRACE_S = 1.0
"""How long those have that a program which is gone has left behind, before they are killed."""
_KILL_S = 3.0
_MARGIN_S = 5.0
_TAIL_BYTES = 16_384
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h


@dataclass(frozen=True, slots=True)
class Program:
    """One process to start.

    ``{port}`` and ``{NAME_port}`` in ``words`` and ``env`` are replaced by free ports of 127.0.0.1, ``{socket}`` by the
    descriptor of a socket that listens on ``port``. ``env`` is what it gets beside the environment of pytest; what it
    prints goes to ``log``.
    """

    words: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path


@dataclass(frozen=True, slots=True)
class Keep:
    """What the keeper is asked: programs, whether all take from one socket, and how long they may take to end."""

    programs: tuple[Program, ...]
    shares_socket: bool
    stop_ns: int


@dataclass(frozen=True, slots=True)
class Started:
    """All programs run, with these ports by name; since when, on the clock of ``time.perf_counter_ns``."""

    ports: tuple[Mapping[str, int], ...]
    started_ns: int


@dataclass(frozen=True, slots=True)
class NotStarted:
    """A program could not be started at all."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A program has ended by itself."""

    number: int
    code: int

    @property
    def how(self) -> str:
        """In words."""
        return f"signal {signal.Signals(-self.code).name}" if self.code < 0 else f"exit code {self.code}"


@dataclass(frozen=True, slots=True)
class StopAll:
    """End everything."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """All are ended: the names of those that lived on after SIGTERM and were killed, and who lives on even so."""

    killed: tuple[str, ...]
    survivors: tuple[str, ...]


class Kept:
    """Programs that run, as the process that asked for them sees them.

    Args:
        programs: what is started.
        directory: takes what the keeper itself prints.
        shares_socket: all programs get the same listening socket instead of one each.
        stop_ns: how long they may take to end after SIGTERM.
        timeout_ns: how long their start may take, without whatever they do then.

    Raises:
        DeploymentError: a program could not be started; nothing is left running.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        directory: Path,
        *,
        shares_socket: bool = False,
        stop_ns: int = 5 * 10**9,
        timeout_ns: int = 60 * 10**9,
    ) -> None:
        self._programs = tuple(programs)
        self._stop_ns = stop_ns
        self._ended: dict[int, Ended] = {}
        self._child: Child | None = Child(__name__, log=directory / f"keeper-{id(self):x}.log")
        try:
            self._child.send(Keep(self._programs, shares_socket, stop_ns))
            answer: Any = self._child.receive(timeout_ns / 1e9)
        except (ChildError, TimeoutError) as error:
            answer = NotStarted(str(error) or f"it does not run after {format_duration(timeout_ns)}")
        except BaseException:
            self._abandon()
            raise
        if not isinstance(answer, Started):
            self._abandon()
            raise DeploymentError(answer.text)
        self.ports = answer.ports
        self.started_ns = answer.started_ns

    @property
    def pids(self) -> tuple[int, ...]:
        """The programs, and whom they left behind; their children are found below them."""
        if self._child is None:
            return ()
        with contextlib.suppress(psutil.Error):
            return tuple(process.pid for process in psutil.Process(self._child.pid).children())
        return ()

    def family(self) -> tuple[int, ...]:
        """The programs and everything below them."""
        if self._child is None:
            return ()
        with contextlib.suppress(psutil.Error):
            return tuple(process.pid for process in psutil.Process(self._child.pid).children(recursive=True))
        return ()

    def check(self, wait_s: float = 0.0) -> None:
        """Raise where a program has ended, at the latest after waiting so long for that.

        Raises:
            DeploymentError: one has; with its last output.
        """
        if self._child is None:
            return
        try:
            while not self._ended:
                event = self._child.receive(wait_s)
                if not isinstance(event, Ended):
                    raise ChildError("it was told to end")
                self._ended[event.number] = event
        except TimeoutError:
            return
        except ChildError as error:
            raise DeploymentError(f"the process that keeps the servers is gone: {error}") from error
        for number, event in self._ended.items():
            name = self._programs[number].words[0].rpartition("/")[2]
            tail = self._tail_of(number)
            printed = f"; it printed last:\n{tail}" if tail else ", and printed nothing"
            raise DeploymentError(f"{name} ended with {event.how}{printed}")

    def log_tail(self) -> str:
        """What the programs printed last."""
        return "\n".join(filter(None, map(self._tail_of, range(len(self._programs)))))

    def stop(self) -> Stopped:
        """End the programs with all that they started. Safe to call twice.

        Raises:
            DeploymentError: somebody lives on even after SIGKILL.
        """
        if self._child is None:
            return Stopped((), ())
        child, self._child = self._child, None
        answer: Any = None
        try:
            child.send(StopAll())
            while not isinstance(answer, Stopped):
                answer = child.receive(self._stop_ns / 1e9 + _ORPHANS_GRACE_S + _KILL_S + _MARGIN_S)
        except (ChildError, TimeoutError) as error:
            raise DeploymentError(f"the servers may live on: the process that keeps them is gone: {error}") from error
        finally:
            child.stop()
        if answer.survivors:
            raise DeploymentError(f"these live on after SIGKILL: {', '.join(answer.survivors)}")
        return answer

    def _abandon(self) -> None:
        """End what was started by then, where the start has failed already."""
        with contextlib.suppress(DeploymentError):
            self.stop()

    def _tail_of(self, number: int, lines: int = 30) -> str:
        try:
            with self._programs[number].log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def main() -> None:
    """The child process."""
    channel = Channel()
    job: Keep = channel.receive()
    events: queue.SimpleQueue[Ended | StopAll | None] = queue.SimpleQueue()
    is_done = threading.Event()

    def on_close() -> None:  # where it returns, this process has little time left
        events.put(None)
        is_done.wait()

    channel.listen(events.put, on_close)
    signal.signal(signal.SIGTERM, lambda *_: events.put(None))
    _adopt_orphans()
    running: list[subprocess.Popen[bytes]] = []
    try:
        started_ns = time.perf_counter_ns()
        try:
            ports = [*_started(job, running)]
        except OSError as error:
            channel.send(NotStarted(f"{job.programs[len(running)].words[0]} cannot be started: {_why(error)}"))
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
    """The next event; in steps, since a signal that another thread got is handled between them."""
    while True:
        with contextlib.suppress(queue.Empty):
            return events.get(timeout=1.0)


def _started(job: Keep, running: list[subprocess.Popen[bytes]]) -> list[Mapping[str, int]]:
    """Start the programs, and tell their ports; ``running`` has those that were started, also where one was not."""
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
    """A free port for each name; all are held until all are known, so that no two are one."""
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


def _watch(number: int, process: subprocess.Popen[bytes], tell: Callable[[Ended], None]) -> None:
    tell(Ended(number, process.wait()))


def _end(running: Sequence[subprocess.Popen[bytes]], grace_s: float) -> Stopped:
    """End the programs and everything below them, and whoever of their sessions is elsewhere by now."""
    sessions = {process.pid for process in running}
    family = _family(sessions)
    for process in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    grace_s = min(deadline - time.monotonic(), _ORPHANS_GRACE_S)
    _, left = psutil.wait_procs([*{*family, *_family(sessions)}], max(0.0, grace_s))
    killed = [_name(member) for member in left]
    deadline = time.monotonic() + _KILL_S
    while left and time.monotonic() < deadline:
        for member in left:
            with contextlib.suppress(psutil.Error):
                member.kill()
        psutil.wait_procs(left, 0.2)
        left = [member for member in {*left, *_family(sessions)} if _lives(member)]
    return Stopped(tuple(killed), tuple(f"{_name(member)} ({member.pid})" for member in left))


def _family(sessions: set[int]) -> set[psutil.Process]:
    """Everything below this process, and whoever is in one of these sessions."""
    found = set(psutil.Process().children(recursive=True))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid in sessions or os.getsid(process.pid) in sessions:
                found.add(process)
    return {process for process in found if _lives(process)}


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return "a process that is gone by now"


def describe_killed(stopped: Stopped) -> str:
    """``python ×4, worker``: who had to be killed, by name."""
    return ", ".join(f"{name} ×{times}" if times > 1 else name for name, times in Counter(stopped.killed).items())


def _why(error: OSError) -> str:
    missing = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror}{missing}"


def _adopt_orphans() -> None:
    """Linux has it; elsewhere whom a program leaves behind is found by its session alone."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
