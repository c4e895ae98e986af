"""All stacks of a profiled run as one tree, with the time of each in each block.

Pure. Times are nanoseconds per request. A stack is a path from a root; a node's own time is the time in which its
function was the innermost one. Functions that recur in a stack count once. This module must not know what is a change.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.records.profile import Frame, ProfiledBlock, ProfiledRun, StackTime

BEFORE, NOW = 0, 1  # Index of a side in arrays of both
_NO_PARENT = -1  # Stands for the parent of a root


class CallTree(Struct, frozen=True):
    """Nodes by index, callers before their callees."""

    frames: tuple[Frame, ...]  # function of each node
    parents: tuple[int, ...]  # index of the caller; -1 for a root
    own_ns: NDArray[np.float64]  # time of each node per request without callees, shape ``(sides, blocks, nodes)``
    total_ns: NDArray[np.float64]  # the same with callees
    own_variance: NDArray[np.float64]  # variance of ``own_ns`` from the counting of samples, same shape
    total_variance: NDArray[np.float64]  # variance of ``total_ns``
    # time per request (mean over blocks) by executed line, for each side and node, callees included
    lines: tuple[Mapping[tuple[int, int], float], Mapping[tuple[int, int], float]]
    roots: tuple[int, ...]  # indices
    children: tuple[tuple[int, ...], ...]  # indices, for each node

    def topmost(self, within: Iterable[int] | None = None) -> dict[Frame, list[int]]:
        """For each function its nodes that are not below another one of the same function.

        ``within``: look only below these nodes, themselves left out; None: everywhere.
        """
        found: dict[Frame, list[int]] = defaultdict(list)
        starts = self.roots if within is None else [below for node in within for below in self.children[node]]
        pending: list[tuple[int, frozenset[Frame]]] = [(start, frozenset()) for start in starts]
        while pending:
            node, above = pending.pop()
            frame = self.frames[node]
            if frame not in above:
                found[frame].append(node)
                above |= {frame}
            pending += [(below, above) for below in self.children[node]]
        return found

    def callees(self, nodes: Iterable[int], chain: Collection[Frame]) -> tuple[dict[Frame, list[int]], list[int]]:
        """What these nodes call, by function, and the nodes whose own time is theirs.

        ``chain``: functions that led here, the one of ``nodes`` last; calls back into them are passed through, so that
        recursion neither hides what it calls nor counts twice.
        """
        called: dict[Frame, list[int]] = defaultdict(list)
        own, pending = [], list(nodes)
        while pending:
            node = pending.pop()
            own.append(node)
            for below in self.children[node]:
                if self.frames[below] in chain:
                    pending.append(below)
                else:
                    called[self.frames[below]].append(below)
        return called, own

    def line_times(self, side: int, nodes: Iterable[int]) -> dict[int, float]:
        """Time per request by executed line, callees included; lines are known by number, 0 if not."""
        wanted = set(nodes)
        times: dict[int, float] = defaultdict(float)
        for (node, line), ns in self.lines[side].items():
            if node in wanted:
                times[line] += ns
        return times


@dataclass(slots=True)
class _Growing:
    """A tree while stacks are added."""

    shape: tuple[int, int]
    index: dict[tuple[int, Frame], int] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    own: dict[tuple[int, int, int], float] = field(default_factory=lambda: defaultdict(float))
    squares: dict[tuple[int, int, int], float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[tuple[int, int, int], int] = field(default_factory=lambda: defaultdict(int))
    lines: tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]] = field(
        default_factory=lambda: (defaultdict(float), defaultdict(float))
    )

    def add(self, stack: StackTime, side: int, block: int, *, requests: int) -> None:
        """Add the time of one stack of a block with ``requests`` requests."""
        node, ns = _NO_PARENT, stack.ns / requests
        for frame, line in zip(stack.frames, stack.lines, strict=True):
            key = node, frame
            if key not in self.index:
                self.index[key] = len(self.frames)
                self.frames.append(frame)
                self.parents.append(node)
            node = self.index[key]
            self.lines[side][node, line] += ns / self.shape[1]
        at = side, block, node
        self.own[at] += ns
        self.counts[at] += stack.samples
        self.squares[at] += ns * ns / max(stack.samples, 1)

    def array(self, values: Mapping[tuple[int, int, int], float]) -> NDArray[np.float64]:
        """Shape ``(sides, blocks, nodes)``."""
        result = np.zeros((*self.shape, len(self.frames)))
        for at, value in values.items():
            result[at] = value
        return result


def call_tree(run: ProfiledRun) -> CallTree:
    """The tree of all stacks of both sides; a side that was not profiled has no time.

    The variance of a time that c of N samples saw is that of a binomial count: the sum over its stacks of ns² / c,
    times 1 - c/N, since a function that is in every sample is known exactly. If N is unknown it is that of a Poisson
    count, which is larger.
    """
    growing = _Growing((2, len(run.now)))
    for side, blocks in ((NOW, run.now), (BEFORE, run.before)):  # the present first: lines of definitions are its own
        for number, block in enumerate(blocks):
            for stack in block.stacks:
                growing.add(stack, side, number, requests=block.requests)
    parents = tuple(growing.parents)
    own, squares, counts = growing.array(growing.own), growing.array(growing.squares), growing.array(growing.counts)
    total, all_squares, all_counts = (_summed(values, parents) for values in (own, squares, counts))
    looks = np.array([[block.samples for block in blocks] or [0] * len(run.now) for blocks in (run.before, run.now)])
    children: list[list[int]] = [[] for _ in parents]
    for node, parent in enumerate(parents):
        if parent != _NO_PARENT:
            children[parent].append(node)
    return CallTree(
        frames=tuple(growing.frames),
        parents=parents,
        own_ns=own,
        total_ns=total,
        own_variance=squares * _left(counts, looks),
        total_variance=all_squares * _left(all_counts, looks),
        lines=growing.lines,
        roots=tuple(node for node, parent in enumerate(parents) if parent == _NO_PARENT),
        children=tuple(map(tuple, children)),
    )


def matched(run: ProfiledRun) -> tuple[ProfiledRun, Mapping[Frame, Frame]]:
    """The same run with functions of the reference under their present name if only their file or name differs.

    A function that one side alone has is taken for one that the other side alone has, first if both have the same
    qualified name, then if both have the same file and the same callers; each time only if there is one such on each
    side.
    """
    if not run.before:
        return run, {}
    was: dict[Frame, Frame] = {}
    for key in (_name_of, _place_of):
        before, now = _callers(run.before), _callers(run.now)
        gone = _by_key({frame: before[frame] for frame in before.keys() - now.keys()}, key)
        new = _by_key({frame: now[frame] for frame in now.keys() - before.keys()}, key)
        pairs = {gone[one][0]: new[one][0] for one in gone if len(gone[one]) == len(new.get(one, ())) == 1}
        blocks = tuple(
            replace(
                block,
                stacks=tuple(
                    replace(stack, frames=tuple(pairs.get(frame, frame) for frame in stack.frames))
                    for stack in block.stacks
                ),
            )
            for block in run.before
        )
        run = replace(run, before=blocks) if pairs else run
        was |= {present: earlier for earlier, present in pairs.items()}
    return run, was


def _summed(values: NDArray[np.float64], parents: Sequence[int]) -> NDArray[np.float64]:
    """Add to each node all that is below it; parents come before their children."""
    total = values.copy()
    for node in range(len(parents) - 1, -1, -1):
        if parents[node] != _NO_PARENT:
            total[:, :, parents[node]] += total[:, :, node]
    return total


def _left(counts: NDArray[np.float64], looks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The factor 1 - c/N of binomial counts, never below 1/N; 1 if N is unknown."""
    known = np.maximum(looks, 1)[:, :, None]
    share = np.where(looks[:, :, None] > 0, np.minimum(counts / known, 1.0), 0.0)
    return np.maximum(1.0 - share, 1.0 / known)


def _callers(blocks: Iterable[ProfiledBlock]) -> dict[Frame, frozenset[Frame]]:
    """The functions that have a file, with all that call them."""
    found: dict[Frame, set[Frame]] = defaultdict(set)
    for block in blocks:
        for stack in block.stacks:
            for above, frame in zip(stack.frames, stack.frames[1:], strict=False):
                if frame.file:
                    found[frame].add(above)
    return {frame: frozenset(callers) for frame, callers in found.items()}


def _name_of(frame: Frame, _: frozenset[Frame]) -> Hashable:
    return frame.owner, frame.function


def _place_of(frame: Frame, callers: frozenset[Frame]) -> Hashable:
    return (frame.owner, frame.file, callers) if frame.owner == "project" else frame


def _by_key(
    functions: Mapping[Frame, frozenset[Frame]], key: Callable[[Frame, frozenset[Frame]], Hashable]
) -> dict[Hashable, list[Frame]]:
    found: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame, callers in functions.items():
        found[key(frame, callers)].append(frame)
    return found
