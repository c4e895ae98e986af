"""Retries: which failed requests a load sends again, how often, and after which wait.

Sources: exponential backoff with full jitter is that of M. Brooker, "Exponential Backoff And Jitter", AWS Architecture
Blog, 2015. The budget is a token bucket as that of Finagle's ``RetryBudget`` (each request puts in a share of a token,
each retry takes one) and of gRPC's retry throttling (proposal A6). What retries without a budget do to a service at its
limit is described in N. Bronson et al., "Metastable Failures in Distributed Systems", HotOS 2021.

Pure: it reads no clock and draws no random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_mlpatterns import fields
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.outcomes import GRPC_OUTCOMES, Failure
from pytest_mlpatterns.units import parse_duration, parse_share
from pytest_mlpatterns.wording import shown

__all__ = ["MOST_RETRIES", "Retries", "may_be_retried"]

MOST_RETRIES = 100
"""Most retries of a request; its attempts are counted in eight bits."""
_FAILURES = (Failure.TIMEOUT, Failure.CONNECT, Failure.CLOSED, Failure.RESET)
"""Failures without an answer after which a client may try again."""
_STATUSES = (408, 429)
"""Statuses of HTTP below 500 that ask for another attempt: Request Timeout, Too Many Requests."""
_GRPC = tuple(GRPC_OUTCOMES + status for status in (4, 8, 13, 14))
"""DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL and UNAVAILABLE of gRPC."""


def may_be_retried(outcome: int) -> bool:
    """Whether clients send a request again that ended so: no answer, 408, 429, 5xx, or such a status of gRPC."""
    return outcome in _FAILURES or outcome in _STATUSES or 500 <= outcome < 600 or outcome in _GRPC


@dataclass(frozen=True, slots=True)
class Retries:
    """Failed requests are sent again: those without an answer, and those answered with 408, 429 or 5xx.

    The latency of a request counts from when it was due to the answer to its last attempt, whose outcome is that of the
    request. ``perf(timeout=...)`` bounds all attempts of a request together, and no attempt begins after it.

    Args:
        count: most retries of a request, 1..100: attempts beside the first one.
        backoff: wait before the first retry; it doubles with each further one.
        jitter: whether the wait is drawn evenly between 0 and the backoff, so that requests that failed together do not
            come back together.
        honour_retry_after: whether a retry waits at least as long as the header ``Retry-After`` of the answer asks for.
        budget: most retries as a share of the requests, such as ``0.1`` or ``"10%"``, over the whole load; None: no
            budget. It is a bucket of at most 100 tokens, empty at the beginning: each request puts in this share of a
            token when its first attempt has ended, and each retry takes one.
        attempt_timeout: an attempt that takes longer has failed; None: only ``perf(timeout=...)`` ends it, and then
            there is no retry.
        seed: seed of the waits; the same seed draws the same ones.

    Raises:
        SettingError: a number out of range, or another value than True or False.
        UnitError: a time without a unit, or no share.
    """

    count: int
    backoff: str = "100ms"
    jitter: bool = True
    honour_retry_after: bool = True
    budget: float | str | None = None
    attempt_timeout: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        fields.set_whole(self, "count", least=1, most=MOST_RETRIES)
        fields.set_whole(self, "seed", least=-fields.MAX_SEED, most=fields.MAX_SEED)
        parse_duration(self.backoff, name="Retries(backoff=...)")
        fields.check_truth(self, "jitter", "honour_retry_after")
        if self.budget is not None:
            share = parse_share(self.budget, name="Retries(budget=...)")
            if not share:
                raise SettingError(
                    f"Retries(budget={shown(self.budget)}), expected a share above 0; write 0.1, or leave retries= out"
                )
            object.__setattr__(self, "budget", share)
        if self.attempt_timeout is not None and not parse_duration(
            self.attempt_timeout, name="Retries(attempt_timeout=...)"
        ):
            raise SettingError(
                f"Retries(attempt_timeout={shown(self.attempt_timeout)}), expected a time above zero; write 500ms"
            )

    def __str__(self) -> str:
        parts = [f"{self.count}, backoff={self.backoff}"]
        parts += ["jitter=False"] if not self.jitter else []
        parts += ["honour_retry_after=False"] if not self.honour_retry_after else []
        parts += [f"budget={self.budget:g}"] if isinstance(self.budget, float) else []
        parts += [f"attempt_timeout={self.attempt_timeout}"] if self.attempt_timeout is not None else []
        parts += [f"seed={self.seed}"] if self.seed else []
        return f"retries({', '.join(parts)})"

    @property
    def share(self) -> float | None:
        """Most retries as a share of the requests; None without a budget."""
        return None if self.budget is None else float(self.budget)

    @property
    def attempt_timeout_ns(self) -> int | None:
        """Longest time of an attempt; None if only the time-out of the request bounds it."""
        return None if self.attempt_timeout is None else parse_duration(self.attempt_timeout)

    def backoff_ns(self, retry: int) -> int:
        """The backoff before this retry of a request (1, 2, …): ``backoff · 2^(retry - 1)``."""
        return parse_duration(self.backoff) << (retry - 1)

    def wait_ns(self, retry: int, drawn: float, retry_after_ns: int = 0) -> int:
        """The wait before this retry of a request.

        Args:
            retry: 1 for the first one.
            drawn: a random number, at least 0 and below 1; ignored without jitter.
            retry_after_ns: what the answer asked for; 0 if it asked for nothing.
        """
        backoff_ns = self.backoff_ns(retry)
        own_ns = round(drawn * backoff_ns) if self.jitter else backoff_ns
        return max(own_ns, retry_after_ns) if self.honour_retry_after else own_ns
