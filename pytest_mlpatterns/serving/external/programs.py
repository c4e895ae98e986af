"""Programs of the user's own, started for a test, as the process that asked for them sees them.

:mod:`pytest_mlpatterns.serving.external.supervisor` starts and ends them; the values here cross the pipe to it. This
module must not
know HTTP, nor what the programs are for.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = [
    "KILL_S",
    "ORPHANS_GRACE_S",
    "SOCKET",
    "Ended",
    "NotStarted",
    "Program",
    "Started",
    "StopAll",
    "Stopped",
    "SupervisePrograms",
    "SupervisedPrograms",
    "describe_killed",
]

SOCKET = "{socket}"
"""Stands for the number of an inherited listening socket, as ``{port}`` and ``{NAME_port}`` do for free ports."""
ORPHANS_GRACE_S = 1.0
"""How long those have that a program which is gone has left behind, before they are killed."""
KILL_S = 3.0
"""How long the killing may take."""
_MARGIN_S = 5.0
_TAIL_BYTES = 16_384


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
class SupervisePrograms:
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


class SupervisedPrograms:
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
        self._child: Child | None = Child(
            "pytest_mlpatterns.serving.external.supervisor", log=directory / f"keeper-{id(self):x}.log"
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
                answer = child.receive(self._stop_ns / 1e9 + ORPHANS_GRACE_S + KILL_S + _MARGIN_S)
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


def describe_killed(stopped: Stopped) -> str:
    """``python ×4, worker``: who had to be killed, by name."""
    return ", ".join(f"{name} ×{times}" if times > 1 else name for name, times in Counter(stopped.killed).items())
