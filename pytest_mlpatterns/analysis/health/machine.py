"""What the machine did to a measurement: disturbances, lost speed, too many threads, load of each node.

Every threshold lies well above the readings of an idle machine, since advice that always appears is never read. An
excuse explains at most what it can do: neighbours on x of n cores leave n - x, a host that takes a share s of the time
leaves 1 - s, and so does a limit. No counter inside a machine shows a host that slows everything down. A fixed work
before and after each load does. It varies by 2 %, and shows only these moments. Pure: from sampled resource usage to
sentences. This module must not know where the readings come from, nor limits or verdicts.

Also: ``judging/machine_doubts.py`` applies an excuse, ``judging/dropped_launches.py`` leaves out launches beside
neighbours, and overloads (``analysis/capacity/overload.py``, ``judging/overload_assertions.py``) and profiles
(``profiling/stack_times.py``) have factors of their own.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import fmean

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.records.launch import Busy, Launch, NodeFigures, NodeUsage, Noise, Taken, Usage
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.units import format_percent

OTHERS_CORES = 0.2  # Other processes are reported from this many cores on average; an idle desktop uses 0.05
_OTHERS_RATIO = 0.05  # Share of all cores from which other processes are reported on large machines
_BLOCK_CORES = 0.3  # The same for a block of 0.2 s, in which the system's clock of 10 ms resolves a tenth of a core
_BUSY_CORES = 0.3  # Cores of other processes from which neighbours may take time: as in a block
_BUSY_MACHINE_RATIO = 0.6
"""Share of all cores in use from which neighbours take time that the deployment or the load generator needed."""
_STEAL_RATIO = 0.02  # Share of the time that a host takes from which it is reported: above the rounding of its clock
_THROTTLED_RATIO = 0.01  # Share of the time in a limit of the control group from which it is reported
_MOST_OF_LIMIT = 0.5  # Share of its cores above which a deployment, not the load generator, reaches their limit
_FREQUENCY_RATIO = 1.2  # Ratio of the highest and lowest frequency from which they are reported
_INTERLEAVE = "compare interleaved (--perf-against), where noise slows both sides alike"


class Disturbance(Struct, frozen=True):
    """The disturbances of one window."""

    duration_ns: int  # of the window
    cores: int  # of the machine
    others_cores: float  # cores that processes other than the deployment, the load generator and pytest used on average
    steal_ratio: float  # share of the machine's time that its host gave to other machines
    throttled_ratio: float  # share of the window in which a limit of the control group stopped a process
    frequencies_hz: tuple[int, int]  # lowest and highest frequency of the processor; 0 if unknown
    machine_ratio: float = 0.0  # share of all cores that any process used


def disturbance_of(usage: Usage, window: Window, generator_ns: int) -> Disturbance:
    """The disturbances of a window."""
    gained = partial(_gained, usage, window)
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


def _gained(usage: Usage, window: Window, column: NDArray[np.int64]) -> float:
    """What a cumulative reading gained in a window."""
    first, last = np.interp([window.start_ns, window.end_ns], usage.time_ns, column)
    return float(last - first)


def is_disturbed(usage: Usage | None, generator_ns: int) -> bool:
    """Whether other processes used enough of the machine in a short block to have changed its latency.

    ``usage``: sampled when the block began and when it ended; None if the processes are unknown, and the answer is no.
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
    found = _busiest(seen)
    return None if found is None else str(found)


def busy_on_average(launches: Iterable[Launch]) -> Busy | None:
    """As :func:`why_busy`, on average over all windows: what one of many launches met explains no wide interval."""
    seen = _disturbances(launches)
    return _busiest([_mean_of(seen)]) if seen else None


