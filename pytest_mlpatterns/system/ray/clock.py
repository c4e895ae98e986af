"""The clock of another machine, from calls to it: NTP's rule for the smallest of several round trips.

Pure: it takes times and reads none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SAME_CLOCK", "ClockOffset", "RoundTrip", "offset_of"]


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """One call to the other machine.

    Attributes:
        sent_ns: when it was sent, on this machine's clock.
        remote_ns: what the other machine's clock showed.
        received_ns: when the answer came, on this machine's clock.
    """

    sent_ns: int
    remote_ns: int
    received_ns: int

    @property
    def duration_ns(self) -> int:
        """How long it took."""
        return self.received_ns - self.sent_ns


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """How far the clock of another machine is ahead of this one.

    Attributes:
        offset_ns: other clock minus this clock.
        error_ns: largest error of that.
    """

    offset_ns: int
    error_ns: int

    def here(self, remote_ns: int) -> int:
        """A time of the other clock on this one."""
        return remote_ns - self.offset_ns

    def there(self, local_ns: int) -> int:
        """A time of this clock on the other one."""
        return local_ns + self.offset_ns


SAME_CLOCK = ClockOffset(0, 0)


def offset_of(trips: Sequence[RoundTrip], *, same_machine: bool = False) -> ClockOffset:
    """The offset by the call with the smallest round trip, d: its middle, with an error of at most d / 2.

    Source: D. L. Mills, Internet Time Synchronization: the Network Time Protocol, 1991 (the clock filter).

    Args:
        trips: at least one call.
        same_machine: both ends say that they run on one machine. Its processes share a clock, which the calls must bear
            out: a container can have a clock of its own.
    """
    best = min(trips, key=lambda trip: trip.duration_ns)
    middle_ns = (best.sent_ns + best.received_ns) // 2
    measured = ClockOffset(best.remote_ns - middle_ns, (best.duration_ns + 1) // 2)
    return SAME_CLOCK if same_machine and abs(measured.offset_ns) <= measured.error_ns else measured
