"""What a sampling profiler does for a measurement: it starts for a process, and returns the stacks that it saw.

A new profiler is a module that fulfils :class:`Profiler`. This module must not know how stacks are named or compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.system.thread_times import ThreadTimes

__all__ = ["Profiler", "RawFrame", "RawStack", "RawStacks", "Recording"]


class RawFrame(Struct, frozen=True):
    """One level of a stack as the profiler prints it.

    Attributes:
        name: ``co_name`` of the code, such as ``predict`` or ``<listcomp>``.
        file: full path, or a name such as ``<string>``; empty for native code.
        line: line that runs, from 1; 0 if unknown.
        qualified: ``co_qualname`` of the code, such as ``Digits.predict``; empty if the profiler does not read it.
    """

    name: str
    file: str
    line: int
    qualified: str = ""


class RawStack(Struct, frozen=True):
    """A stack of one thread.

    Attributes:
        thread: id of the thread, as the system knows it; 0 if unknown.
    """

    thread: int
    name: str
    frames: tuple[RawFrame, ...]


class RawStacks(Struct, frozen=True):
    """What a profiler saw of one process.

    Attributes:
        counts: how often it saw each stack, idle threads included.
        threads: times of each thread meanwhile, by its id; empty if the system does not show them.
    """

    pid: int
    duration_ns: int
    counts: Mapping[RawStack, int]
    lost: int = 0
    threads: Mapping[int, ThreadTimes] = {}


class Recording(Protocol):
    """A profiler that looks at one process."""

    def await_start(self) -> None:
        """Wait until it looks.

        Raises:
            ProfilerError: it cannot read the process, or does not start.
        """

    def request_stop(self) -> None:
        """Ask it to end, without waiting."""

    def stop(self) -> RawStacks:
        """What it saw, after it has ended.

        Raises:
            ProfilerError: it ended before, or gave nothing that can be read.
        """
        ...

    def abandon(self) -> None:
        """End it at once. Safe to call at any time, and twice."""


class Profiler(Protocol):
    """Reads processes of the same user from outside, without changing them."""

    name: str

    def start(self, pid: int, rate_hz: int) -> Recording:
        """Begin to look at a process, without waiting until it does.

        Raises:
            ProfilerError: it cannot be started.
        """
        ...
