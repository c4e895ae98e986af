"""From profiled blocks to the record of a profile: the functions that a failure names, their table, and the tree.

Pure. :mod:`pytest_mlpatterns.analysis.causes.explanation` finds where the change is; this module names which function
of the project that is, which line, and what it was before. A profiler of Python sees the functions of Python threads
only: if a session gets four threads in place of one, all functions take as long as before, or wait, and the CPU time of
the process grows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from statistics import median_low

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.causes.call_tree import BEFORE, NOW, CallTree, call_tree, matched
from pytest_mlpatterns.analysis.causes.explanation import Changes, Spot, explanation, is_of_project
from pytest_mlpatterns.analysis.statistics.intervals import estimate
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.profile import (
    ChangeKind,
    Frame,
    FunctionChange,
    FunctionTime,
    NativeChange,
    ProfiledBlock,
    ProfiledRun,
    ProfileNode,
    ProfileRecord,
)

SourceLine = Callable[[Frame, int], str]
_MOST_FUNCTIONS = 30  # Most functions of the table
_MOST_NODES = 2_000  # Most nodes of a flame graph, which a browser draws at once
_LEAST_SHARE = 0.002  # Share of the time below which a stack is counted to its caller, and a function is not listed
_HALF, _MOST = 0.5, 0.7
_LEAST_OF_ALL = 0.05
"""Share of the time, waits of coroutines included, from which blocking it can explain why requests take longer."""
_ELSEWHERE = 0.1  # Share of a function's time from which its other callers show whether it got slower
_LESS = 0.3  # Growth elsewhere as a share of the growth here, below which the function is slower here only
_OF_LAYERS = frozenset({"library", "python", "native"})  # Owners of code that works for the layer that calls it
_NO_FUNCTION = frozenset({"process", "model", "await"})


def profile_record(
    run: ProfiledRun, source_now: SourceLine, source_before: SourceLine | None = None, *, is_known: bool = False
) -> ProfileRecord:
    """What profiled blocks show.

    ``source_now``: the text of a line of a function at present, without indentation; empty if it is not known.
    ``source_before``: the same at the reference; None: lines are compared by their number.
    """
    run, was = matched(run)
    tree = call_tree(run)
    calls = model_calls(run)
    changes = Changes(tree, calls, _lost_ratio(run))
    drafting = _Drafting(changes, was, source_now, source_before)
    named = _named(drafting, is_known=is_known) if run.before else []
    if run.before and is_known and not any(change.change.value > 0 for change in named):
        named = _blocking(run, drafting) or named
    largest = drafting.largest() if run.before and not named else None
    functions = _functions(changes, compared=bool(run.before))
    index = drafting.index
    sides = (*run.before, *run.now)
    return ProfileRecord(
        notes=(*run.notes, *calls_notes(calls if run.before else {})),
        profiler=run.profiler,
        rate_hz=run.rate_hz,
        slowdown=None if run.slowdown is None else astuple(run.slowdown),
        blocks=len(run.now),
        samples=sum(block.samples for block in sides),
        lost=sum(block.lost for block in sides),
        compared=bool(run.before),
        nodes=tuple(_nodes(tree, index)),
        functions=tuple(_function_time(changes, index(spot.frame), spot) for spot in functions if spot.frame),
        changes=tuple(named),
        largest=largest,
        frames=tuple(drafting.frames),
        native=native_change(run),
    )


def _named(drafting: _Drafting, *, is_known: bool) -> list[FunctionChange]:
    """The functions that a failure names, the largest change first, each once."""
    found: dict[Frame, FunctionChange] = {}
    for chain in explanation(drafting.changes, is_known=is_known):
        change = drafting.of_chain(chain)
        if change is not None:
            frame = drafting.frames[change.chain[-1]]
            if frame not in found or abs(found[frame].change.value) < abs(change.change.value):
                found[frame] = change
    return sorted(found.values(), key=lambda one: -abs(one.change.value))


def _lost_ratio(run: ProfiledRun) -> float:
    """By how much the shares of lost samples of the two sides differ."""
    shares = [sum(it.lost for it in side) / max(sum(it.samples for it in side), 1) for side in (run.before, run.now)]
    return abs(shares[0] - shares[1]) if run.before else 0.0


def _blocking(run: ProfiledRun, drafting: _Drafting) -> list[FunctionChange]:
    """The functions that are named if suspended coroutines do not count; empty if there are none.

    Once a coroutine blocks the event loop for the time that it was suspended before, its own request takes as long as
    before, and all others wait. So this is asked only if a verdict shows that requests take longer.
    """
    awake = structs.replace(run, before=tuple(map(_awake, run.before)), now=tuple(map(_awake, run.now)))
    if awake == run:
        return []
    changes = Changes(call_tree(awake), model_calls(run), _lost_ratio(run))
    least_ns = _LEAST_OF_ALL * drafting.changes.whole.change.level_ns
    named = _named(replace(drafting, changes=changes), is_known=True)
    return [change for change in named if change.change.value >= least_ns]


def _awake(block: ProfiledBlock) -> ProfiledBlock:
    """A block without the waits of coroutines."""
    return structs.replace(
        block, stacks=tuple(it for it in block.stacks if all(one.owner != "await" for one in it.frames))
    )


@dataclass(slots=True)
class _Drafting:
    """Makes function changes, and counts the frames that a record needs."""

    changes: Changes
    was: Mapping[Frame, Frame]
    source_now: SourceLine
    source_before: SourceLine | None
    frames: list[Frame] = field(default_factory=list)
    indices: dict[Frame, int] = field(default_factory=dict)
    everywhere: Mapping[Frame, Sequence[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.everywhere = self.changes.tree.topmost()

    def index(self, frame: Frame) -> int:
        """Index of a frame in the record."""
        if frame not in self.indices:
            self.indices[frame] = len(self.frames)
            self.frames.append(frame)
        return self.indices[frame]

    def of_chain(self, chain: Sequence[Spot]) -> FunctionChange | None:
        """The change that the end of a chain explains, of the function that a reader can edit; None without one."""
        moved = self._moved_below(chain[-1]) if not any(is_of_project(spot) for spot in chain) else []
        end, chain = chain[-1], [*chain, *moved]
        position = _position(chain)
        if position is None or self._passes_on(chain[position]):
            return None
        while self._is_as_fast_elsewhere(chain[position]) and (caller := _project_caller(chain, position)) is not None:
            position = caller
        above = [spot for spot in chain[:position] if is_of_project(spot) or (moved and spot is end)]
        leading = [spot.frame for spot in above if spot.frame]
        deeper = [spot.frame for spot in chain[position + 1 :] if spot.frame]
        return self._change(leading, chain[position], inside=_inside(deeper[-1]) if deeper else "")

    def _moved_below(self, here: Spot) -> list[Spot]:
        """The functions of the project with most of the change of a library that calls them now, outermost first.

        Each takes as long as before, below another caller: an endpoint that blocks the event loop ran in a thread.
        """
        if here.frame is None or here.frame.owner not in ("library", "python"):
            return []
        found = self.changes.tree.topmost(here.nodes).items()
        spots = [self.changes.spot(frame, nodes) for frame, nodes in found if frame.owner == "project"]
        most = [one for one in spots if one.change.value_ns / here.change.value_ns >= _MOST]
        return sorted(most, key=lambda one: min(one.nodes))  # callers are before their callees

    def _passes_on(self, spot: Spot) -> bool:
        """Whether a layer of this package has half of its change in layers and functions that it calls."""
        assert spot.frame is not None
        if spot.frame.owner != "layer":
            return False
        called, _ = self.changes.tree.callees(spot.nodes, {spot.frame, *_frames(self.changes, spot)})
        below = [node for frame, nodes in called.items() if frame.owner not in _OF_LAYERS for node in nodes]
        return bool(below) and self.changes.spot(None, below).change.value_ns / spot.change.value_ns >= _HALF

    def _is_as_fast_elsewhere(self, spot: Spot) -> bool:
        """Whether the same function did not get slower where others call it, so that its code is not the cause."""
        assert spot.frame is not None
        others = [node for node in self.everywhere.get(spot.frame, ()) if node not in spot.nodes]
        if not others or spot.change.value_ns <= 0:
            return False
        elsewhere = self.changes.spot(spot.frame, others).change
        if min(elsewhere.before_ns, elsewhere.now_ns) < _ELSEWHERE * spot.change.level_ns or elsewhere.before_ns <= 0:
            return False
        here = spot.change.now_ns / spot.change.before_ns if spot.change.before_ns else math.inf
        return elsewhere.now_ns / elsewhere.before_ns - 1 < _LESS * (here - 1)

    def largest(self) -> FunctionChange | None:
        """The function that comes nearest if none stands out: the innermost one with most of the largest change."""
        spots = _functions(self.changes, compared=True)
        own = [spot for spot in spots if spot.frame and spot.frame.owner == "project"] or spots
        if not own:
            return None
        most = max(own, key=lambda spot: spot.change.value_ns).change.value_ns
        near = [spot for spot in own if spot.change.value_ns >= _MOST * most] if most > 0 else own
        return self._change([], min(near, key=lambda spot: spot.change.level_ns), inside="")

    def _change(self, leading: Sequence[Frame], spot: Spot, *, inside: str) -> FunctionChange:
        assert spot.frame is not None
        change = spot.change
        line, source = self._line(spot)
        return FunctionChange(
            chain=tuple(self.index(frame) for frame in (*leading, spot.frame)),
            before_ns=change.before_ns,
            now_ns=change.now_ns,
            change=change.estimate(),
            of_ns=self.changes.whole.change.value_ns,
            kind=_kind(spot, self.was),
            line=line,
            source=source,
            inside=inside,
            was=_earlier(spot.frame, self.was),
        )

    def _line(self, spot: Spot) -> tuple[int, str]:
        """The line with at least half of a function's change, and its text; 0 and no text if there is none.

        Lines of the two sides are the same if their text is, since their numbers change with the code above them.
        """
        assert spot.frame is not None
        frame, tree = spot.frame, self.changes.tree
        change: dict[str, float] = defaultdict(float)
        numbers: dict[str, int] = {}
        for line, ns in sorted(tree.line_times(NOW, spot.nodes).items(), key=lambda item: -item[1]):
            key = self._line_key(self.source_now, frame, line)
            change[key] += ns
            if line:
                numbers.setdefault(key, line)
        for line, ns in tree.line_times(BEFORE, spot.nodes).items():
            change[self._line_key(self.source_before, self.was.get(frame, frame), line)] -= ns
        best = max(numbers, key=lambda key: change[key], default=None)
        if best is None or not 0 < _HALF * spot.change.value_ns <= change[best]:
            return 0, ""
        return numbers[best], self.source_now(frame, numbers[best])

    def _line_key(self, source: SourceLine | None, frame: Frame, line: int) -> str:
        """What makes a line the same on both sides."""
        text = source(frame, line) if source and self.source_before and line else ""
        return text or str(line)


def _frames(changes: Changes, spot: Spot) -> set[Frame]:
    """The functions of a spot: several of a group of layers."""
    return {changes.tree.frames[node] for node in spot.nodes}


def _project_caller(chain: Sequence[Spot], position: int) -> int | None:
    """The next function of the project outside of one in a chain; None without one."""
    return _last([spot.frame.owner if spot.frame else "process" for spot in chain[:position]], {"project"})


def _position(chain: Sequence[Spot]) -> int | None:
    """Which function of a chain is named: the innermost one of the project, else the innermost that means something."""
    owners = [spot.frame.owner if spot.frame else "process" for spot in chain]
    if "project" in owners:
        return _last(owners, {"project"})
    if "layer" in owners and "model" not in owners:
        return _last(owners, {"layer"})
    return _last(owners, {"library", "python", "native"})


def _last(owners: Sequence[str], wanted: set[str]) -> int | None:
    return next((index for index in range(len(owners) - 1, -1, -1) if owners[index] in wanted), None)


def _inside(frame: Frame) -> str:
    if frame.function == "<module>":
        return f"the import of {frame.file}"
    return f"{frame.function} ({frame.file})" if frame.file else frame.function


def _earlier(frame: Frame, was: Mapping[Frame, Frame]) -> str:
    """The earlier file of what moved to another one, or its earlier name."""
    if frame not in was:
        return ""
    return was[frame].file if was[frame].function == frame.function else was[frame].function


def _kind(spot: Spot, was: Mapping[Frame, Frame]) -> ChangeKind:
    if spot.frame in was:
        return "moved"
    if not spot.change.before_ns:
        return "new"
    if not spot.change.now_ns:
        return "gone"
    return "slower" if spot.change.value_ns > 0 else "faster"


def _functions(changes: Changes, *, compared: bool) -> list[Spot]:
    """The functions of the table: those that changed most, or take most of the time."""
    found = changes.tree.topmost()
    spots = [changes.spot(frame, nodes) for frame, nodes in found.items() if frame.owner not in _NO_FUNCTION]
    least = _LEAST_SHARE * changes.whole.change.level_ns
    spots = [spot for spot in spots if spot.change.level_ns >= least]
    spots.sort(key=lambda spot: -abs(spot.change.value_ns) if compared else -spot.change.now_ns)
    return spots[:_MOST_FUNCTIONS]


def _function_time(changes: Changes, index: int, spot: Spot) -> FunctionTime:
    tree = changes.tree
    own = changes.own([node for node, frame in enumerate(tree.frames) if frame == spot.frame])
    change = spot.change.estimate() if tree.own_ns[BEFORE].any() else None
    return FunctionTime(index, spot.change.before_ns, spot.change.now_ns, own.before_ns, own.now_ns, change)


def _nodes(tree: CallTree, index: Callable[[Frame], int]) -> list[ProfileNode]:
    """The tree with its smallest stacks counted to their callers. ``index``: of a frame in the record."""
    total, own = tree.total_ns.mean(1), tree.own_ns.mean(1)  # (sides, nodes)
    roots = list(tree.roots)
    least = _LEAST_SHARE * float(total[:, roots].sum(1).max()) if roots else 0.0
    weight = total.max(0)
    is_root = np.zeros(len(tree.frames), dtype=bool)
    is_root[roots] = True
    if len(weight) > _MOST_NODES:
        least = max(least, float(np.sort(weight)[-_MOST_NODES]))
    kept = is_root | (weight >= least)
    place: dict[int, int] = {}
    own = own.copy()
    for node in np.flatnonzero(~kept):
        parent = tree.parents[node]
        if kept[parent]:
            own[:, parent] += total[:, node]
    nodes: list[ProfileNode] = []
    for node in np.flatnonzero(kept):
        place[int(node)] = len(nodes)
        parent = tree.parents[node]
        before, now = (float(own[side, node]) for side in (BEFORE, NOW))
        nodes.append(ProfileNode(place.get(parent, -1), index(tree.frames[node]), before, now))
    return nodes


_CALLS_CHANGED = 0.1  # Relative change of the calls of a model from which they explain a change


def model_calls(run: ProfiledRun) -> dict[str, NDArray[np.float64]]:
    """Calls of each model per request, ``(sides, blocks)``; without models whose calls are not known in every block.

    A model that no block of the reference called, as behind a cache that always hit, has 0 there. The present alone
    stands on both sides.
    """
    sides = (run.before or run.now, run.now)
    names = {name for block in run.now for name in block.calls}
    known = [name for name in names if _are_known(name, *sides)]
    return {
        name: np.array([[block.calls[name] / block.requests for block in side] for side in sides]) for name in known
    }


def _are_known(name: str, before: Sequence[ProfiledBlock], now: Sequence[ProfiledBlock]) -> bool:
    """Whether each block called a model, or none of the reference did."""
    then, called = ([block.calls.get(name, -1.0) for block in side] for side in (before, now))
    return all(count > 0 for count in called) and (all(count > 0 for count in then) or not any(then))


def calls_notes(calls: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """A sentence for each model that is called more or less often."""
    means = {name: (float(times[BEFORE].mean()), float(times[NOW].mean())) for name, times in sorted(calls.items())}
    return [
        f"{name} is called {before:.3g} → {now:.3g} times a request"
        for name, (before, now) in means.items()
        if abs(now - before) >= _CALLS_CHANGED * before
    ]


_CONFIDENCE = 0.995
"""Of the growth, as for all functions together: it is one question of a test that has failed already."""
_LEAST_THREAD_SHARE = 0.10
"""Share of the CPU time per request at the reference by which it must have grown: less explains no failed test, whose
tolerance for the CPU time is 7 %."""
_LEAST_RATIO = 1.05
"""Of the CPU time, by the lower end of its interval: pairs of blocks do not show that two starts of equal code differ,
by 1.5 % as functions do, or by more if their threads wait actively."""
_PAIR_SD = 0.1
"""Standard deviation of the ratio of a pair that is assumed: five times that of functions, since threads that wait
actively take what is left of the machine."""
_NONE = 0.01  # Share of the CPU time that counts as none, so that a ratio to it exists
_FEWEST = 3  # Pairs of blocks


def native_change(run: ProfiledRun) -> NativeChange | None:
    """The growth of the CPU time of threads without Python code; None if it has not grown, or is not known."""
    before, now = (_per_request(blocks) for blocks in (run.before, run.now))
    if before is None or now is None or len(before) < _FEWEST or len(before) != len(now):
        return None
    cpu_ns = float(np.mean([block.cpu_ns / block.requests for block in run.before]))
    before_ns, now_ns = float(before.mean()), float(now.mean())
    least_ns = max(_NONE * cpu_ns, 1.0)
    ratios = np.maximum(now, least_ns) / np.maximum(before, least_ns)
    ratio = estimate([LaunchValue(float(one), 0.0) for one in ratios], _PAIR_SD, _CONFIDENCE)
    if now_ns - before_ns < _LEAST_THREAD_SHARE * cpu_ns or ratio.low < _LEAST_RATIO:
        return None
    busy_before, busy_now = (median_low([block.native_busy for block in blocks]) for blocks in (run.before, run.now))
    return NativeChange(busy_before, busy_now, before_ns, now_ns, run.libraries)


def _per_request(blocks: Sequence[ProfiledBlock]) -> NDArray[np.float64] | None:
    """CPU time of these threads per request of each block, in nanoseconds; None if it is not known of all."""
    times = [block.native_ns / block.requests for block in blocks if block.native_ns is not None]
    return np.array(times) if len(times) == len(blocks) else None
