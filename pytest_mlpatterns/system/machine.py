"""What the operating system tells of the machine as a whole: how busy it is, and what takes its time away.

Everything is cumulative, so that the difference of two readings is about the time between them. What a system does not
tell is 0. This module must not know deployments.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

__all__ = ["Reading", "read_machine", "throttled_ns"]

_COUNTED = ("user", "nice", "system", "irq", "softirq", "steal", "idle", "iowait")
_FREQUENCIES_READ = 8
"""Of a machine with many cores, some tell enough; each costs a read."""
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_PROCESSORS = Path("/sys/devices/system/cpu")
_THROTTLED = re.compile(r"^throttled_(?:usec (?P<us>\d+)|time (?P<ns>\d+))$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the machine.

    Attributes:
        busy_ns: time that the cores did not idle, added up, steal included.
        steal_ns: time that the host gave to other machines although this one had work to do.
        throttled_ns: time for which a limit of our control group stopped processes in it.
        frequency_hz: mean of the cores' present frequencies.
    """

    busy_ns: int
    steal_ns: int
    throttled_ns: int
    frequency_hz: int


def read_machine() -> Reading:
    """Look once."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    busy = sum(getattr(times, name, 0.0) for name in _COUNTED) - idle
    stat = _throttling_file()
    return Reading(
        busy_ns=round(busy * 1e9),
        steal_ns=round(getattr(times, "steal", 0.0) * 1e9),
        throttled_ns=0 if stat is None else throttled_ns(stat),
        frequency_hz=_frequency_hz(),
    )


def throttled_ns(stat: Path) -> int:
    """What a control group's ``cpu.stat`` says of throttling: microseconds in version 2, nanoseconds in version 1."""
    with contextlib.suppress(OSError):
        if found := _THROTTLED.search(stat.read_text(encoding="ascii")):
            return int(found["us"]) * 1000 if found["us"] else int(found["ns"])
    return 0


@cache
def _throttling_file() -> Path | None:
    """The ``cpu.stat`` of our own control group, as far up as it is visible here."""
    with contextlib.suppress(OSError):
        for line in _OWN_CGROUP.read_text(encoding="ascii").splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            for top in (_CGROUPS / controllers, _CGROUPS / "cpu") if controllers else (_CGROUPS,):
                for folder in (top / place.lstrip("/"), top):
                    if throttling_is_told(folder / "cpu.stat"):
                        return folder / "cpu.stat"
    return None


def throttling_is_told(stat: Path) -> bool:
    """Whether this file exists and speaks of throttling."""
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
