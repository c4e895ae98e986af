"""Which part of a latency changed: two splits compared, and the changed parts in the order of causes.

Parts depend on each other: when the model is called more often, its time per request grows though a call is as fast as
before, and when a request takes longer to serve, those behind it wait longer. On a busy machine code that runs longer
also waits longer for a processor. So the order is by cause, not by size: calls of the model first, then the parts of
the code, then those that a busy machine stretches, then the waits. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_mlpatterns.records.latency_split import SERVICE_PARTS, SplitPart

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_mlpatterns.records.latency_split import LatencySplit

__all__ = ["CallsChange", "PartChange", "SplitChange", "split_change"]

_NAMED = 0.05
"""Share of the whole change from which a part is named."""
_CERTAIN = 2.0
"""Standard errors from which a change of a part is no noise."""
_CALLS = 0.10
"""Relative change of the number of calls from which it is a cause."""
_FEWEST_CALLS = 0.005
"""Change of the number of calls per request below which it is none."""
_FOLLOWS = 0.2
"""Share of the whole change that the parts of the service, or a function, explain if the waits follow from them."""
_GROWN = 0.05
"""Growth of the service in an open loop from which its queue follows from it: near its limit a little is enough."""
_MOST_BEHIND = 50
"""Multiple of the service's growth that a queue behind it may grow by."""
_SHORTEST_NS = 1.0
_STRETCHED = ("server", "hop")
"""Parts around the code of users, in which a process may also wait for a processor that others use."""
_MOST_STRETCHED = 10.0
"""Multiple of the code's growth that these may grow by."""
_CODE, _AROUND, _RUN_QUEUE, _WAIT = range(4)
"""Kinds of a part; each may follow from those before it."""
_NO_PART = SplitPart("server", "", 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class CallsChange:
    """How often a model is called per request, before and now; ``of`` is its stage or model, as in a part."""

    of: str
    before: float
    now: float


@dataclass(frozen=True, slots=True)
class PartChange:
    """One part of a latency, before and now.

    Attributes:
        name: of the part.
        of: stage or model.
        before_ns: at the reference.
        now_ns: at present.
        error_ns: standard error of the change.
        label: in reports.
    """

    name: str
    of: str
    before_ns: float
    now_ns: float
    error_ns: float
    label: str

    @property
    def change_ns(self) -> float:
        """Now less before."""
        return self.now_ns - self.before_ns

    @property
    def is_service(self) -> bool:
        """Whether a request is worked on in this part; else it waits."""
        return self.name in SERVICE_PARTS

    @property
    def is_work(self) -> bool:
        """Whether code runs in this part, so that it may be a cause; in the others a request or a thread waits."""
        return self.kind < _RUN_QUEUE

    @property
    def kind(self) -> int:
        """What it is: the code, what is around it, the run queue, or a wait; each may follow from those before it."""
        if not self.is_service:
            return _WAIT
        return _RUN_QUEUE if self.name == "run_queue" else _AROUND if self.name in _STRETCHED else _CODE


@dataclass(frozen=True, slots=True)
class SplitChange:
    """How a latency and its parts changed.

    Attributes:
        total_ns: change of the whole.
        calls: models that are called more often (less often, if the whole got shorter), the cause of what follows.
        parts: the parts that changed, in the order of causes.
        rest_ns: change of everything else.
        largest: the part that changed most, named or not; None if there is none.
    """

    total_ns: float
    calls: tuple[CallsChange, ...]
    parts: tuple[PartChange, ...]
    rest_ns: float
    largest: PartChange | None

    def follows_from(self, cause_ns: float, callers: float | None) -> bool:
        """Whether the parts that changed are waits alone, and these follow from a cause that is known otherwise.

        Args:
            cause_ns: by how much longer a request takes in the cause; 0 if none is known.
            callers: that share a process, each of which waits for the others; None in an open loop, whose queue may
                grow by any multiple.
        """
        longer = [part for part in self.parts if part.change_ns * self.total_ns > 0]
        if cause_ns <= 0 or self.calls or any(part.is_work for part in longer):
            return False
        return callers is None or cause_ns * max(callers, 1.0) >= _FOLLOWS * abs(self.total_ns)


def split_change(
    before: LatencySplit,
    now: LatencySplit,
    *,
    of: Literal["mean", "median"] = "median",
    callers_per_process: float | None = None,
    only: Collection[str] = (),
) -> SplitChange:
    """Compare two splits of one latency.

    Args:
        before: of the reference.
        now: of the present.
        of: whether the means or the medians are compared.
        callers_per_process: how many requests of a closed loop share a process, so that each waits for the others;
            None for an open loop.
        only: names of parts, if the others do not count.
    """
    changes = [change for change in _changes(before, now, of) if not only or change.name in only]
    total_ns = sum(change.change_ns for change in changes)
    parts = _by_cause(changes, total_ns, callers_per_process)
    return SplitChange(
        total_ns,
        tuple(_more_calls(before, now, total_ns)),
        tuple(parts),
        total_ns - sum(part.change_ns for part in parts),
        max(changes, key=lambda change: abs(change.change_ns), default=None),
    )


def _changes(before: LatencySplit, now: LatencySplit, of: Literal["mean", "median"]) -> list[PartChange]:
    """Every part of one of them, those of the present first."""
    then = {(part.name, part.of): part for part in before.parts}
    found = {(part.name, part.of): part for part in now.parts}
    changes = []
    for key in dict.fromkeys((*found, *then)):
        old, new = then.get(key, _NO_PART), found.get(key, _NO_PART)
        before_ns, now_ns = (part.mean_ns if of == "mean" else part.median_ns for part in (old, new))
        label = found[key].label if key in found else then[key].label
        changes.append(PartChange(*key, before_ns, now_ns, math.hypot(old.error_ns, new.error_ns), label))
    return changes


def _by_cause(changes: Sequence[PartChange], total_ns: float, callers: float | None) -> list[PartChange]:
    """The parts that are named, in the order of causes, each by size.

    If the parts of the code explain the change, they come first; or they together with the server and the hops, before
    the run queue; or all parts of the service, before the waits. A part is named if it is a share of the whole
    change; where others follow from its kind, if it is a share of the change of its kind. Parts that changed against
    the direction of the whole come last.
    """
    sign = 1 if total_ns >= 0 else -1
    certain = [change for change in changes if abs(change.change_ns) >= max(_CERTAIN * change.error_ns, _SHORTEST_NS)]
    callers_behind = max(callers or 1.0, 1.0)
    led, led_ns = 0, abs(total_ns)  # kinds before this one lead
    for kinds in (_WAIT, _RUN_QUEUE, _AROUND):
        stretch = _stretch(changes, kinds)
        grown_ns = sum(max(sign * change.change_ns, 0.0) for change in certain if change.kind < kinds)
        before_ns = sum(change.before_ns for change in changes if change.kind < kinds)
        least_ns = _least_cause(total_ns, before_ns, in_open_loop=callers is None)
        if grown_ns > 0 and grown_ns * stretch * callers_behind >= least_ns:
            led, led_ns = kinds, grown_ns
    named = [
        change
        for change in certain
        if abs(change.change_ns) >= _NAMED * (led_ns if change.kind < led else abs(total_ns))
    ]
    named.sort(key=lambda change: -sign * change.change_ns)
    return sorted(named, key=lambda change: (sign * change.change_ns < 0, max(change.kind, led - 1) if led else 0))


def _least_cause(total_ns: float, before_ns: float, *, in_open_loop: bool) -> float:
    """What parts that took ``before_ns`` must have grown by for the others to follow from them."""
    follows_ns = _FOLLOWS * abs(total_ns)
    return min(follows_ns, max(_GROWN * before_ns, abs(total_ns) / _MOST_BEHIND)) if in_open_loop else follows_ns


def _stretch(changes: Sequence[PartChange], kinds: int) -> float:
    """By how much the machine stretches the time of parts before a kind: the more cores are busy, the longer.

    The state before is read from every part of the service that follows in the order of causes. The state now is read
    from the run queue alone, since the other parts may have changed by themselves.
    """
    causes = [change for change in changes if change.kind < kinds]
    followers = [change for change in changes if kinds <= change.kind < _WAIT]
    ready_ns = sum(change.now_ns for change in followers if change.name == "run_queue")
    sides = (
        (sum(max(change.before_ns, 0.0) for change in followers), sum(change.before_ns for change in causes)),
        (ready_ns, sum(change.now_ns for change in causes)),
    )
    return min(1 + max((others_ns / own_ns for others_ns, own_ns in sides if own_ns > 0), default=0), _MOST_STRETCHED)


def _more_calls(before: LatencySplit, now: LatencySplit, total_ns: float) -> list[CallsChange]:
    """Models that are called more often (less often, if the whole got shorter), where that is more than their slowdown.

    A model that got slower by a larger factor than its calls grew is itself the cause.
    """
    found, more = [], sum(now.calls.values()) - sum(before.calls.values())
    for of, calls in now.calls.items():
        then = before.calls.get(of)
        if then is None or (change := calls - then) * total_ns <= 0:
            continue
        if abs(more) < abs(change) / 2:  # of an ensemble another model answers last
            continue
        if abs(change) < max(_FEWEST_CALLS, _CALLS * then):
            continue
        if not then or not calls:  # a cache that always hits on one side
            found.append(CallsChange(of, then, calls))
            continue
        grown = max(_model_ns(now, of), 1.0) / max(_model_ns(before, of), 1.0)
        if math.copysign(1, change) * math.log(grown) <= 2 * abs(math.log(calls / then)):
            found.append(CallsChange(of, then, calls))
    return found


def _model_ns(split: LatencySplit, of: str) -> float:
    """Mean time of a request in calls of a model."""
    return sum(part.mean_ns for part in split.parts if part.of == of and part.name.startswith("model_"))