def _busiest(seen: Sequence[Disturbance]) -> Busy | None:
    """The most that was taken in any of these windows; None if that is nowhere enough to change times."""
    neighbours = [one for one in seen if one.others_cores >= _BUSY_CORES and one.machine_ratio >= _BUSY_MACHINE_RATIO]
    found = Busy(
        max((one.others_cores for one in neighbours), default=0.0),
        max((one.steal_ratio for one in seen if one.steal_ratio >= _STEAL_RATIO), default=0.0),
        max((one.throttled_ratio for one in seen if one.throttled_ratio >= _THROTTLED_RATIO), default=0.0),
        seen[-1].cores if seen else 0,
    )
    return found if found.others_cores or found.steal_ratio or found.throttled_ratio else None


def _mean_of(seen: Sequence[Disturbance]) -> Disturbance:
    """The disturbances of several windows on average, of at least one; the longer ones count more."""
    names = ("others_cores", "steal_ratio", "throttled_ratio", "machine_ratio")
    weights = [one.duration_ns for one in seen]
    means = {name: float(np.average([getattr(one, name) for one in seen], weights=weights)) for name in names}
    return replace(seen[-1], **means)


def taken_in(launches: Iterable[Launch]) -> Taken:
    """What these launches could not have of the machine, on average over their windows; nothing if that is unknown."""
    seen = _disturbances(launches)
    if not seen:
        return Taken()
    mean = _mean_of(seen)
    return Taken(mean.others_cores, min(mean.steal_ratio, 1.0), min(mean.throttled_ratio, 1.0))


def reaches_its_limit(launches: Iterable[Launch]) -> bool:
    """Whether a deployment used most of the cores that it may use, so that a CPU limit stopped it by its own work."""
    seen = [(one.usage, one.window) for one in launches if one.usage is not None]
    used_ns = sum(_gained(usage, window, usage.cpu_ns) for usage, window in seen)
    return used_ns > _MOST_OF_LIMIT * sum(usage.cores * window.duration_ns for usage, window in seen)


def noise_of(launches: Iterable[Launch], *, interleaved: bool = False) -> tuple[Noise, ...]:
    """What disturbed these launches, with advice; empty if nothing exceeded its threshold."""
    seen = _disturbances(launches)
    return tuple(_noise(seen, "" if interleaved else f", or {_INTERLEAVE}")) if seen else ()


def _disturbances(launches: Iterable[Launch]) -> list[Disturbance]:
    return [
        disturbance_of(launch.usage, launch.window, launch.generator.cpu_ns)
        for launch in launches
        if launch.usage is not None and launch.window.duration_ns > 0
    ]


def _noise(seen: list[Disturbance], otherwise: str) -> Iterable[Noise]:
    mean = _mean_of(seen)
    cores, others = mean.cores, mean.others_cores
    if others >= max(OTHERS_CORES, _OTHERS_RATIO * cores):
        what = f"other processes used {others:.1f} of the {cores} cores while this was measured"
        yield Noise(what, f"stop other programs{otherwise}")
    if mean.steal_ratio >= _STEAL_RATIO:
        what = f"the host gave {format_percent(mean.steal_ratio)} of this machine's time to other machines (steal)"
        yield Noise(what, f"use a runner with cores of its own{otherwise}")
    if mean.throttled_ratio >= _THROTTLED_RATIO:
        share = format_percent(mean.throttled_ratio)
        what = f"a CPU limit of the container stopped it for {share} of the time (cgroup throttling)"
        yield Noise(what, "raise the limit, or give the test less load")
    known = [one.frequencies_hz for one in seen if one.frequencies_hz[0]]
    if known:
        low, high = min(low for low, _ in known), max(high for _, high in known)
        if high >= _FREQUENCY_RATIO * low:
            what = f"the processor's frequency went from {low / 1e9:.1f} to {high / 1e9:.1f} GHz"
            yield Noise(what, "set its governor to performance and switch turbo off")


