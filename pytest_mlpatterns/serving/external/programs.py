"""Programs that are started for a test, and the messages to their supervisor.

:mod:`pytest_mlpatterns.serving.external.supervisor` is the process that starts and ends them.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.records.count import RunUnder
from pytest_mlpatterns.serving.tracebacks import folded, last_traceback
from pytest_mlpatterns.system import orphans
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.log_file import LogFile
from pytest_mlpatterns.units import format_duration

SOCKET = "{socket}"
"""Placeholder for the descriptor of an inherited listening socket; ``{port}`` and ``{NAME_port}`` are free ports."""
_MARGIN_S = 9.0
"""What the supervisor may need beyond the time limit for the end of the programs: for orphans and for the kill."""
_TRACEBACK_S = 1.0  # Time limit for a traceback in the log after a failed request
_DAEMON = " and went on in the background, expected it in the foreground: leave out its option for a daemon"
"""What follows the end of a program that has left a process."""
_LOOK_S = 0.01  # Interval of looks at the logs for a traceback, in seconds


class Program(Struct, frozen=True):
    """One program to start.

    In ``words`` and ``env``, ``{port}`` and ``{NAME_port}`` are replaced by free ports of 127.0.0.1, and ``{socket}``
    by the descriptor of a socket that listens on ``port``.
    """

    words: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    profiled: bool = False
    under: RunUnder | None = None  # what runs it; None: it runs by itself


class SupervisePrograms(Struct, frozen=True):
    """Start programs."""

    programs: tuple[Program, ...]
    shares_socket: bool
    stop_ns: int  # time limit for the end after SIGTERM


class Started(Struct, frozen=True):
    """All programs were started."""

    ports: tuple[Mapping[str, int], ...]
    started_ns: int
    sessions: tuple[int, ...] = ()


class NotStarted(Struct, frozen=True):
    """A program could not be started."""

    text: str


class Ended(Struct, frozen=True):
    """A program has ended by itself."""

    number: int
    code: int  # exit code, or the negative number of a signal

    @property
    def reason(self) -> str:
        """The exit code or signal, in words."""
        return orphans.describe_exit(self.code)


class StopAll(Struct, frozen=True):
    """End all programs."""


class SupervisedPrograms:
    """Handle of running programs."""

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
        self._excused: set[int] = set()
        self._sessions: tuple[int, ...] = ()
        self._child: Child | None = Child(
            "pytest_mlpatterns.serving.external.supervisor", log=directory / f"supervisor-{id(self):x}.log"
        )
        try:
            self._child.send(SupervisePrograms(self._programs, shares_socket, stop_ns))
            answer: Any = self._child.receive(timeout_ns / 1e9)
        except (ChildError, TimeoutError) as error:
            answer = NotStarted(str(error) or f"it does not run after {format_duration(timeout_ns)}")
        except BaseException:
            self._abandon()
            raise
        if not isinstance(answer, Started):
            self._abandon()
            raise DeploymentError(answer.text)
        self._sessions = answer.sessions
        self.ports: tuple[Mapping[str, int], ...] = answer.ports
        self.started_ns: int = answer.started_ns

    @property
    def pids(self) -> tuple[int, ...]:
        """The programs and their orphans, without the children of these processes."""
        return self._descendants(recursive=False)

    def family(self) -> tuple[int, ...]:
        """All processes of the programs, children included."""
        return self._descendants(recursive=True)

    def addresses(self) -> list[Any]:
        """Where these processes listen, each with its ``ip`` and ``port``."""
        family = set(self.family())
        return [one.laddr for one in listeners() if one.pid in family]

    def _descendants(self, *, recursive: bool) -> tuple[int, ...]:
        if self._child is None:
            return ()
        with contextlib.suppress(psutil.Error):
            return tuple(process.pid for process in psutil.Process(self._child.pid).children(recursive=recursive))
        return ()

    def check(self, wait_s: float = 0.0) -> None:
        """Check that all programs run; wait up to ``wait_s`` for one to end."""
        if self._child is None:
            return
        try:
            while self._ended.keys() <= self._excused:
                event = self._child.receive(wait_s)
                if not isinstance(event, Ended):
                    raise ChildError("it was asked to stop")
                self._ended[event.number] = event
        except TimeoutError:
            return
        except ChildError as error:
            raise DeploymentError(f"the process that supervises the servers has ended: {error}") from error
        for number, event in self._ended.items():
            if number in self._excused:
                continue
            name = self._programs[number].words[0].rpartition("/")[2]
            tail = self._tail_of(number)
            output = f"; it printed last:\n{tail}" if tail else "; it printed nothing"
            is_daemon = event.code == 0 and len(self._programs) == 1 and self.pids
            raise DeploymentError(f"{name} ended with {event.reason}{_DAEMON if is_daemon else ''}{output}")

    def excuse(self, pid: int) -> None:
        """The program whose process this is may end from now on; the end of a process that it started is its own."""
        self._excused.update(number for number, session in enumerate(self._sessions) if session == pid)

    def log_tail(self) -> str:
        """Last lines of the programs' output."""
        return "\n".join(filter(None, map(self._tail_of, range(len(self._programs)))))

    def traceback_from_now(self) -> Callable[[], str]:
        """A function that returns the last whole traceback that a program printed since this call.

        It waits up to a second, because a server prints it after its answer, and returns an empty text without one. It
        raises a :class:`DeploymentError` if a program has ended.
        """
        return partial(self._traceback_since, [LogFile(program.log).size for program in self._programs])

    def _traceback_since(self, sizes: Sequence[int]) -> str:
        deadline = time.monotonic() + _TRACEBACK_S
        while True:
            for number, size in enumerate(sizes):
                if found := last_traceback(LogFile(self._programs[number].log).printed_since(size)):
                    return found
            if time.monotonic() >= deadline:
                return ""
            self.check(_LOOK_S)

    def stop(self) -> orphans.Stopped:
        """End the programs and all that they started, also if their supervisor was killed; safe to call twice."""
        if self._child is None:
            return orphans.Stopped()
        child, self._child = self._child, None
        answer: Any = None
        try:
            child.resume()
            child.send(StopAll())
            while not isinstance(answer, orphans.Stopped):
                answer = child.receive(self._stop_ns / 1e9 + _MARGIN_S)
        except (ChildError, TimeoutError):
            answer = None
        finally:
            left = child.stop(sessions=self._sessions, grace_s=self._stop_ns / 1e9)
        stopped: orphans.Stopped = answer or left
        stopped.require_gone()
        return stopped

    def _abandon(self) -> None:
        """End the programs after a failed start."""
        with contextlib.suppress(DeploymentError):
            self.stop()

    def _tail_of(self, number: int) -> str:
        return LogFile(self._programs[number].log).tail(edit=folded)


def listeners() -> list[Any]:
    """All listening TCP sockets of this machine with their process, as far as the system allows."""
    try:
        return [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    except (psutil.Error, OSError):  # macOS allows this to root only
        return []
