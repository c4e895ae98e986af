"""Where the coroutines of a model wait, while it is profiled: they are on no stack then, so no profiler sees them.

Each suspension is charged to the chain of coroutines that wait for each other, from the model's own to the one that
waits for something else (:mod:`pytest_mlpatterns.records.await_chains`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.records.await_chains import TIMES, Awaiting, chain_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["AwaitClock"]

_MOST_FRAMES = 100


class AwaitClock:
    """Charges suspensions.

    Args:
        tally: of the layer ``awaits``.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def chain(self, awaitable: Any) -> str:
        """The chain in which an awaitable that has just been suspended waits; empty if it has no coroutine."""
        return chain_name(_suspended(awaitable))

    def charge(self, chain: str, waited_ns: int) -> None:
        """Charge a suspension to a chain."""
        if chain:
            self._tally.count(chain, waited_ns)
            self._tally.count(TIMES + chain)


def _suspended(awaitable: Any) -> Iterator[Awaiting]:
    """Each coroutine or generator that waits for the next one."""
    for _ in range(_MOST_FRAMES):
        if (frame := getattr(awaitable, "cr_frame", None)) is not None:
            inner = awaitable.cr_await
        elif (frame := getattr(awaitable, "gi_frame", None)) is not None:
            inner = awaitable.gi_yieldfrom
        elif (frame := getattr(awaitable, "ag_frame", None)) is not None:
            inner = awaitable.ag_await
        else:
            return
        yield Awaiting(frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno)
        awaitable = inner
