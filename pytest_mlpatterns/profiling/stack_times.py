"""From what a profiler saw of the processes of a deployment to the time of each stack. Pure.

Of N looks at a process in a time T, one stands for T/N. Looks at threads that serve count so, awake or not; the looks
at another thread share its CPU time (:mod:`pytest_mlpatterns.profiling.threads`). From where a thread wakes others, the
time for which it was ready and did not run is taken out. Processes of one role are added.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.profiling.layers import is_ours, layer_of, role_frame
from pytest_mlpatterns.profiling.threads import is_idle, is_own, serves, wakes, without_loops
from pytest_mlpatterns.records.profile import StackTime
from pytest_mlpatterns.system.thread_times import ThreadTimes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.profiling.recording import RawFrame, RawStack, RawStacks
    from pytest_mlpatterns.profiling.source_names import SourceNames
    from pytest_mlpatterns.records.profile import Frame

__all__ = ["SampledStacks", "sampled_stacks"]

_UNKNOWN = ThreadTimes()
_Key = tuple[tuple["Frame", ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class SampledStacks:
    """The stacks of a deployment in one block.

    Attributes:
        stacks: each once; idle ones are left out.
        samples: looks at processes.
        lost: of those, looks that failed or gave no whole stack.
    """

    stacks: tuple[StackTime, ...]
    samples: int
    lost: int


def sampled_stacks(recorded: Sequence[RawStacks], roles: Mapping[int, str], names: SourceNames) -> SampledStacks:
    """The time of each stack.

    Args:
        recorded: one for each process.
        roles: of the processes, by their ids.
        names: names the functions.
    """
    ns: defaultdict[_Key, float] = defaultdict(float)
    seen: Counter[_Key] = Counter()
    samples = lost = 0
    for raw in recorded:
        whole = _whole_stacks(raw.counts)
        looks = _looks(raw.counts, raw.pid)
        samples += looks + raw.lost
        lost += raw.lost + _looks(raw.counts, raw.pid) - _looks(whole, raw.pid)
        role = role_frame(roles.get(raw.pid, "server"))
        for stack, count, each_ns in _weighed(raw, whole, raw.duration_ns / max(_looks(whole, raw.pid), 1)):
            key = _named(role, stack, names)
            ns[key] += count * each_ns
            seen[key] += count
    times = (StackTime(frames, lines, ns[frames, lines], count) for (frames, lines), count in seen.items())
    return SampledStacks(tuple(times), samples, lost)


def _weighed(
    raw: RawStacks, whole: Mapping[RawStack, int], look_ns: float
) -> list[tuple[tuple[RawFrame, ...], int, float]]:
    """The stacks that count: frames without the loops at the root, how often they were seen, and the time of a look."""
    totals: Counter[int] = Counter()
    for stack, count in whole.items():
        totals[stack.thread] += count
    ran = _share_that_ran(raw, whole, look_ns)
    found = []
    for stack, count in whole.items():
        frames = without_loops(stack.frames)
        if is_own(stack) or not frames:
            continue
        if not serves(stack, raw.pid):
            found.append((frames, count, _times_of(raw, stack).cpu_ns / totals[stack.thread]))
        elif not is_idle(frames):
            found.append((frames, count, look_ns * (ran[stack.thread] if wakes(frames) else 1)))
    return [one for one in found if one[2] > 0]


def _share_that_ran(raw: RawStacks, whole: Mapping[RawStack, int], look_ns: float) -> dict[int, float]:
    """Of the time at the places where each thread wakes others, the share in which it did not wait for a core."""
    waking: Counter[int] = Counter()
    ready_ns: dict[int, int] = {}
    for stack, count in whole.items():
        frames = without_loops(stack.frames)
        waking[stack.thread] += count if frames and wakes(frames) else 0
        ready_ns[stack.thread] = _times_of(raw, stack).ready_ns
    return {thread: max(1 - ready_ns[thread] / max(n * look_ns, 1), 0) if n else 1 for thread, n in waking.items()}


def _times_of(raw: RawStacks, stack: RawStack) -> ThreadTimes:
    return raw.threads.get(stack.thread, _UNKNOWN)


def _looks(counts: Mapping[RawStack, int], pid: int) -> int:
    """Successful looks at a process: samples of its main thread, else of the thread that was seen most often."""
    totals: Counter[tuple[bool, int, str]] = Counter()
    for stack, count in counts.items():
        is_main = stack.thread == pid or stack.name == "MainThread"
        totals[is_main, 0 if is_main else stack.thread, "" if is_main else stack.name] += count
    mains = [count for (is_main, _, _), count in totals.items() if is_main]
    return max(mains or totals.values(), default=0)


def _whole_stacks(counts: Mapping[RawStack, int]) -> dict[RawStack, int]:
    """The stacks without broken ones: a thread has one root, so one that begins elsewhere was read while it changed."""
    roots: defaultdict[tuple[int, str], Counter[tuple[str, str]]] = defaultdict(Counter)
    for stack, count in counts.items():
        if stack.frames:
            roots[stack.thread, stack.name][stack.frames[0].name, stack.frames[0].file] += count
    usual = {thread: found.most_common(1)[0][0] for thread, found in roots.items()}
    return {
        stack: count
        for stack, count in counts.items()
        if not stack.frames or (stack.frames[0].name, stack.frames[0].file) == usual[stack.thread, stack.name]
    }


def _named(role: Frame, stack: tuple[RawFrame, ...], names: SourceNames) -> _Key:
    """The frames as reports show them, below the role of their process, and the line that each runs."""
    first = next((number for number, raw in enumerate(stack) if is_ours(raw.file)), 0)  # before it: the server's code
    frames, lines = [role], [0]
    for raw in stack[first:]:
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
