"""From what a profiler saw of the processes of a deployment to the time of each stack. Pure.

Of N looks at a process in a time T, one stands for T/N. Looks at threads that serve count so, awake or not; the looks
at another thread share its CPU time (:mod:`pytest_mlpatterns.profiling.threads`). The time for which a thread was ready
and did not run is taken out: it is the machine's. Processes of one role are added.

A profiler that waits for a core itself looks late, and then often in a row: in some blocks it sees too little of the
work, in others too much. Let s be the sampled time of a block and c its CPU time. If a service computes, s/c is
nearly the same in all blocks of a side, so each is scaled to the median of s/c (the ratio estimator of survey sampling;
Cochran, Sampling Techniques, chapter 6). If the service waited for cores, too, both sides are scaled to one median.
If a service mostly waits, its CPU time shows nothing, and nothing is changed.

A profiler that does not pause the process reads a stack from the innermost function outwards. If a function returns
meanwhile, the reading ends there, and the callers are missing. The more often a thread calls and returns, the more
stacks lack them; without those, code that does little else would seem faster, and all other code slower.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import median
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.profiling.frame_names import MODEL, SERVER_LAYER, is_ours, layer_of, role_frame
from pytest_mlpatterns.profiling.recording import RawFrame
from pytest_mlpatterns.profiling.threads import is_idle, is_of_server, is_own, is_torn, serves, without_loops
from pytest_mlpatterns.records.profile import Frame, StackTime
from pytest_mlpatterns.system.monitor import BUSY_SHARE
from pytest_mlpatterns.system.thread_times import ThreadTimes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_mlpatterns.profiling.frame_names import SourceNames
    from pytest_mlpatterns.profiling.recording import RawStack, RawStacks
    from pytest_mlpatterns.records.telemetry import AwaitedTime

__all__ = ["SERVER", "NativeThreads", "SampledStacks", "awaited_stacks", "balanced", "sampled_stacks", "whole_stacks"]

SERVER = "server"
"""Role of a process that has no other."""
_UNKNOWN = ThreadTimes()
_Key = tuple[tuple[Frame, ...], tuple[int, ...]]
_COMPUTES = (0.3, 1.5)
"""Least and largest s/c of a service that computes: the server's native code is in c only, short waits in s only."""
_COMPUTES_ALONE = (0.6, 1.25)
"""The same of one whose waits are so short that both sides can share a median."""
_BUSY = 0.2
"""Wait for cores per CPU time from which a machine is busy."""
_FEWEST = 3
"""Fewest blocks whose median ratio is known well enough to scale by it."""


class NativeThreads(Struct, frozen=True):
    """Threads in which the profiler never saw Python code: those that a library started for itself.

    Attributes:
        busy: process and thread of each that works, compared with the busiest thread of its process.
    """

    cpu_ns: int
    busy: tuple[tuple[int, int], ...]


class SampledStacks(Struct, frozen=True):
    """The stacks of a deployment in one block.

    Attributes:
        stacks: each once; idle ones are left out.
        lost: samples that failed or gave no whole stack.
        cpu_ns: CPU time of all threads of the processes; 0 if the system does not show it.
        ready_ns: how long they were ready and did not run; 0 if the system does not show it.
        native: the threads without Python code; None if they are not known.
    """

    stacks: tuple[StackTime, ...]
    samples: int
    lost: int
    cpu_ns: int = 0
    ready_ns: int = 0
    native: NativeThreads | None = None


def sampled_stacks(recorded: Sequence[RawStacks], roles: Mapping[int, str], names: SourceNames) -> SampledStacks:
    """The time of each stack."""
    ns: defaultdict[_Key, float] = defaultdict(float)
    seen: Counter[_Key] = Counter()
    samples = lost = 0
    for raw in recorded:
        whole = whole_stacks(raw.counts)
        looks = _looks(raw.counts, raw.pid)
        samples += looks + raw.lost
        lost += raw.lost + _looks(raw.counts, raw.pid) - _looks(whole, raw.pid)
        role = role_frame(roles.get(raw.pid, SERVER))
        for stack, count, each_ns in _weighed(raw, whole, raw.duration_ns / max(_looks(whole, raw.pid), 1)):
            key = _named(role, stack, names, is_worker=raw.pid in roles)
            ns[key] += count * each_ns
            seen[key] += count
    times = (StackTime(frames, lines, ns[frames, lines], count) for (frames, lines), count in seen.items())
    threads = [found for raw in recorded for found in raw.threads.values()]
    cpu_ns, ready_ns = sum(one.cpu_ns for one in threads), sum(one.ready_ns for one in threads)
    return SampledStacks(tuple(times), samples, lost, cpu_ns, ready_ns, _native(recorded))


