"""The samples of a load, one row per request, and the measured window.

numpy appears in annotations only, so that importing this module costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


__all__ = ["Samples", "Window"]


@dataclass(frozen=True, slots=True)
class Window:
    """The measured stretch of time, on the clock of ``time.perf_counter_ns``."""

    start_ns: int
    end_ns: int

    @property
    def duration_ns(self) -> int:
        """Length of the window."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True)
class Samples:
    """One row per request, all arrays of shape ``(requests,)``, in the order of completion.

    ``due_ns``, ``sent_ns`` and ``done_ns`` (int64) are on the clock of ``time.perf_counter_ns``: when the request was
    due, when the generator sent it or, if all connections were in use, was ready to send it, and when its last byte
    arrived. ``outcome`` (int16) is the HTTP status, or one of the negative codes of
    :class:`pytest_mlpatterns.records.outcomes.Failure`. ``request`` (uint32) is the index of the prepared request,
    ``target`` (uint8) the index of the address, ``received_bytes`` (uint32) the size of the whole response, headers
    included.
    """

    due_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    outcome: NDArray[np.int16]
    request: NDArray[np.uint32]
    target: NDArray[np.uint8]
    received_bytes: NDArray[np.uint32]

    @property
    def latency_ns(self) -> NDArray[np.int64]:
        """Time from when each request was due until its last byte arrived, in nanoseconds."""
        return self.done_ns - self.due_ns

    @property
    def send_lag_ns(self) -> NDArray[np.int64]:
        """Time by which the generator itself was late, in nanoseconds; the wait for a connection is the service's."""
        return self.sent_ns - self.due_ns

    @property
    def succeeded(self) -> NDArray[np.bool_]:
        """Mask of the requests that got a 2xx response."""
        return (self.outcome >= 200) & (self.outcome < 300)

    def due_in(self, window: Window) -> NDArray[np.bool_]:
        """Mask of the requests that were due in the window."""
        return (self.due_ns >= window.start_ns) & (self.due_ns < window.end_ns)

    def successes_in(self, window: Window) -> NDArray[np.bool_]:
        """Mask of the successful requests that were due in the window."""
        return self.due_in(window) & self.succeeded
