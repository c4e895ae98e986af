"""What disturbed the machine during a measurement, as sentences with advice.

Pure: from the resource usage sampled during launches to sentences. It must not know where the readings come from, nor
limits. Every threshold lies well above the readings of an idle machine, since advice that always appears is never read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.records.launch import Taken
from pytest_mlpatterns.units import format_percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.records.launch import Launch, Usage
    from pytest_mlpatterns.records.samples import Window

__all__ = [
    "Disturbance",
    "disturbance_of",
    "is_disturbed",
    "noise_sentences",
    "taken_in",
    "why_busy",
    "why_busy_in",
]

OTHERS_CORES = 0.2
"""Other processes are reported from this many cores on average; an idle desktop uses 0.05."""
_OTHERS_RATIO = 0.05
_BLOCK_CORES = 0.3
"""The same for a block of 0.2 s, in which the system's clock of 10 ms resolves a tenth of a core."""
_BUSY_CORES = 0.3
_BUSY_MACHINE_RATIO = 0.6
"""Share of all cores in use from which neighbours take time that the deployment or the load generator needed."""
_STEAL_RATIO = 0.02
_THROTTLED_RATIO = 0.01
_FREQUENCY_RATIO = 1.2
_INTERLEAVE = "compare interleaved (--perf-against), where noise slows both sides alike"


@dataclass(frozen=True, slots=True)
class Disturbance:
    """The disturbances of one window.

    Attributes:
        duration_ns: of the window.
        cores: of the machine.
        others_cores: cores that processes other than the deployment, the load generator and pytest used on average.
        steal_ratio: share of the machine's time that its host gave to other machines.
        throttled_ratio: share of the window in which a limit of the control group stopped a process.
        frequencies_hz: lowest and highest frequency of the processor; 0 if unknown.
        machine_ratio: share of all cores that any process used.
    """

    duration_ns: int
    cores: int
    others_cores: float
    steal_ratio: float
    throttled_ratio: float
    frequencies_hz: tuple[int, int]
    machine_ratio: float = 0.0


def disturbance_of(usage: Usage, window: Window, generator_ns: int) -> Disturbance:
    """The disturbances of a window.

    Args:
        usage: sampled in it, and around it.
        window: the measured stretch of time.
        generator_ns: CPU time that the load generator used in it.
    """
    edges = np.array([window.start_ns, window.end_ns], dtype=np.float64)

    def gained(column: Iterable[int]) -> float:
        first, last = np.interp(edges, usage.time_ns, np.asarray(column))
        return float(last - first)

    duration = window.duration_ns
    others_ns = gained(usage.others_ns) - _generator_ns(usage, generator_ns)
    inside = (usage.time_ns >= window.start_ns) & (usage.time_ns <= window.end_ns) & (usage.frequency_hz > 0)
    frequencies = usage.frequency_hz[inside]
    return Disturbance(
        duration_ns=duration,
        cores=usage.machine_cores,
        others_cores=min(max(0.0, others_ns / duration), usage.machine_cores),  # ticks of 10 ms in a short window
        steal_ratio=gained(usage.steal_ns) / (duration * usage.machine_cores),
        throttled_ratio=gained(usage.throttled_ns) / duration,
        frequencies_hz=(int(frequencies.min()), int(frequencies.max())) if frequencies.size else (0, 0),
        machine_ratio=gained(usage.machine_busy_ns) / (duration * usage.machine_cores),
    )


def is_disturbed(usage: Usage | None, generator_ns: int) -> bool:
    """Whether other processes used so much of the machine in a short block that they may have changed its latency.

    Args:
        usage: sampled when the block began and when it ended; None if the processes are unknown, and the answer is no.
        generator_ns: CPU time that the load generator used in it.
    """
    if usage is None:
        return False
    duration = int(usage.time_ns[-1] - usage.time_ns[0])
    others = int(usage.others_ns[-1] - usage.others_ns[0]) + int(usage.steal_ns[-1] - usage.steal_ns[0])
    return others - _generator_ns(usage, generator_ns) > _BLOCK_CORES * duration


