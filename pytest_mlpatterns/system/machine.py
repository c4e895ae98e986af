"""This machine: which one it is, its counters, and how fast it sorts.

The counters are busy time and what takes CPU time away (steal, throttling, frequency). Times are cumulative: the
difference of two readings describes the time between them. A counter that the operating system lacks is 0.

The speed of the machine is the time of one built-in function, so that tracers and coverage of this process add nothing.
Baselines store this time, so another piece of work needs another name. This module must not know what the time is
compared with.
"""

import contextlib
import functools
import platform
import re
from functools import cache
from pathlib import Path
from time import thread_time_ns

import psutil
from msgspec import Struct

from pytest_mlpatterns.system.cgroups import cpu_groups

_COUNTED = ("user", "nice", "system", "irq", "softirq", "steal", "idle", "iowait")
"""Fields of psutil's CPU times whose sum is all time; guests' are part of ``user`` already."""
_FREQUENCIES_READ = 8  # Largest number of cores whose frequency is read; each costs a read of a file
_PROCESSORS = Path("/sys/devices/system/cpu")
_THROTTLED = re.compile(r"^throttled_(?:usec (?P<us>\d+)|time (?P<ns>\d+))$", re.MULTILINE)
_TEXTS = 6_000  # Texts that a round sorts, in 0.7 ms: long beside the clock's step, and short beside a time slice
_ROUNDS = 15  # Rounds of sorting for one value, which take 10 ms together
_FASTER_PART = 5
"""A fifth of the rounds is faster than the one that counts. The slower ones are those that neighbours disturbed: beside
eight busy processes on two cores, this one varied by 1.5 % between processes, the median of a simpler work by 10 %."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Reading(Struct, frozen=True):
    """One reading of the machine's counters, by the names of the columns of ``Usage``."""

    machine_busy_ns: int
    steal_ns: int  # time that the host gave to other machines although this one had work to do
    throttled_ns: int  # time in which the CPU limit of this control group stopped its processes
    frequency_hz: int  # mean of the cores' current frequencies


def read_machine() -> Reading:
    """Read all counters once."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    busy = sum(getattr(times, name, 0.0) for name in _COUNTED) - idle
    stat = _throttling_file()
    return Reading(
        machine_busy_ns=round(busy * 1e9),
        steal_ns=round(getattr(times, "steal", 0.0) * 1e9),
        throttled_ns=0 if stat is None else throttled_ns(stat),
        frequency_hz=_frequency_hz(),
    )


def throttled_ns(stat: Path) -> int:
    """Throttled time in a control group's ``cpu.stat`` (microseconds in version 2, nanoseconds in version 1)."""
    with contextlib.suppress(OSError):
        if found := _THROTTLED.search(stat.read_text(encoding="ascii")):
            return int(found["us"]) * 1000 if found["us"] else int(found["ns"])
    return 0


@cache
def _throttling_file() -> Path | None:
    """The ``cpu.stat`` of this process's control group, or of the outermost one that is visible here."""
    files = (folder / "cpu.stat" for group in cpu_groups() for folder in (group.folder, group.top))
    return next(filter(reports_throttling, files), None)


def reports_throttling(stat: Path) -> bool:
    """Whether this file exists and has a counter of throttled time."""
    with contextlib.suppress(OSError):
        return _THROTTLED.search(stat.read_text(encoding="ascii")) is not None
    return False


@cache
def _frequency_files() -> tuple[Path, ...]:
    return tuple(sorted(_PROCESSORS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))[:_FREQUENCIES_READ])


def _frequency_hz() -> int:
    found = []
    for file in _frequency_files():
        with contextlib.suppress(OSError, ValueError):
            found.append(int(file.read_text(encoding="ascii")) * 1000)
    return sum(found) // len(found) if found else 0


def sorting_time_ns(rounds: int = _ROUNDS) -> float:
    """CPU time of a round, by the lower fifth of some; 0 if the system has no such clock."""
    texts = _texts()
    times = []
    for _ in range(rounds):
        started = thread_time_ns()
        sorted(texts)
        times.append(thread_time_ns() - started)
    return float(sorted(times)[rounds // _FASTER_PART])


@functools.cache
def _texts() -> list[str]:
    """Texts in an order without a pattern."""
    return [str(number * 7919 % 100_003) for number in range(_TEXTS)]


@cache
def machine_identity(boot_id: Path = _BOOT_ID) -> str:
    """The identity of this boot of this machine; on a system without one, its name and the time at which it booted."""
    with contextlib.suppress(OSError):
        if found := boot_id.read_text(encoding="ascii").strip():
            return found
    return f"{platform.node()}-{psutil.boot_time():.0f}"
