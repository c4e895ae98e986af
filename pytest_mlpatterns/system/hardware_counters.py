"""Instructions of processes by the counters of the processor, which Linux reads with perf_event_open(2).

Most virtual machines have no such counters, most containers forbid the call, and ``kernel.perf_event_paranoid`` above 2
forbids it to all but root. A counter belongs to a thread; the threads and processes that the thread starts later are
counted with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
import sys
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

_CALLS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}
"""Number of the system call perf_event_open by architecture; the C library has no function for it."""
_BYTES = 128  # Size of ``perf_event_attr``, version 7
_ATTRIBUTES = struct.Struct("<IIQQQQQ")  # Its beginning: type, size, config, period, sample type, read format, flags
_TIMES = 0b11  # Read format: also how long the counter was wanted, and how long it ran
_FLAGS = 0b10 | 0b1100000  # Inherit; leave out the kernel and the hypervisor
_CLOSE_ON_EXEC = 8  # ``PERF_FLAG_FD_CLOEXEC``
_VALUE = struct.Struct("<QQQ")


class Event(Struct, frozen=True):
    """What a counter counts, as linux/perf_event.h numbers it."""

    type: int
    config: int


INSTRUCTIONS = Event(0, 1)  # ``PERF_TYPE_HARDWARE``, ``PERF_COUNT_HW_INSTRUCTIONS``


class NoCountersError(OSError):
    """The machine has no counters, or does not let this user read them."""


class HardwareCounters:
    """Counts an event in all threads of some processes, and in those that these start from now on.

    Raises NoCountersError: there is no counter for a thread.
    """

    def __init__(self, pids: Iterable[int], event: Event = INSTRUCTIONS) -> None:
        self._open: list[int] = []
        try:
            for pid in pids:
                for thread in _threads_of(pid):
                    with contextlib.suppress(ProcessLookupError):
                        self._open.append(_opened(thread, event))
            if not self._open:
                raise NoCountersError(errno.ESRCH, "no process runs")
        except BaseException:
            self.close()
            raise

    def read(self) -> int:
        """What was counted since the start, as if each counter had run all the time."""
        return sum(_scaled(*_VALUE.unpack(os.read(one, _VALUE.size))) for one in self._open)

    def close(self) -> None:
        """Release the counters. Safe to call twice."""
        while self._open:
            os.close(self._open.pop())


def why_no_counters() -> str:
    """Why this user reads no instructions of its processes here; empty if it does."""
    try:
        HardwareCounters([os.getpid()]).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _threads_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):  # it has ended
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    return []


def _opened(thread: int, event: Event) -> int:
    """Descriptor of a new counter of one thread."""
    number = _CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        raise NoCountersError(errno.ENOSYS, f"{sys.platform} on {platform.machine()} has no perf_event_open")
    attributes = ctypes.create_string_buffer(
        _ATTRIBUTES.pack(event.type, _BYTES, event.config, 0, 0, _TIMES, _FLAGS), _BYTES
    )
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    opened: int = call(ctypes.c_long(number), attributes, thread, -1, -1, ctypes.c_ulong(_CLOSE_ON_EXEC))
    if opened >= 0:
        return opened
    code = ctypes.get_errno()
    if code == errno.ESRCH:
        raise ProcessLookupError(code, os.strerror(code))
    raise NoCountersError(code, os.strerror(code))


def _scaled(value: int, wanted_ns: int, ran_ns: int) -> int:
    """A count as if its counter had run all the time; counters take turns if there are fewer than are wanted."""
    return value * wanted_ns // ran_ns if ran_ns else value