def _generator_ns(usage: Usage, generator_ns: int) -> int:
    """The part of the load generator's CPU time that is in ``usage.others_ns``."""
    return 0 if usage.without_generator else generator_ns


def why_busy(launches: Iterable[Launch]) -> str | None:
    """What took time that the deployment or the load generator needed, ``other processes used 1.1 of the 2 cores``.

    None if nothing did. Neighbours on a machine with idle cores left do not count.
    """
    return why_busy_in(_disturbances(launches))


def why_busy_in(seen: Sequence[Disturbance]) -> str | None:
    """As :func:`why_busy`, of the disturbances of any windows."""
    busy = [one for one in seen if one.others_cores >= _BUSY_CORES and one.machine_ratio >= _BUSY_MACHINE_RATIO]
    if busy:
        most = max(busy, key=lambda one: one.others_cores)
        return f"other processes used {most.others_cores:.1f} of the {most.cores} cores"
    if stolen := max((one.steal_ratio for one in seen if one.steal_ratio >= _STEAL_RATIO), default=0.0):
        return f"the host gave {format_percent(stolen)} of this machine's time to other machines"
    if throttled := max((one.throttled_ratio for one in seen if one.throttled_ratio >= _THROTTLED_RATIO), default=0.0):
        return f"a CPU limit of the container stopped it for {format_percent(throttled)} of the time"
    return None


def taken_in(launches: Iterable[Launch]) -> Taken:
    """What these launches could not have of the machine, on average over their windows; nothing if that is unknown."""
    seen = _disturbances(launches)
    if not seen:
        return Taken()
    weights = [one.duration_ns for one in seen]
    shares = [(one.others_cores, one.steal_ratio, one.throttled_ratio) for one in seen]
    others, steal, throttled = (float(share) for share in np.average(shares, axis=0, weights=weights))
    return Taken(others, min(steal, 1.0), min(throttled, 1.0))


def noise_sentences(launches: Iterable[Launch], *, interleaved: bool = False) -> tuple[str, ...]:
    """What disturbed these launches, a sentence with advice each; empty if nothing exceeded its threshold.

    Args:
        launches: of one test.
        interleaved: whether they were compared interleaved already, which is then not advised.
    """
    seen = _disturbances(launches)
    return tuple(_sentences(seen, "" if interleaved else f", or {_INTERLEAVE}")) if seen else ()


def _disturbances(launches: Iterable[Launch]) -> list[Disturbance]:
    return [
        disturbance_of(launch.usage, launch.window, launch.generator.cpu_ns)
        for launch in launches
        if launch.usage is not None and launch.window.duration_ns > 0
    ]


def _sentences(seen: list[Disturbance], otherwise: str) -> Iterable[str]:
    weights = [one.duration_ns for one in seen]

    def mean(values: Iterable[float]) -> float:
        return float(np.average(list(values), weights=weights))

    cores = seen[-1].cores
    others = mean(one.others_cores for one in seen)
    if others >= max(OTHERS_CORES, _OTHERS_RATIO * cores):
        yield (
            f"other processes used {others:.1f} of the {cores} cores while this was measured: "
            f"stop other programs{otherwise}"
        )
    steal = mean(one.steal_ratio for one in seen)
    if steal >= _STEAL_RATIO:
        yield (
            f"the host gave {format_percent(steal)} of this machine's time to other machines (steal): "
            f"use a runner with cores of its own{otherwise}"
        )
    throttled = mean(one.throttled_ratio for one in seen)
    if throttled >= _THROTTLED_RATIO:
        yield (
            f"a CPU limit of the container stopped it for {format_percent(throttled)} of the time (cgroup throttling): "
            "raise the limit, or give the test less load"
        )
    known = [one.frequencies_hz for one in seen if one.frequencies_hz[0]]
    if known:
        low, high = min(low for low, _ in known), max(high for _, high in known)
        if high >= _FREQUENCY_RATIO * low:
            yield (
                f"the processor's frequency went from {low / 1e9:.1f} to {high / 1e9:.1f} GHz: "
                "set its governor to performance and switch turbo off"
            )