_MOST_CPU = 1.5
"""Times as much CPU time as others make a request need at most: they share caches and the two threads of a core."""
_SHARING = 0.2
"""By how much longer a request takes beside a neighbour that uses a whole core, beyond the core that it takes."""
_SLICES_NS = 8_000_000
"""Time that a request may wait for a core beside such a neighbour: two time slices of Linux, one on each side of a
hop. The slowest requests wait three times as long, and so do they for a host that gives its cores to others."""
_PERIOD_NS = 100_000_000  # Time that a request may wait for the next period of a CPU limit, if it is one of the slowest
SLOWER = 1.06
"""Ratio of the fixed work's times from which the machine counts as slower. The times vary by 2 to 3 % between launches,
three against eight by 2 %. From 1.10, one in a hundred unchanged tests on machines up to twice as slow would fail."""
_SLOWER_MEAN, _FEWEST_MOMENTS = 1.1, 6
"""The same of their mean and its standard error, and its fewest moments: 4 % of idle machines are beyond. Of hosts that
begin to change their speed by 1.4 to 2.2, 2 % are slower than by that and a tenth, and 8 % than by the mean alone."""
_CHANGES_SPEED, _LEAST_SLOW = 1.2, 0.25
"""Times as long as the others a slow moment of the fixed work takes, and the share of such moments from which a host
changes its speed. Other guests disturb one moment in ten, so that 2 % of idle machines look so by twelve moments."""
_FASTER = 0.95
"""Ratio of the fixed work's time to that of the recording below which the machine counts as faster, which would hide a
slower service. A change of 20 % passes the file only below 0.9. With launches that differ by 3 %, twice what was seen,
a machine that stays the same is below in one of fifty runs; such a run takes the time of a settling."""
_MAY_HIDE = 0.9
"""The same ratio less its standard error, below which a change of 20 % may be hidden, on a host that changes its speed
all the time."""
_MIDDLE_HALF = 1.349  # Width of the middle half of a normal distribution, in standard deviations
_LEAST_LEFT = 0.05
"""Share of the machine that is left at least, since counters of 10 ms may report that others used all of it."""


def taken_factor(now: Taken, then: Taken, cores: int) -> float:
    """Times as long a request takes at most because others have more of the machine than before; at least 1.

    ``n/(n-x) · 1/(1-s) · 1/(1-t)`` of now, divided by that of before: with x of n cores used by others, a share s of
    the time stolen and a share t throttled.
    """

    def left(taken: Taken) -> float:
        shares = (1 - taken.others_cores / cores, 1 - taken.steal_ratio, 1 - taken.throttled_ratio)
        free, given, running = (max(share, _LEAST_LEFT) for share in shares)
        return free * given * running

    return max(left(then) / left(now), 1.0)


def sorting_times_ns(launches: Sequence[Launch]) -> tuple[float, ...]:
    """CPU times of the fixed work at all moments of some launches; empty if a launch has none."""
    times = tuple(ns for launch in launches for ns in launch.sorting_ns or (0.0,))
    return times if all(times) else ()


def ratio_of_sorting(now: Sequence[float], then: Sequence[float]) -> float | None:
    """How many times as long the fixed work takes as before, by its lower quartiles; None if one side is not known.

    Other guests of a host make one moment in five take up to a half longer; nothing makes one shorter.
    """
    return _lower_quartile(now) / _lower_quartile(then) if now and then else None


def ratio_of_means(now: Sequence[float], then: Sequence[float]) -> float | None:
    """The same ratio by the means, as a host that changes its speed all the time slows a service down.

    It suits a comparison that the recorded code settles: it explains more, and hides no change of the code. On a host
    whose cores change between two speeds, 1 and 1.6, ratios of the medians of eight launches scatter by 16 %, of the
    means by 10 %.
    """
    return fmean(now) / fmean(then) if now and then else None


