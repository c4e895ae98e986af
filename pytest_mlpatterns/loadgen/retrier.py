"""Retries of one generator: which failed attempts are followed by another one, when, and the queue of those to come.

A request that is tried again has one row in the recording, that of its last attempt. The number of its attempts is
noted beside it. :class:`Retrier` decides and is shared by both loops; :class:`Resending` holds what the loop over our
own connections sends later, and ends attempts that take too long. They read no clock but that of the wall, for an
answer that names a date.
"""

from __future__ import annotations

import re
import time
from collections import deque
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.workload.retries import may_be_retried

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.connection import Connection
    from pytest_mlpatterns.loadgen.messages import Share
    from pytest_mlpatterns.loadgen.recorder import SampleRecorder
    from pytest_mlpatterns.workload.retries import Retries

__all__ = ["FULL_TOKENS", "Attempt", "Resending", "Retrier", "RetryBudget", "retry_after_ns"]

FULL_TOKENS = 100.0
"""Most retries that a budget saves up: enough for a moment of refusals, too few for a storm."""
_ROUNDING = 1e-9
"""Share of a token by which sums of shares may be wrong: ten tenths are 0.9999999999999999."""
_RETRY_AFTER = re.compile(rb"\r\nretry-after:([^\r\n]*)", re.IGNORECASE)
_SECONDS = re.compile(rb"\d{1,9}")


def retry_after_ns(head: bytes, clock: Callable[[], float] = time.time) -> int:
    """How long an answer asks its client to wait, in its header ``Retry-After`` (RFC 9110, 10.2.3); 0 if it does not.

    Args:
        head: of the answer, as the protocols give it.
        clock: seconds since 1970, for an answer that names a date.
    """
    found = _RETRY_AFTER.search(head)
    if found is None:
        return 0
    text = found[1].strip()
    if _SECONDS.fullmatch(text):
        return int(text) * SECOND_NS
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text.decode("latin-1"))
        return max(round((date.timestamp() - clock()) * SECOND_NS), 0)
    except (ValueError, OverflowError):  # neither a number nor a date
        return 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a request.

    Attributes:
        request: index of the prepared request.
        due_ns: when the request was due.
        sent_ns: when its first attempt was sent.
        number: 1 for the first attempt.
    """

    request: int
    due_ns: int
    sent_ns: int
    number: int = 1

    @property
    def next(self) -> Attempt:
        """The attempt after it."""
        return replace(self, number=self.number + 1)


class RetryBudget:
    """A token bucket: each request puts in a share of a token, each retry takes one.

    So the retries are at most that share of the requests, however many fail. The bucket is empty at the beginning.

    Args:
        share: of a token.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._tokens = 0.0

    def deposit(self) -> None:
        """Note a request."""
        self._tokens = min(self._tokens + self._share, FULL_TOKENS)

    def withdraw(self) -> bool:
        """Take a token for a retry. Returns whether there was one."""
        if self._tokens < 1 - _ROUNDING:
            return False
        self._tokens -= 1
        return True


class Retrier:
    """Decides whether a request that failed is tried again, and when.

    Args:
        retries: how.
        share: of the load that this generator sends; each draws waits of its own, and has a budget of its own.
        timeout_ns: bound of all attempts of a request together.
        recording: takes the number of attempts for the next row.

    Attributes:
        resent: number of retries that were decided; the load run counts them anew with its window.
        honours: whether the head of an answer is needed.
    """

    def __init__(self, retries: Retries, share: Share, *, timeout_ns: int, recording: SampleRecorder) -> None:
        self.resent: int = 0
        self.honours: bool = retries.honour_retry_after
        self._retries = retries
        self._timeout_ns = timeout_ns
        self._recording = recording
        self._budget = None if retries.share is None else RetryBudget(retries.share)
        self._draw = Random(f"{retries.seed}/{share.number}/{share.of}").random  # noqa: S311 - waits, not secrets

    @property
    def attempt_timeout_ns(self) -> int | None:
        """Longest time of an attempt; None if there is no such bound."""
        return self._retries.attempt_timeout_ns

    def wait_ns(
        self, attempt: Attempt, outcome: int, now_ns: int, *, head: bytes = b"", has_begun: bool = False
    ) -> int | None:
        """How long to wait before the next attempt; None if this one was the last, whose row is then added next.

        Args:
            attempt: the one that has ended.
            outcome: its outcome.
            now_ns: when it ended.
            head: of its answer.
            has_begun: whether a part of a streamed answer had come, which clients have shown already.
        """
        if attempt.number == 1 and self._budget is not None:
            self._budget.deposit()
        found_ns, is_denied = None, False
        if may_be_retried(outcome) and not has_begun and attempt.number <= self._retries.count:
            asked_ns = retry_after_ns(head) if self.honours and head else 0
            found_ns = self._retries.wait_ns(attempt.number, self._draw(), asked_ns)
            if now_ns + found_ns >= attempt.due_ns + self._timeout_ns:
                found_ns = None
            elif self._budget is not None and not self._budget.withdraw():
                found_ns, is_denied = None, True
        if found_ns is None:
            self._recording.note_attempts(attempt.number, is_denied=is_denied)
        else:
            self.resent += 1
        return found_ns


class Resending:
    """The attempts that wait for their time, and the limits of those in flight.

    Args:
        retrier: decides.
        send: sends an attempt.
    """

    def __init__(self, retrier: Retrier, send: Callable[[Attempt], None]) -> None:
        self.retrier: Retrier = retrier
        self._send = send
        self._waiting: list[tuple[int, int, Attempt]] = []
        self._added = 0
        self._limit_ns = retrier.attempt_timeout_ns
        self._limits: deque[tuple[int, Connection, Attempt]] = deque()

    @property
    def waiting(self) -> int:
        """Number of requests that wait for their next attempt."""
        return len(self._waiting)

    @property
    def next_ns(self) -> int:
        """Time of the next call of :meth:`run`; ``NEVER_NS`` if nothing waits."""
        next_ns = self._waiting[0][0] if self._waiting else NEVER_NS
        return min(next_ns, self._limits[0][0]) if self._limits else next_ns

    def watch(self, connection: Connection, attempt: Attempt, now_ns: int) -> None:
        """End this attempt of a connection when its time is up."""
        if self._limit_ns is None:
            return
        limits = self._limits
        while limits and limits[0][1].attempt is not limits[0][2]:  # it has ended
            limits.popleft()
        limits.append((now_ns + self._limit_ns, connection, attempt))

    def is_tried_again(
        self, attempt: Attempt, outcome: int, now_ns: int, *, head: bytes = b"", has_begun: bool = False
    ) -> bool:
        """Note that an attempt has ended. Returns whether another one follows; arguments as :meth:`Retrier.wait_ns`."""
        wait_ns = self.retrier.wait_ns(attempt, outcome, now_ns, head=head, has_begun=has_begun)
        if wait_ns is None:
            return False
        self._added += 1
        heappush(self._waiting, (now_ns + wait_ns, self._added, attempt.next))
        return True

    def run(self, now_ns: int) -> None:
        """End the attempts whose time is up, and send those that are due."""
        limits = self._limits
        while limits and limits[0][0] <= now_ns:
            _, connection, attempt = limits.popleft()
            if connection.attempt is attempt:
                connection.fail(Failure.TIMEOUT)
        while self._waiting and self._waiting[0][0] <= now_ns:
            self._send(heappop(self._waiting)[2])
