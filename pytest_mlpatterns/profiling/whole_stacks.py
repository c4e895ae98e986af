"""Stacks that were read while their thread went on: what is missing at their root is found in others. Pure.

A profiler that does not pause the process reads a stack from the innermost function outwards. If a function returns
meanwhile, the reading ends there, and the callers are missing. The more often a thread calls and returns, the more
stacks lack them; without those, code that does little else would seem faster, and all other code slower.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.profiling.threads import is_torn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.profiling.recording import RawFrame, RawStack

__all__ = ["whole_stacks"]

_Thread = tuple[int, str]
_Function = tuple[str, str]


def whole_stacks(counts: Mapping[RawStack, int]) -> dict[RawStack, int]:
    """The stacks from the root of their thread on, and how often each was seen.

    A thread has one root. A stack that begins elsewhere gets the callers that its outermost function has most often in
    the others. It is left out if that is in none of them, and so is one with a call that cannot be.

    Args:
        counts: how often a profiler saw each stack.
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
