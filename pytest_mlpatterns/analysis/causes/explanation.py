"""Which function explains a change of the time per request: a walk down the tree of calls, from the whole to the part.

The whole must have changed beyond noise. From there the walk goes to the function that has most of its caller's change,
as long as there is one and the change is beyond noise there too. A function inside a model must also be slower per call
of the model: if it is only called more often, its code is not the cause. A slower machine slows both blocks of a pair.
What differs beyond that has three sources: samples are counted, blocks scatter, and two starts of the same code are
never equally fast. Pure.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.causes.call_tree import BEFORE, NOW, CallTree
from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE, drawn_variance, t_quantile
from pytest_mlpatterns.analysis.statistics.log_ratio import RATIO_SD
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.profile import Frame

_PRIOR_DEGREES = 12.0  # Degrees of freedom that the expected variance is worth; fewer if the blocks contradict it
_BLOCK_SD = 0.02  # Standard deviation of the ratio of neighbouring blocks, beyond the counting of samples; the prior
_LEAST_VARIANCE = 1.0  # Least variance of a difference, in ns²; it keeps a part without samples from being certain


class TimeChange(Struct, frozen=True):
    """Times per request in nanoseconds, means over blocks, and their difference."""

    before_ns: float  # at the reference
    now_ns: float  # at present
    error_ns: float  # standard error of the difference
    degrees: float  # degrees of freedom of that error

    @property
    def value_ns(self) -> float:
        """The difference, above zero if it got slower."""
        return self.now_ns - self.before_ns

    @property
    def level_ns(self) -> float:
        """The longer of the two times."""
        return max(self.before_ns, self.now_ns)

    def estimate(self, confidence: float = CONFIDENCE) -> Estimate:
        """The difference with its interval."""
        half = t_quantile(confidence, self.degrees) * self.error_ns
        return Estimate(self.value_ns, self.value_ns - half, self.value_ns + half)

    def is_sure(self, confidence: float) -> bool:
        """Whether the interval of this confidence is without zero."""
        return abs(self.value_ns) > t_quantile(confidence, self.degrees) * self.error_ns


def time_change(
    before_ns: NDArray[np.float64],
    now_ns: NDArray[np.float64],
    variance: NDArray[np.float64],
    *,
    lost_ratio: float = 0.0,
) -> TimeChange:
    """The mean over pairs of blocks of now - before.

    With x the n differences, m their mean, v0 the expected variance of one and k0 = 12 the degrees of freedom that it
    is worth, the squared error is

        (k v0 + Σ(x - m)²) / (k + n - 1) / n + (s level)²,  k = k0 min(1, v0 / first),
        first = (k0 v0 + Σ(x - m)²) / (k0 + n - 1)

    with t at k + n - 1 degrees of freedom, as :mod:`pytest_mlpatterns.analysis.statistics.log_ratio` does. v0 is the
    variance from counting and that of blocks, 2 % of the time. The last term is what blocks cannot show: two starts
    of equal code differ by 1.5 %, and samples that only one side lost make its other functions seem slower by their
    share l; s² = 0.015² + l².

    ``before_ns``: time per request in each block of the reference, shape ``(pairs,)``. ``variance``: of the difference
    of each pair, from the counting of samples alone, shape ``(pairs,)``. ``lost_ratio``: by how much the shares of lost
    samples of the two sides differ.
    """
    difference = now_ns - before_ns
    pairs = len(difference)
    before, now = float(before_ns.mean()), float(now_ns.mean())
    level = max(before, now)
    expected = max(float(variance.mean()) + (_BLOCK_SD * level) ** 2, _LEAST_VARIANCE)
    scatter = float(((difference - difference.mean()) ** 2).sum())
    within, degrees = drawn_variance(_PRIOR_DEGREES, expected, scatter=scatter, degrees=pairs - 1)
    return TimeChange(before, now, math.sqrt(within / pairs + (RATIO_SD**2 + lost_ratio**2) * level**2), degrees)


_WHOLE_CONFIDENCE = 0.995  # Confidence that the whole has changed, fixed by ``benchmarks/attribution_simulation.py``
_PART_CONFIDENCE, _SURE_PART_CONFIDENCE = 0.99, 0.95
"""Confidence required of a part, Bonferroni-corrected; the lower one once the whole has certainly changed."""
_CERTAIN = 0.999  # Confidence from which the whole has certainly changed
_LEAST_NS = 5_000.0  # Least change that is named, in nanoseconds per request
_LEAST_SHARE_OF_TIME = 0.02  # Least change that is named, as a share of the time of a request
_CANDIDATE = 0.01  # Share of the time, on one of the sides, from which a function can explain a change
_MOST_OF_IT = 0.7  # Share of a change from which a part explains it
_HALF_OF_IT = 0.5  # Share of a change from which a part explains it if the rest shows no change
_BRANCH = 0.1  # Share of a change from which a part is named beside others
_REST_CONFIDENCE = 0.9  # Confidence that the rest has changed, above which one part does not explain the whole
_MOST_BRANCHES = 3  # Most parts that are named beside each other: a message stays short
_NO_CALL_BEFORE = TimeChange(0.0, 0.0, 0.0, 1.0)
"""Of a call, if the reference called the model not once: the number of calls explains all of its time."""


class Spot(Struct, frozen=True):
    """A function as it is called by a chain of others."""

    frame: Frame | None  # the function; None for the whole
    nodes: tuple[int, ...]  # where it is in the tree
    change: TimeChange  # of its time, callees included
    # change per call of the model, scaled to its calls before; None outside models, or if calls are unknown
    calls: TimeChange | None = None

    def is_only_called_more(self, confidence: float) -> bool:
        """Whether a call of the model takes no longer, or less, although a request does."""
        if self.calls is None:
            return False
        return not self.calls.is_sure(confidence) or (self.calls.value_ns > 0) is not (self.change.value_ns > 0)


class Changes:
    """Changes of the time of functions in a tree.

    ``calls``: for each model, by its frame's function, its calls per request in each block, ``(sides, blocks)``.
    ``lost_ratio``: by how much the shares of lost samples of the two sides differ.
    """

    def __init__(self, tree: CallTree, calls: Mapping[str, NDArray[np.float64]], lost_ratio: float = 0.0) -> None:
        self.tree = tree
        self._lost_ratio = lost_ratio
        self._calls = calls
        self._model = _models_above(tree)
        self.whole: Spot = self.spot(None, tree.roots)
        self.part_confidence: float = _PART_CONFIDENCE
        self._everywhere = {frame: self._change(nodes, None) for frame, nodes in tree.topmost().items()}

    def spot(self, frame: Frame | None, nodes: Iterable[int]) -> Spot:
        """A function at some nodes, none of which is below another one."""
        chosen = sorted(nodes)
        calls = None
        models = {self._model[node] for node in chosen}
        if len(models) == 1 and (per_request := self._calls.get(models.pop() or "")) is not None:
            before = per_request[BEFORE].mean()
            calls = self._change(chosen, per_request / before) if before else _NO_CALL_BEFORE
        return Spot(frame, tuple(chosen), self._change(chosen, None), calls)

    def moved_here(self, spot: Spot) -> bool:
        """Whether a function only has other callers now, so that its time is here instead of elsewhere."""
        everywhere = None if spot.frame is None else self._everywhere.get(spot.frame)
        return everywhere is not None and everywhere.value_ns / spot.change.value_ns < _HALF_OF_IT

    def own(self, nodes: Sequence[int]) -> TimeChange:
        """The change of the time of nodes without their callees."""
        times, variances = self.tree.own_ns[:, :, nodes].sum(2), self.tree.own_variance[:, :, nodes].sum((0, 2))
        return time_change(times[BEFORE], times[NOW], variances, lost_ratio=self._lost_ratio)

    def rest(self, spot: Spot, part: Spot) -> TimeChange:
        """The change of the time of a spot without a part of it."""
        tree, (nodes, less) = self.tree, (list(spot.nodes), list(part.nodes))
        times = tree.total_ns[:, :, nodes].sum(2) - tree.total_ns[:, :, less].sum(2)
        variances = tree.total_variance[:, :, nodes].sum((0, 2))
        return time_change(times[BEFORE], times[NOW], variances, lost_ratio=self._lost_ratio)

    def _change(self, nodes: Sequence[int], divisor: NDArray[np.float64] | None) -> TimeChange:
        times = self.tree.total_ns[:, :, nodes].sum(2)
        variances = self.tree.total_variance[:, :, nodes].sum(2)
        if divisor is not None:
            times, variances = times / divisor, variances / divisor**2
        return time_change(times[BEFORE], times[NOW], variances.sum(0), lost_ratio=self._lost_ratio)


def explanation(changes: Changes, *, is_known: bool) -> list[list[Spot]]:
    """The chains of functions, from a root on, whose last one explains the change or a part of it; at most three.

    Empty if neither the whole nor a function changed beyond noise, or if the cause is how often a model is called.
    """
    whole = changes.whole
    if is_known and whole.change.is_sure(_CERTAIN):
        changes.part_confidence = _SURE_PART_CONFIDENCE
    is_slower = whole.change.value_ns >= _LEAST_SHARE_OF_TIME * whole.change.level_ns > 0
    if (is_known and is_slower) or _is_named(whole, whole, _WHOLE_CONFIDENCE):
        return [chain for chain in _walk(changes, [whole]) if chain]
    start = _largest_part(changes)
    return [chain for chain in _walk(changes, [*_leading(changes, start), start]) if chain] if start else []


def _largest_part(changes: Changes) -> Spot | None:
    """The function with the largest slowdown beyond noise among all, else the largest change; None without one."""
    whole = changes.whole
    spots = [changes.spot(frame, nodes) for frame, nodes in changes.tree.topmost().items() if frame.owner != "process"]
    spots = [one for one in spots if one.change.level_ns >= _CANDIDATE * whole.change.level_ns]
    confidence = 1 - (1 - _WHOLE_CONFIDENCE) / max(len(spots), 1)
    sure = [one for one in spots if _is_named(one, whole, confidence) and not one.is_only_called_more(confidence)]
    return max(sure, key=lambda one: (one.change.value_ns > 0, abs(one.change.value_ns)), default=None)


def _leading(changes: Changes, spot: Spot) -> list[Spot]:
    """The callers of a function, outermost first, where it takes most of its time."""
    tree, found = changes.tree, []
    node = max(spot.nodes, key=lambda one: float(tree.total_ns[:, :, one].sum()))
    while (node := tree.parents[node]) >= 0:
        found.append(changes.spot(tree.frames[node], [node]))
    return found[::-1]


def _walk(changes: Changes, chain: list[Spot], confidences: tuple[float, ...] = ()) -> list[list[Spot]]:
    """Go down from the end of a chain as long as a callee has most of the change, then up to what is beyond noise."""
    while True:
        here = chain[-1]
        passed = {spot.frame for spot in chain if spot.frame is not None}
        called, own = _below(changes, here, passed)
        parts = _parts(changes, called, here)
        largest = max(parts, key=lambda part: _share(part[0], here), default=None)
        if largest is None or not _has_most(changes, largest[0], here):
            if own and changes.own(own).value_ns / here.change.value_ns >= _HALF_OF_IT:
                return [_sure(changes, chain, confidences)]
            largest = _gathered(changes, here, passed)
        if largest is None and _is_group(changes, here):
            return [_sure(changes, chain, confidences)]
        if largest is None:
            return _branches(changes, chain, confidences, parts=parts)
        chain, confidences = [*chain, largest[0]], (*confidences, largest[1])


def _sure(changes: Changes, chain: list[Spot], confidences: tuple[float, ...]) -> list[Spot]:
    """The chain up to the last spot that changed beyond noise, without the whole."""
    start = len(chain) - len(confidences)
    found: list[Spot] = [spot for spot in chain[:start] if spot.frame is not None]
    end = len(found)
    for spot, confidence in zip(chain[start:], confidences, strict=True):
        found.append(spot)
        if not _is_named(spot, changes.whole, confidence):
            continue
        if spot.is_only_called_more(confidence):
            return []
        end = len(found)
    if not any(map(is_of_project, found[:end])) and (own := [*filter(is_of_project, found[end:])]):
        if own[0].is_only_called_more(changes.part_confidence):
            return []
        if _is_named(own[0], changes.whole, changes.part_confidence):
            end = found.index(own[0]) + 1
    return found[:end]


def _branches(
    changes: Changes, chain: list[Spot], confidences: tuple[float, ...], *, parts: Sequence[tuple[Spot, float]]
) -> list[list[Spot]]:
    """Go down several callees that have most of the change together; the chain as it is if they do not."""
    here = chain[-1]
    named = [one for one in parts if _is_named(one[0], changes.whole, one[1]) and _share(one[0], here) >= _BRANCH]
    branches = sorted(named, key=lambda one: -_share(one[0], here))[:_MOST_BRANCHES]
    if len(branches) < 2 or sum(_share(one, here) for one, _ in branches) < _MOST_OF_IT:
        return [_sure(changes, chain, confidences)]
    return [_walk(changes, [*chain, one], (*confidences, confidence))[0] for one, confidence in branches]


def _below(changes: Changes, here: Spot, passed: set[Frame]) -> tuple[dict[Frame, list[int]], list[int]]:
    """What a function calls, and the nodes of its own time; for the whole the roots."""
    if here.frame is not None and not _is_group(changes, here):
        called, own = changes.tree.callees(here.nodes, passed)
        groups: dict[Frame, list[int]] = {}  # the halves of a layer, such as its encode and decode, are one
        for frame, nodes in called.items():
            groups.setdefault(frame.whole, []).extend(nodes)
        return groups, own
    found: dict[Frame, list[int]] = {}  # of the whole, or of a group of layers
    for node in here.nodes:
        found.setdefault(changes.tree.frames[node], []).append(node)
    return found, []


def _is_group(changes: Changes, spot: Spot) -> bool:
    """Whether a spot stands for the halves of a layer."""
    return spot.frame is not None and spot.frame != changes.tree.frames[spot.nodes[0]]


def _parts(changes: Changes, called: Mapping[Frame, list[int]], here: Spot) -> list[tuple[Spot, float]]:
    """Callees that changed in the direction of their caller, each with the confidence that it has to show."""
    spots = [changes.spot(frame, nodes) for frame, nodes in called.items()]
    candidates = [one for one in spots if one.change.level_ns >= _CANDIDATE * changes.whole.change.level_ns]
    confidence = 1 - (1 - changes.part_confidence) / max(len(candidates), 1)
    return [(one, confidence) for one in candidates if _share(one, here) > 0 and not changes.moved_here(one)]


def _gathered(changes: Changes, here: Spot, passed: set[Frame]) -> tuple[Spot, float] | None:
    """The innermost function below that has most of the change over several callers; None if there is none."""
    found = changes.tree.topmost(here.nodes if here.frame is not None else None)
    several = {frame: nodes for frame, nodes in found.items() if len(nodes) > 1 and frame not in passed}
    parts = [part for part in _parts(changes, several, here) if _share(part[0], here) >= _MOST_OF_IT]
    named = [part for part in parts if _is_named(part[0], changes.whole, part[1])]
    return min(named, key=lambda part: part[0].change.level_ns, default=None)


def _share(part: Spot, whole: Spot) -> float:
    """Share of the part in a change."""
    return part.change.value_ns / whole.change.value_ns if whole.change.value_ns else 0.0


def _has_most(changes: Changes, part: Spot, here: Spot) -> bool:
    """Whether a callee has most of the change, or may have all of it within noise."""
    if (share := _share(part, here)) >= _MOST_OF_IT:
        return True
    return share >= _HALF_OF_IT and not changes.rest(here, part).is_sure(_REST_CONFIDENCE)


def _is_named(spot: Spot, whole: Spot, confidence: float) -> bool:
    """Whether the time per request changed beyond noise, and by enough to be reported."""
    least = max(_LEAST_NS, _LEAST_SHARE_OF_TIME * whole.change.level_ns)
    return abs(spot.change.value_ns) >= least and spot.change.is_sure(confidence)


def is_of_project(spot: Spot) -> bool:
    """Whether it is a function of the project."""
    return spot.frame is not None and spot.frame.owner == "project"


def _models_above(tree: CallTree) -> list[str | None]:
    """For each node the function of the outermost model frame above it, or at it; None outside models."""
    models: list[str | None] = []
    for frame, parent in zip(tree.frames, tree.parents, strict=True):
        inherited = models[parent] if parent >= 0 else None
        models.append(inherited or (frame.function if frame.owner == "model" else None))
    return models