def least_ratio_of_means(now: Sequence[float], then: Sequence[float]) -> float | None:
    """The ratio of the means, less its standard error, which one disturbed moment in five hardly changes.

    On a host that changes its speed all the time, two moments do not show that it became faster.
    """
    ratio = ratio_of_means(now, then)
    if ratio is None:
        return None
    low, high = np.log(np.percentile(then, (25, 75)))
    return ratio * math.exp(-(high - low) / _MIDDLE_HALF * math.sqrt(1 / len(now) + 1 / len(then)))


def slower_by(now: Sequence[float], then: Sequence[float]) -> float:
    """How many times as long the fixed work takes as before, at most; 0 if it is not known.

    Its quiet moments tell that, or the mean of many. A host that changes its speed may be as slow during the whole load
    as in its slow moments; the slowest one may be disturbed besides.
    """
    lowest, most = ratio_of_sorting(now, then), ratio_of_means(now, then)
    if lowest is None or most is None:
        return 0.0
    if len(now) < _FEWEST_MOMENTS:
        return lowest
    slow = sorted(ns for ns in now if ns >= _CHANGES_SPEED * _lower_quartile(now))
    if len(slow) >= max(2.0, _LEAST_SLOW * len(now)):
        return slow[-2] / _lower_quartile(then)
    most *= math.exp(float(np.std(np.log(now), ddof=1)) / math.sqrt(len(now)))  # the mean of few moments has an error
    return max(lowest, most) if most >= _SLOWER_MEAN else lowest


def may_be_faster(now: Sequence[float], then: Sequence[float]) -> bool:
    """Whether the machine is faster than before, or may be by as much as hides a slower service; False if not known."""
    ratio, least = ratio_of_sorting(now, then), least_ratio_of_means(now, then)
    return ratio is not None and least is not None and (ratio < _FASTER or least < _MAY_HIDE)


class Excuse(Struct, frozen=True):
    """What of the machine makes requests slower than they were at the recording, and by how much at most."""

    why: str  # in words
    times: float  # times as long as a request takes
    cpu_times: float  # times as much CPU time as it needs
    waits_ns: float = 0.0  # time that it waits for a core besides
    tail_waits_ns: float = 0.0  # the same of the slowest requests


def taken_excuse(launches: Sequence[Launch], then: Taken) -> Excuse | None:
    """What others took of the machine on average, beyond what they took at the recording; None if it is too little.

    Neighbours share caches and time slices besides, in proportion to the part of a core that they use more than then.
    CPU time beside neighbours differs from minute to minute by as much, although they use as many cores. A process that
    a limit stops uses none; only its caches are others' meanwhile. Neighbours on a machine with idle cores take
    nothing, also where the host or a limit does.
    """
    busy = busy_on_average(launches)
    if busy is None:
        return None
    now = taken_in(launches)
    further = now.others_cores - then.others_cores
    if not busy.others_cores or further < OTHERS_CORES:  # close to all cores, n/(n-x) would make much of what is none
        further, now = 0.0, replace(now, others_cores=then.others_cores)
    further = min(further, 1.0)
    sharing = 1 + _SHARING * further
    times = taken_factor(now, then, busy.cores) * sharing
    running = taken_factor(replace(now, throttled_ratio=then.throttled_ratio), then, busy.cores) * sharing
    shared = min(max(busy.others_cores, busy.throttled_ratio), 1.0)
    cpu_times = min(max(running, 1 + _SHARING * shared), _MOST_CPU)
    is_stolen = now.steal_ratio - then.steal_ratio >= _STEAL_RATIO
    is_stopped = now.throttled_ratio - then.throttled_ratio >= _THROTTLED_RATIO
    tail_waits_ns = 3 * _SLICES_NS * max(further, is_stolen) + _PERIOD_NS * is_stopped
    return Excuse(str(busy), times, cpu_times, further * _SLICES_NS, tail_waits_ns)


def speed_excuse(launches: Sequence[Launch], then_ns: Sequence[float]) -> Excuse | None:
    """That a fixed work takes longer than at the recording; None if it does not, or if that is not known."""
    ratio = ratio_of_means(sorting_times_ns(launches), then_ns)
    if ratio is None or ratio < SLOWER:
        return None
    return Excuse(f"a fixed workload takes {ratio:.2f} times as long", ratio, ratio)


