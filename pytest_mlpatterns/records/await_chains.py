"""Chains of waiting coroutines as names of counters, and back.

A deployment that is profiled counts in its layer ``awaits`` the nanoseconds for which each chain waited, and under
``times:CHAIN`` how often. A chain is written from the model's own coroutine to the innermost one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["AWAITS", "TIMES", "AwaitedTime", "Awaiting", "awaited_times", "chain_name"]

AWAITS = "awaits"
"""Name of the layer."""
TIMES = "times:"
_FRAMES, _FIELDS = "\x1e", "\x1f"


@dataclass(frozen=True, slots=True)
class Awaiting:
    """A coroutine that waits: its ``co_qualname``, the full path of its file, and the line that waits."""

    qualified: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class AwaitedTime:
    """The nanoseconds for which a chain waited, the outermost coroutine first, and how often."""

    chain: tuple[Awaiting, ...]
    ns: int
    times: int


def chain_name(chain: Iterable[Awaiting]) -> str:
    """The name of the counter of a chain; empty for one without coroutines."""
    return _FRAMES.join(_FIELDS.join((one.qualified, one.file, str(one.line))) for one in chain)


def awaited_times(counters: Mapping[str, int]) -> Iterator[AwaitedTime]:
    """The chains that waited, from the counters of the layer."""
    for name, ns in counters.items():
        if not name.startswith(TIMES) and ns > 0:
            fields = (one.split(_FIELDS) for one in name.split(_FRAMES))
            chain = tuple(Awaiting(qualified, file, int(line)) for qualified, file, line in fields)
            yield AwaitedTime(chain, ns, counters.get(TIMES + name, 0))
