"""Which requests of a load are cancelled, and when. It opens no socket and reads no clock."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.messages import Share
    from pytest_mlpatterns.workload.cancellation import Cancellation

__all__ = ["Cancellations"]

_GOLDEN_RATIO = 0.6180339887498949


class Cancellations:
    """The cancellations of one generator.

    The n-th request of the load is chosen if the fractional part of n times the golden ratio is below the share. So the
    same ones are chosen each time, their number is right after a few requests, and no cycle of the inputs meets them.

    Args:
        cancellation: the share, and the time.
        share: this generator's part of the load.
    """

    def __init__(self, cancellation: Cancellation, share: Share) -> None:
        self._ratio = cancellation.share_ratio
        self.after_ns: int = cancellation.after_ns
        self._number, self._step = share.number + 1, share.of
        self._added = 0
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []

    @property
    def next_ns(self) -> int:
        """Time of the next cancellation; ``NEVER_NS`` if none waits."""
        return self._waiting[0][0] if self._waiting else NEVER_NS

    def choose(self) -> bool:
        """Whether the next request that is sent is to be cancelled."""
        number = self._number
        self._number += self._step
        return number * _GOLDEN_RATIO % 1 < self._ratio

    def add(self, due_ns: int, cancel: Callable[[], None]) -> None:
        """Call ``cancel`` when the time of a request that was due then is up."""
        self._added += 1
        heappush(self._waiting, (due_ns + self.after_ns, self._added, cancel))

    def run(self, now_ns: int) -> None:
        """Cancel every request whose time is up."""
        while self.next_ns <= now_ns:
            heappop(self._waiting)[2]()
