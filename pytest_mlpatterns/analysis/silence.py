"""Whether a service still answered at the end of a load. Pure; it must not know processes or sockets.

In a closed loop a service that deadlocks fails only as many requests as there are callers, 4 of 46,000, so a share of
failed requests never shows it. What shows it is the last request of each caller. Since every caller asks again as soon
as it has its answer (and has paused), nothing was answered any more if the last answer came before the end of the
window.

An open loop shows its end by its failed requests: over 5 % of them make it invalid anyway. There, and wherever a single
request got no answer, one more request shows whether the service is dead or lost a request.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.verdicts import MAX_ERROR_RATIO
from pytest_mlpatterns.records.outcomes import Failure, describe_failures
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from pytest_mlpatterns.records.samples import Samples, Window

__all__ = ["Silence", "silence_of"]

_LATE = frozenset((Failure.TIMEOUT, Failure.NOT_ENDED))
"""Failures of a request whose response did not end in its time."""
_UNANSWERED = (*_LATE, Failure.CONNECT, Failure.CLOSED)
_RETRY_NS = 100_000_000
"""A caller whose connection failed pauses for less than this, so its last request may have ended before the window."""
_LONG_NS = 1_000_000_000
"""Shorter than this, a silence may be a pause of the service."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Requests without an answer at the end of a load.

    Attributes:
        since_ns: time of the last answer after the start of the window; None if none came in it.
        lasted_ns: time from that, or from the start of the window, to the end of the load.
        requests: requests that were due in the window.
        failed: how many of them failed.
        outcomes: how the last requests without an answer ended.
        waiting: requests that waited when the window ended, and got no answer.
        everyone: whether no caller of a closed loop got an answer to its last request.
        request: index of the prepared request that was answered last; of the first one if none was.
        target: index of the address that gave no answer.
    """

    since_ns: int | None
    lasted_ns: int
    requests: int
    failed: int
    outcomes: dict[int, int]
    waiting: int
    everyone: bool
    request: int
    target: int

    @property
    def is_certain(self) -> bool:
        """Whether the service surely gave up, so that one more request adds nothing.

        A single caller may have met the one request that hangs; a short silence may be a pause; and if nothing
        succeeded in a window in which callers asked more than once, the number of failed requests says it.
        """
        if not self.requests:
            return self.everyone
        together = self.everyone and self.waiting > 1 and self.outcomes.keys() <= _LATE
        by_number = self.failed == self.requests > self.waiting
        return together and self.lasted_ns >= _LONG_NS and not by_number

    @property
    def is_suspected(self) -> bool:
        """Whether one more request is worth its time: not if so many failed that the measurement is invalid anyway."""
        return self.requests > 0 and self.failed <= MAX_ERROR_RATIO * self.requests

    def describe(self, window: Window, timeout_ns: int) -> str:
        """A sentence without its full stop: ``no answer since 3.20 s of the window: all 4 callers timed out``."""
        since = "in the whole window"
        if self.since_ns is not None:
            since = f"since {format_duration(self.since_ns - window.start_ns)} of the window"
        if not self.everyone:
            last = wording.count(sum(self.outcomes.values()), "last request")
            return f"the service no longer answers: {last} without an answer ({describe_failures(self.outcomes)})"
        if not self.outcomes.keys() <= _LATE:
            return f"no answer {since}: every request failed ({describe_failures(self.outcomes)})"
        who = f"all {self.waiting:,} callers" if self.waiting > 1 else "the only caller"
        if Failure.TIMEOUT not in self.outcomes:
            return f"no response ended {since}: {who} got [DONE], and no end of HTTP in {format_duration(timeout_ns)}"
        return f"no answer {since}: {who} timed out after {format_duration(timeout_ns)}"


def silence_of(samples: Samples, window: Window, *, think_ns: int | None) -> Silence | None:
    """The requests without an answer at the end of a load; None if every last request was answered.

    Args:
        samples: every request of the load, warm-up included.
        window: the measured window.
        think_ns: pause of each caller of a closed loop; None for an open loop.
    """
    unanswered = np.isin(samples.outcome, _UNANSWERED)
    was_answered = ~(unanswered | samples.cancelled)
    answered_ns = int(samples.done_ns[was_answered].max(initial=np.iinfo(np.int64).min))
    last = unanswered & (samples.done_ns >= window.end_ns - _RETRY_NS)
    if not last.any():
        return None
    since = last & (samples.done_ns > answered_ns)
    inside = samples.due_in(window)
    waited = unanswered & (samples.due_ns < window.end_ns) & (samples.done_ns >= window.end_ns)
    answered = np.flatnonzero(was_answered)
    in_window = answered_ns >= window.start_ns
    return Silence(
        since_ns=answered_ns if in_window else None,
        lasted_ns=int(samples.done_ns[last].max()) - (answered_ns if in_window else window.start_ns),
        requests=int(inside.sum()),
        failed=int((inside & ~samples.succeeded).sum()),
        outcomes=dict(Counter(samples.outcome[last].tolist()).most_common()),
        waiting=int(waited.sum()),
        everyone=think_ns is not None and bool(since.any()) and answered_ns + think_ns < window.end_ns,
        request=int(samples.request[answered[-1]]) if answered.size else 0,
        target=int(samples.target[np.flatnonzero(last)[0]]),
    )