def slower_excuse(launches: Sequence[Launch], then_ns: Sequence[float]) -> Excuse | None:
    """That the machine is slower, by as much as a fixed work may show; None as above."""
    times = slower_by(sorting_times_ns(launches), then_ns)
    why = f"this machine takes up to {times:.2f} times as long for the same work as when the baseline was recorded"
    return Excuse(f"{why}, which explains it", times, times) if times >= SLOWER else None


def hiding_speed(launches: Sequence[Launch], then_ns: Sequence[float]) -> Excuse | None:
    """That a fixed work takes less time than at the recording, which hides a slower service; None as above."""
    ratio = ratio_of_sorting(sorting_times_ns(launches), then_ns)
    if ratio is None or ratio >= _FASTER:
        return None
    return Excuse(f"a fixed workload takes {ratio:.2f} times as long, which hides a slower service", ratio, ratio)


def _lower_quartile(values: Sequence[float]) -> float:
    """The second smallest of eight, and the smallest of up to four."""
    return sorted(values)[(len(values) - 1) // 4]


_FULL_RATIO = 0.8
"""Share of its cores that a deployment uses when its threads wait for each other; below it they find idle cores."""


def crowding_note(launches: Sequence[Launch]) -> str | None:
    """Advice if replicas × threads exceed the cores and all are busy, by the last known launch of a test; else None."""
    known = [launch for launch in launches if launch.usage is not None and launch.usage.busy_threads]
    if not known:
        return None
    usage, window = known[-1].usage, known[-1].window
    assert usage is not None
    threads = sum(usage.busy_threads)
    used_ns = _gained(usage, window, usage.cpu_ns)
    if threads <= max(1, usage.cores) or used_ns < _FULL_RATIO * usage.cores * window.duration_ns:
        return None
    processes = len(usage.busy_threads)
    who = "1 process" if processes == 1 else f"{processes} processes"
    cores = "the 1 core" if usage.cores == 1 else f"the {usage.cores:g} cores"
    each = max(1, int(usage.cores / processes))
    fewer = f'give the pattern env={{"OMP_NUM_THREADS": "{each}"}} or fewer replicas'
    advice = "use fewer replicas" if threads == processes else fewer
    return (
        f"{threads} busy threads of {who} share {cores} that the deployment has, and wait for each other: "
        f"{advice}, or give it more cores"
    )


def node_figures(launches: Iterable[Launch]) -> tuple[NodeFigures, ...]:
    """The figures of every node that had replicas in a launch, by name; empty without a cluster.

    A share is the time used in all windows in which the node had replicas, over the core time of these windows.
    """
    found: dict[str, list[tuple[Usage, NodeUsage, Window]]] = {}
    for launch in launches:
        if launch.usage is not None and launch.window.duration_ns > 0:
            for node in launch.usage.nodes:
                found.setdefault(node.node, []).append((launch.usage, node, launch.window))
    return tuple(_figures(found[name]) for name in sorted(found))


def _figures(parts: Sequence[tuple[Usage, NodeUsage, Window]]) -> NodeFigures:
    used_ns = serve_ns = core_ns = 0.0
    peaks = []
    for usage, node, window in parts:
        used_ns += _gained(usage, window, node.cpu_ns)
        serve_ns += _gained(usage, window, node.serve_cpu_ns)
        core_ns += node.cores * window.duration_ns
        inside = (usage.time_ns >= window.start_ns) & (usage.time_ns <= window.end_ns)
        peaks.append(int((node.rss_bytes[inside] if inside.any() else node.rss_bytes).max()))
    last = parts[-1][1]
    return NodeFigures(last.node, last.cores, last.replicas, used_ns / core_ns, max(peaks), serve_ns / core_ns)
