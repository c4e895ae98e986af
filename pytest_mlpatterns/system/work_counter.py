"""What counts the work of processes, and the first that does: the counters of the processor, by perf_event_open(2).

Most virtual machines have no such counters, most containers forbid the call, and ``kernel.perf_event_paranoid`` above 2
forbids it to all but root. A counter belongs to a thread; the threads and processes that the thread starts later are
counted with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import platform
import struct
import sys
import time
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from pytest_mlpatterns.errors import CountError
from pytest_mlpatterns.records.count import Means, RunUnder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CALLS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}
"""Number of the system call perf_event_open by architecture; the C library has no function for it."""
_BYTES = 128  # Size of ``perf_event_attr``, version 7
_ATTRIBUTES = struct.Struct("<IIQQQQQ")  # Its beginning: type, size, config, period, sample type, read format, flags
_TIMES = 0b11  # Read format: also how long the counter was wanted, and how long it ran
_FLAGS = 0b10 | 0b1100000  # Inherit; leave out the kernel and the hypervisor
_CLOSE_ON_EXEC = 8  # ``PERF_FLAG_FD_CLOEXEC``
_VALUE = struct.Struct("<QQQ")


class Reading(Struct, frozen=True):
    """What processes did since the last look."""

    total: int
    functions: Mapping[tuple[str, str], int] = {}  # the same by library and function; empty if not known
    at: float = 0.0  # when it was read, on the clock of ``time.monotonic``


class WorkCounter(Protocol):
    """Counts what the processes of a deployment do; deadlines are on the clock of ``time.monotonic``.

    Attributes:
        means: its kind, if it counts instructions.
        tool: its name, for reports.
        under: how the processes are run.
    """

    means: Means = "hardware"
    tool: str = ""
    under: RunUnder = RunUnder()

    def begin(self, pids: Sequence[int], deadline: float) -> None:
        """Count these processes, and those that they start, from now on.

        Raises:
            CountError: they cannot be counted.
        """
        return

    def read(self, deadline: float) -> Reading:
        """What was done since the last look.

        Raises:
            CountError: the processes do not answer.
        """
        ...

    def refusal(self) -> str:
        """Why a process cannot be run under it; empty if nothing is known."""
        return ""

    def close(self) -> None:
        """Release what it holds. Safe to call twice."""
        return


class Event(Struct, frozen=True):
    """What a counter counts, as linux/perf_event.h numbers it."""

    type: int
    config: int


_INSTRUCTIONS = Event(0, 1)  # ``PERF_TYPE_HARDWARE``, ``PERF_COUNT_HW_INSTRUCTIONS``


class HardwareCounters(WorkCounter):
    """Counts an event in all threads of processes, instructions by default."""

    tool = "the counters of the processor"

    def __init__(self, event: Event = _INSTRUCTIONS) -> None:
        self._event = event
        self._open: list[int] = []
        self._last = 0

    def begin(self, pids: Sequence[int], deadline: float) -> None:
        """Count from now on."""
        try:
            for thread in itertools.chain.from_iterable(map(_threads_of, pids)):
                with contextlib.suppress(ProcessLookupError):
                    self._open.append(_opened(thread, self._event))
        except OSError as error:
            raise CountError(f"{self.tool} cannot be read: {error.strerror}") from error

    def read(self, deadline: float) -> Reading:
        """What was done since the last look."""
        before, self._last = self._last, sum(_scaled(*_VALUE.unpack(os.read(one, _VALUE.size))) for one in self._open)
        return Reading(self._last - before, at=time.monotonic())

    def close(self) -> None:
        """Close the counters."""
        while self._open:
            os.close(self._open.pop())


def why_no_counters() -> str:
    """Why this user cannot count the instructions of its processes by the processor; empty if it can."""
    counters = HardwareCounters()
    try:
        counters.begin([os.getpid()], 0.0)
    except CountError as error:
        return str(error)
    finally:
        counters.close()
    return ""


def _threads_of(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:  # it has ended
        return []


def _opened(thread: int, event: Event) -> int:
    """Descriptor of a new counter of one thread."""
    number = _CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        raise OSError(errno.ENOSYS, f"{sys.platform} on {platform.machine()} has no perf_event_open")
    head = _ATTRIBUTES.pack(event.type, _BYTES, event.config, 0, 0, _TIMES, _FLAGS)
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    attributes = ctypes.create_string_buffer(head, _BYTES)
    opened: int = call(ctypes.c_long(number), attributes, thread, -1, -1, ctypes.c_ulong(_CLOSE_ON_EXEC))
    if opened < 0:
        raise OSError(code := ctypes.get_errno(), os.strerror(code))
    return opened


def _scaled(value: int, wanted_ns: int, ran_ns: int) -> int:
    """A count as if its counter had run all the time; counters take turns if there are fewer than are wanted."""
    return value * wanted_ns // ran_ns if ran_ns else value
