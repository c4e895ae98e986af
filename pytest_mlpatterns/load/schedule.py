"""When requests are due: closed loop or open loop, as pure functions of time.

A schedule is a frozen value. This module reads no clock, sends nothing and knows no pytest.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_mlpatterns.errors import SettingError

__all__ = ["MAX_CONCURRENCY", "ClosedLoop", "ConstantRate", "Schedule"]

MAX_CONCURRENCY = 4096
"""Most requests in flight that one generator process is asked for."""
_MAX_RATE_RPS = 1_000_000


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A fixed number of callers; each sends its next request as soon as its last one is answered.

    Args:
        concurrency: requests in flight, 1..4096.

    Raises:
        SettingError: not a whole number in that range.
    """

    concurrency: int

    def __post_init__(self) -> None:
        if isinstance(self.concurrency, bool) or not isinstance(self.concurrency, int):
            raise SettingError(
                f"concurrency is {self.concurrency!r}, expected a whole number of requests in flight; write 16"
            )
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise SettingError(f"concurrency is {self.concurrency}, expected 1 to {MAX_CONCURRENCY} requests in flight")

    def __str__(self) -> str:
        return f"closed({self.concurrency})"


@dataclass(frozen=True, slots=True)
class ConstantRate:
    """An open loop: requests are due at even intervals, whatever the answers do.

    Args:
        rate_rps: requests per second, above 0 and at most 1,000,000.

    Raises:
        SettingError: not a number in that range.
    """

    rate_rps: float

    def __post_init__(self) -> None:
        if isinstance(self.rate_rps, bool) or not isinstance(self.rate_rps, int | float):
            raise SettingError(f"rate_rps is {self.rate_rps!r}, expected requests per second; write 200")
        if not 0 < self.rate_rps <= _MAX_RATE_RPS:
            raise SettingError(f"rate_rps is {self.rate_rps}, expected above 0 and at most {_MAX_RATE_RPS:,} req/s")

    def __str__(self) -> str:
        return f"constant({self.rate_rps:g}/s)"

    def due_ns(self, number: int) -> int:
        """When request ``number`` (0, 1, 2, …) is due, in nanoseconds from the start: ``number / rate``."""
        return round(number * 1_000_000_000 / self.rate_rps)


Schedule = ClosedLoop | ConstantRate
