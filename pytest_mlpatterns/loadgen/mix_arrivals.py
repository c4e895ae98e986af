"""Arrivals of a mix: each class of callers has a schedule and requests of its own, at the same time as the others.

The class of a request follows from its index. This module reads no clock and opens no connections.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from pytest_mlpatterns.loadgen.arrivals import Arrivals, arrivals_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.messages import LoadJob
    from pytest_mlpatterns.loadgen.recorder import SampleRecorder
    from pytest_mlpatterns.workload.mix import Mix

__all__ = ["MixArrivals", "MixedRequests"]


class MixedRequests:
    """The requests of a mix: which is the next one of each class, and of which class one is.

    Args:
        job: whose schedule is a mix.
        others: gives the index of a request while the mix is not sent, as in the warm-up of a load with a length.
    """

    def __init__(self, job: LoadJob, others: Callable[[], int]) -> None:
        self._draws = [cycle(array("I", one.order)) for one in job.classes]
        self._ends = [one.end for one in job.classes]
        self._others = others
        self._ready: deque[int] = deque()

    def draw(self, number: int) -> int:
        """The next request of the class of this number."""
        return next(self._draws[number])

    def class_of(self, request: int) -> int:
        """The number of the class that a request is of."""
        return bisect_right(self._ends, request)

    def make_ready(self, number: int) -> None:
        """Let the next request that the loop asks for be one of this class."""
        self._ready.append(self.draw(number))

    def next_request(self) -> int:
        """The request that follows an answer, of the class that waits longest for it."""
        return self._ready.popleft() if self._ready else self._others()


class MixArrivals:
    """The :class:`pytest_mlpatterns.loadgen.arrivals.Arrivals` of a mix.

    Args:
        job: whose schedule is a mix.
        requests: of its classes.
        send: sends the request of this index, due at a time, or None for now.
        recording: has the row of a request when :meth:`answered` is called for it.
    """

    def __init__(
        self,
        job: LoadJob,
        requests: MixedRequests,
        send: Callable[[int, int | None], None],
        *,
        recording: SampleRecorder,
    ) -> None:
        mix: Mix = job.schedule  # type: ignore[assignment]
        self._requests = requests
        self._send = send
        self._recording = recording
        self._classes: list[Arrivals] = [
            arrivals_of(one.schedule, partial(self._send_of, number), job.share, stagger_ns=job.stagger_ns)
            for number, one in enumerate(mix.classes)
        ]

    @property
    def next_due_ns(self) -> int:
        """Time of the next call of :meth:`send_due`; ``NEVER_NS`` if only responses and ticks make requests due."""
        return min(one.next_due_ns for one in self._classes)

    def start(self, now_ns: int) -> None:
        """Start the clock of every schedule."""
        for one in self._classes:
            one.start(now_ns)

    def answered(self, now_ns: int, *, failed: bool) -> bool:
        """Note that the request of the last row has ended. Returns whether its caller sends the next one now."""
        number = self._requests.class_of(self._recording.request[-1])
        again = self._classes[number].answered(now_ns, failed=failed)
        if again:
            self._requests.make_ready(number)
        return again

    def send_due(self, now_ns: int) -> None:
        """Send every request that is due by now, the classes one after the other."""
        for one in self._classes:
            if one.next_due_ns <= now_ns:
                one.send_due(now_ns)

    def tick(self, now_ns: int) -> None:
        """Called every 50 ms."""
        for one in self._classes:
            one.tick(now_ns)

    def finish(self) -> None:
        """Send no further request."""
        for one in self._classes:
            one.finish()

    def _send_of(self, number: int, due_ns: int | None) -> None:
        self._send(self._requests.draw(number), due_ns)