def _native(recorded: Sequence[RawStacks]) -> NativeThreads | None:
    """The threads without Python code; None if the system shows no threads, or the profiler not which one it saw."""
    cpu_ns, busy = 0, []
    for raw in recorded:
        seen = {stack.thread for stack in raw.counts}
        if not raw.threads or raw.pid not in seen:
            return None
        used = {thread: times.cpu_ns for thread, times in raw.threads.items()}
        least = max(BUSY_SHARE * max(used.values()), 1)
        native = used.keys() - seen
        cpu_ns += sum(used[thread] for thread in native)
        busy += [(raw.pid, thread) for thread in native if used[thread] >= least]
    return NativeThreads(cpu_ns, tuple(sorted(busy)))


def awaited_stacks(awaits: Iterable[AwaitedTime], role: str, names: SourceNames) -> Iterator[StackTime]:
    """The waits of coroutines of models as stacks."""
    above = (role_frame(role), Frame(MODEL, owner="model"), Frame("waiting", owner="await"))
    times: defaultdict[_Key, float] = defaultdict(float)
    seen: Counter[_Key] = Counter()
    for one in awaits:
        raw = [RawFrame(it.qualified.rpartition(".")[2], it.file, it.line, it.qualified) for it in one.chain]
        key = (*above, *map(names.frame, raw)), (*(0 for _ in above), *(it.line for it in one.chain))
        times[key] += one.ns
        seen[key] += one.times
    return (StackTime(*key, ns, seen[key]) for key, ns in times.items())


def _weighed(
    raw: RawStacks, whole: Mapping[RawStack, int], look_ns: float
) -> list[tuple[tuple[RawFrame, ...], int, float]]:
    """The stacks that count: frames without the loops at the root, how often they were seen, and the time of a look."""
    found = []
    threads: defaultdict[int, list[tuple[RawStack, int]]] = defaultdict(list)
    for stack, count in whole.items():
        if not is_own(stack):
            threads[stack.thread].append((stack, count))
    for thread, stacks in threads.items():
        times = raw.threads.get(thread, _UNKNOWN)
        seen = [(frames, count) for stack, count in stacks if (frames := without_loops(stack.frames))]
        if serves(stacks[0][0], raw.pid):
            found += _of_serving([one for one in seen if not is_idle(one[0])], times, look_ns)
        else:
            each_ns = times.cpu_ns / sum(count for _, count in stacks)
            found += [(frames, count, each_ns) for frames, count in seen]
    return [one for one in found if one[2] > 0]


def _of_serving(
    seen: Sequence[tuple[tuple[RawFrame, ...], int]], times: ThreadTimes, look_ns: float
) -> list[tuple[tuple[RawFrame, ...], int, float]]:
    """The stacks of a thread that serves, without the time for which it was ready and did not run.

    That time is first the server's; what is left of it is taken from all stacks alike, as far as they are longer than
    the CPU time.
    """
    server_ns = look_ns * sum(count for frames, count in seen if is_of_server(frames))
    all_ns = look_ns * sum(count for _, count in seen)
    of_server_ns = min(times.ready_ns, server_ns)
    left_ns = all_ns - of_server_ns
    of_all_ns = min(times.ready_ns - of_server_ns, max(left_ns - times.cpu_ns, 0)) if times.cpu_ns else 0
    shared = 1 - of_all_ns / left_ns if left_ns else 1
    server = 1 - of_server_ns / server_ns if server_ns else 1
    return [(frames, count, look_ns * shared * (server if is_of_server(frames) else 1)) for frames, count in seen]


def _looks(counts: Mapping[RawStack, int], pid: int) -> int:
    """Successful looks at a process: samples of its main thread, else of the thread that was seen most often."""
    totals: Counter[tuple[bool, int, str]] = Counter()
    for stack, count in counts.items():
        is_main = stack.thread == pid or stack.name == "MainThread"
        totals[is_main, 0 if is_main else stack.thread, "" if is_main else stack.name] += count
    mains = [count for (is_main, _, _), count in totals.items() if is_main]
    return max(mains or totals.values(), default=0)


