"""What counts the work of processes, and the first that does: the counters of the processor, by perf_event_open(2).

Most virtual machines have no such counters, most containers forbid the call, and ``kernel.perf_event_paranoid`` above 2
forbids it to all but root. A counter belongs to a thread, with the threads and processes that this one starts later.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import time
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from pytest_mlpatterns.errors import CountError
from pytest_mlpatterns.records.count import Means, RunUnder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CALLS = {"x86_64": 298, "aarch64": 241}  # Number of the system call, for which the C library has no function
_EVENT = (0, 1)  # ``PERF_TYPE_HARDWARE`` and ``PERF_COUNT_HW_INSTRUCTIONS`` of linux/perf_event.h
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
    """Counts what processes do. Its methods raise CountError if they cannot be counted.

    Attributes:
        means: its kind, if it counts instructions.
        tool: its name, for reports.
        under: how the processes are run.
    """

    means: Means = "hardware"
    tool: str = "the counters of the processor"
    under: RunUnder = RunUnder()

    def begin(self, pids: Sequence[int], deadline: float) -> None:
        """Count these processes, and those that they start. ``deadline``: on the clock of ``time.monotonic``."""
        return

    def read(self, deadline: float) -> Reading:
        """What was done since the last look."""
        ...

    def refusal(self) -> str:
        """Why a process cannot be run under it; empty if nothing is known."""
        return ""

    def close(self) -> None:
        """Release what it holds. Safe to call twice."""
        return


class HardwareCounters(WorkCounter):
    """Counts the instructions of all threads of processes, without those of the kernel."""

    def __init__(self) -> None:
        self._open: list[int] = []
        self._last = 0

    def begin(self, pids: Sequence[int], deadline: float) -> None:
        """Count from now on."""
        for pid in pids:
            threads: list[str] = []
            with contextlib.suppress(OSError):  # it has ended
                threads = os.listdir(f"/proc/{pid}/task")
            for thread in threads:
                try:
                    self._open.append(_opened(int(thread)))
                except ProcessLookupError:
                    continue
                except OSError as error:
                    raise CountError(f"{self.tool} cannot be read: {error.strerror}") from error

    def read(self, deadline: float) -> Reading:
        """What was done since the last look; a counter that took turns with others counts as if it always ran."""
        values = [_VALUE.unpack(os.read(one, _VALUE.size)) for one in self._open]
        before, self._last = self._last, sum(value * wanted // max(ran, 1) for value, wanted, ran in values)
        return Reading(self._last - before, at=time.monotonic())

    def close(self) -> None:
        """Close the counters."""
        while self._open:
            os.close(self._open.pop())


def why_no_counters() -> str:
    """Why this user cannot count the instructions of its processes by the processor; empty if it can."""
    with contextlib.closing(HardwareCounters()) as counters:
        try:
            counters.begin([os.getpid()], 0.0)
        except CountError as error:
            return str(error)
    return "" if os.path.isdir("/proc/self/task") else f"{platform.system()} has none that a program can read"


def _opened(thread: int) -> int:
    """Descriptor of a new counter of one thread."""
    kind, config = _EVENT
    head = _ATTRIBUTES.pack(kind, _BYTES, config, 0, 0, _TIMES, _FLAGS)
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    number = ctypes.c_long(_CALLS.get(platform.machine(), -1))  # there is no such call elsewhere
    attributes = ctypes.create_string_buffer(head, _BYTES)
    opened: int = call(number, attributes, thread, -1, -1, ctypes.c_ulong(_CLOSE_ON_EXEC))
    if opened < 0:
        raise OSError(code := ctypes.get_errno(), os.strerror(code))
    return opened
