"""Bursts: an open loop whose rate jumps to a peak once in every period, as pure functions of elapsed time.

This module reads no clock and sends nothing.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_mlpatterns import fields
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.setup import LoadDescription, LoadKind
from pytest_mlpatterns.units import MAX_DURATION_NS, SECOND_NS, format_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Bursts"]

_MOST_TIMES = 10_000
"""Most bursts of one load; a window of that many is no test any more."""
_SURELY = 6.0
"""Standard deviations above its mean that a number of arrivals never has: once in a billion loads."""


@dataclass(frozen=True, slots=True)
class Bursts:
    """An open loop of independent callers whose rate jumps to a peak for a moment in every period.

    Each burst is in the middle of its period, so that the window has the time before and after it. All periods together
    are the measured window. Arrivals are a Poisson process whose rate changes with time: arrivals at rate 1 are drawn,
    and each is due when the expected number of requests reaches it (E. Çinlar, Introduction to Stochastic Processes,
    1975, section 4.7). Generators that share it are independent callers, as those of :class:`PoissonRate`.

    Args:
        rps: mean requests per second between bursts, from 0.000001 to 1,000,000; 0 for none.
        peak: mean requests per second in a burst, more than ``rps``.
        every: time from one burst to the next, such as ``"5s"``.
        length: time of a burst, such as ``"500ms"``, less than ``every``.
        times: number of periods, each with a burst, from 1 to 10,000.
        seed: seed of the random arrivals; the same seed gives the same ones.

    Raises:
        SettingError: a rate or number that is not in its range, a peak below the rate, or bursts without an end.
        UnitError: a time without a unit.
    """

    rps: float
    peak: float
    every: str = "5s"
    length: str = "500ms"
    times: int = 1
    seed: int = 0
    closed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        usual = 0 if fields.plain_number(self.rps) == 0 else fields.rate_rps(self.rps, "Bursts(rps=...)")
        object.__setattr__(self, "rps", usual)
        object.__setattr__(self, "peak", fields.rate_rps(self.peak, "Bursts(peak=...)"))
        if self.peak <= self.rps:
            raise SettingError(
                f"Bursts(rps={self.rps:g}, peak={self.peak:g}), expected a peak above the rate between bursts; write "
                f"peak={10 * max(self.rps, 1):g}"
            )
        if not 0 < self.burst_ns < self.period_ns:
            raise SettingError(
                f"Bursts(every={self.every!r}, length={self.length!r}), expected a burst above zero that is shorter "
                'than its period; write every="5s", length="500ms"'
            )
        fields.set_whole(self, "times", least=1, most=_MOST_TIMES)
        fields.set_whole(self, "seed", least=-fields.MAX_SEED, most=fields.MAX_SEED)
        if self.length_ns > MAX_DURATION_NS:
            raise SettingError(
                f"Bursts(every={self.every!r}, times={self.times}) lasts {format_duration(self.length_ns)}, expected "
                f"at most {format_duration(MAX_DURATION_NS)}; ask for fewer bursts"
            )

    def __str__(self) -> str:
        times = f", times={self.times}" if self.times > 1 else ""
        seed = f", seed={self.seed}" if self.seed else ""
        return f"bursts({self.rps:g}/s, {self.peak:g}/s for {self.length} every {self.every}{times}{seed})"

    def describe(self) -> LoadDescription:
        """The load as records keep it."""
        return LoadDescription(str(self), LoadKind.BURSTS)

    @property
    def period_ns(self) -> int:
        """Time from one burst to the next."""
        return parse_duration(self.every, name="Bursts(every=...)")

    @property
    def burst_ns(self) -> int:
        """Time of a burst."""
        return parse_duration(self.length, name="Bursts(length=...)")

    @property
    def length_ns(self) -> int:
        """Length of all periods."""
        return self.times * self.period_ns

    @property
    def mean_arrivals(self) -> float:
        """Expected number of requests of all periods."""
        usual_ns = self.period_ns - self.burst_ns
        return self.times * (self.rps * usual_ns + self.peak * self.burst_ns) / SECOND_NS

    @property
    def most_arrivals(self) -> int:
        """A number of requests that no seed exceeds."""
        return math.ceil(self.mean_arrivals + _SURELY * math.sqrt(self.mean_arrivals) + _SURELY)

    def rate_at(self, elapsed_ns: int) -> float:
        """Mean requests per second at this time after the start; 0 after the last period."""
        if not 0 <= elapsed_ns < self.length_ns:
            return 0.0
        since_ns = elapsed_ns % self.period_ns - self._lead_ns
        return self.peak if 0 <= since_ns < self.burst_ns else self.rps

    def arrivals(self) -> Iterator[int]:
        """Times of the requests, in nanoseconds from the start, ascending."""
        return self.share(0, 1)

    def share(self, number: int, of: int) -> Iterator[int]:
        """An independent stream with an n-th of the rate for each of n generators; one alone has all arrivals."""
        draw = random.Random(self.seed if of == 1 else f"{self.seed}/{number}/{of}").expovariate  # noqa: S311 - no secrets
        expected = 0.0
        while (expected := expected + draw(1 / of)) < self.mean_arrivals:
            yield min(round(self._reached_s(expected) * SECOND_NS), self.length_ns - 1)

    @property
    def _lead_ns(self) -> float:
        """Time from the beginning of a period to its burst."""
        return (self.period_ns - self.burst_ns) / 2

    def _reached_s(self, expected: float) -> float:
        """When the expected number of requests reaches this one, in seconds from the start.

        It is piecewise linear: within a period it grows by ``rps``, in the burst by ``peak``.
        """
        periods, left = divmod(expected, self.mean_arrivals / self.times)
        lead_s, burst_s = self._lead_ns / SECOND_NS, self.burst_ns / SECOND_NS
        before, within = self.rps * lead_s, self.peak * burst_s
        if left < before:
            since_s = left / self.rps
        elif left < before + within:
            since_s = lead_s + (left - before) / self.peak
        else:
            after = left - before - within
            since_s = lead_s + burst_s + (after / self.rps if self.rps else 0.0)
        return periods * self.period_ns / SECOND_NS + since_s