def _named(role: Frame, stack: tuple[RawFrame, ...], names: SourceNames, *, is_worker: bool) -> _Key:
    """The frames as reports show them, below the role of their process, and the line that each runs.

    In a worker of this package, what runs outside of our functions is the server's.
    """
    frames, lines = [role], [0]
    first = next((number for number, raw in enumerate(stack) if is_ours(raw.file)), None)
    if first is None and is_worker and is_of_server(stack[:1]):
        frames, lines = [role, SERVER_LAYER], [0, 0]
    for raw in stack[first or 0 :]:
        if is_ours(raw.file):
            layer = layer_of(raw)
            if layer is not None and layer not in (frames[-1], _layer_above(frames)):
                frames.append(layer)
                lines.append(0)
            continue
        frame = names.frame(raw)
        if raw.name.startswith("<") and frame == frames[-1]:  # a comprehension is part of its function
            lines[-1] = raw.line
            continue
        frames.append(frame)
        lines.append(raw.line)
    return tuple(frames), tuple(lines)


def _layer_above(frames: Sequence[Frame]) -> Frame | None:
    """The layer that the innermost frame belongs to, if code of others that it calls calls it back."""
    return next((frame for frame in reversed(frames) if frame.owner in ("layer", "model")), None)


def balanced(sides: Sequence[Sequence[SampledStacks]]) -> list[list[SampledStacks]]:
    """The blocks of each side, with the time of their stacks scaled.

    Args:
        sides: a side with fewer than three blocks, or with one without CPU time, is returned as it is.
    """
    ratios = [_ratios(blocks) for blocks in sides]
    usual = [median(found) if found else 0.0 for found in ratios]
    is_busy = any(block.ready_ns > _BUSY * block.cpu_ns for blocks in sides for block in blocks)
    if is_busy and all(_COMPUTES_ALONE[0] <= one <= _COMPUTES_ALONE[1] for one in usual):
        usual = [median([one for found in ratios for one in found])] * len(usual)
    return [
        [_scaled(block, goal / ratio) for block, ratio in zip(blocks, found, strict=True)]
        if _COMPUTES[0] <= goal <= _COMPUTES[1]
        else [*blocks]
        for blocks, found, goal in zip(sides, ratios, usual, strict=True)
    ]


def _ratios(blocks: Sequence[SampledStacks]) -> list[float]:
    """The s/c of each block; empty if they are not known."""
    sampled = [sum(stack.ns for stack in block.stacks) for block in blocks]
    if len(blocks) < _FEWEST or not all(block.cpu_ns for block in blocks) or not all(sampled):
        return []
    return [seen / block.cpu_ns for seen, block in zip(sampled, blocks, strict=True)]


def _scaled(block: SampledStacks, factor: float) -> SampledStacks:
    return replace(block, stacks=tuple(replace(stack, ns=stack.ns * factor) for stack in block.stacks))


_Thread = tuple[int, str]
_Function = tuple[str, str]


def whole_stacks(counts: Mapping[RawStack, int]) -> dict[RawStack, int]:
    """The stacks from the root of their thread on, and how often each was seen.

    A thread has one root. A stack that begins elsewhere gets the callers that its outermost function has most often in
    the others. It is left out if that is in none of them, and so is one with a call that cannot be.
    """
    roots: defaultdict[_Thread, Counter[_Function]] = defaultdict(Counter)
    for stack, count in counts.items():
        if stack.frames:
            roots[_thread(stack)][_function(stack.frames[0])] += count
    usual = {thread: found.most_common(1)[0][0] for thread, found in roots.items()}
    whole: Counter[RawStack] = Counter()
    broken: list[tuple[RawStack, int]] = []
    for stack, count in counts.items():
        if stack.frames and _function(stack.frames[0]) != usual[_thread(stack)]:
            broken.append((stack, count))
        elif not is_torn(stack.frames):
            whole[stack] += count
    callers = _callers(whole) if broken else {}
    for stack, count in broken:
        above = callers.get((_thread(stack), _function(stack.frames[0])))
        if above is None:
            continue
        mended = replace(stack, frames=(*above.most_common(1)[0][0], *stack.frames))
        if not is_torn(mended.frames):
            whole[mended] += count
    return dict(whole)


def _callers(whole: Mapping[RawStack, int]) -> Mapping[tuple[_Thread, _Function], Counter[tuple[RawFrame, ...]]]:
    """For each function of each thread how often it was seen below which callers."""
    found: defaultdict[tuple[_Thread, _Function], Counter[tuple[RawFrame, ...]]] = defaultdict(Counter)
    for stack, count in whole.items():
        for depth, frame in enumerate(stack.frames):
            found[_thread(stack), _function(frame)][stack.frames[:depth]] += count
    return found


def _thread(stack: RawStack) -> _Thread:
    return stack.thread, stack.name


def _function(frame: RawFrame) -> _Function:
    return frame.name, frame.file
