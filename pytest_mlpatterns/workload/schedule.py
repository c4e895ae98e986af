"""Schedules: closed loops, open loops, stages and traces, as pure functions of elapsed time.

A schedule is a frozen value. In a closed loop it gives the number of callers at each time; in an open loop it gives the
time of each arrival, independent of the responses. This module reads no clock and sends nothing; the file of a trace is
read when the value is made.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from pytest_mlpatterns import fields
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.setup import LoadDescription, LoadKind
from pytest_mlpatterns.units import SECOND_NS, parse_duration
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.stages import Stages
from pytest_mlpatterns.workload.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ClosedLoop",
    "ClosedSchedule",
    "ConstantRate",
    "GammaRate",
    "OpenSchedule",
    "PoissonRate",
    "Schedule",
    "Stages",
]

_LEAST_BURSTINESS, _MOST_BURSTINESS = 0.01, 100


class ClosedSchedule(Protocol):
    """A schedule of callers, each of which waits for its response before it sends again."""

    @property
    def think_time_ns(self) -> int:
        """Pause of each caller between a response and its next request."""
        ...

    @property
    def length_ns(self) -> int | None:
        """Length of the schedule; None if it has no end."""
        ...

    def concurrency_at(self, elapsed_ns: int) -> int:
        """Callers at this time after the start."""
        ...


class OpenSchedule(Protocol):
    """A schedule of arrivals."""

    def arrivals(self) -> Iterator[int]:
        """Arrival times in nanoseconds from the start, ascending; the same at every call."""
        ...

    def share(self, number: int, of: int) -> Iterator[int]:
        """Those of one generator, of several that share the schedule: together they are the whole schedule.

        Args:
            number: of the generator, from 0.
            of: number of generators; one alone has all arrivals.
        """
        ...


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A fixed number of callers; each sends its next request when it has the response to its last one.

    Args:
        concurrency: callers, 1..10,000.
        think_time: pause of each caller after a response, such as ``"50ms"``.

    Raises:
        SettingError: not a whole number in that range, or an invalid time.
    """

    concurrency: int
    think_time: str = "0s"
    closed: ClassVar[bool] = True
    length_ns: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "concurrency", fields.concurrency(self.concurrency, "concurrency"))
        parse_duration(self.think_time, name="ClosedLoop(think_time=...)")

    def __str__(self) -> str:
        pause = f", think_time={self.think_time}" if self.think_time_ns else ""
        return f"closed({self.concurrency}{pause})"

    def describe(self) -> LoadDescription:
        """The load as records keep it."""
        return LoadDescription(str(self), LoadKind.CLOSED, self.concurrency, paced=self.think_time_ns > 0)

    @property
    def think_time_ns(self) -> int:
        """Pause between a response and the next request."""
        return parse_duration(self.think_time)

    @property
    def max_concurrency(self) -> int:
        """Most callers at any time."""
        return self.concurrency

    def concurrency_at(self, elapsed_ns: int) -> int:
        """The number of callers, which is constant."""
        return self.concurrency


@dataclass(frozen=True, slots=True)
class ConstantRate:
    """An open loop with even intervals: request n is due at n / rate.

    Args:
        rate_rps: requests per second, from 0.000001 to 1,000,000.

    Raises:
        SettingError: not a number in that range.
    """

    rate_rps: float
    closed: ClassVar[bool] = False
    length_ns: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate_rps", fields.rate_rps(self.rate_rps, "rate_rps"))

    def __str__(self) -> str:
        return f"constant({self.rate_rps:g}/s)"

    def describe(self) -> LoadDescription:
        """The load as records keep it."""
        return LoadDescription(str(self), LoadKind.CONSTANT)

    def due_ns(self, number: int) -> int:
        """When request ``number`` (0, 1, 2, …) is due, in nanoseconds from the start: ``number / rate``."""
        return round(number * SECOND_NS / self.rate_rps)

    def arrivals(self) -> Iterator[int]:
        """0, 1/rate, 2/rate, …"""
        return self.share(0, 1)

    def share(self, number: int, of: int) -> Iterator[int]:
        """Every n-th arrival of n generators."""
        return map(self.due_ns, itertools.count(number, of))


@dataclass(frozen=True, slots=True)
class PoissonRate:
    """An open loop of independent callers: intervals are exponential with mean 1 / rate.

    Generators that share it are callers of their own, each with its part of the rate and a seed of its own: independent
    Poisson streams merge to one (J. F. C. Kingman, Poisson Processes, 1993, section 2.2).

    Args:
        rate_rps: mean requests per second, from 0.000001 to 1,000,000.
        seed: seed of the random intervals; the same seed gives the same arrivals.

    Raises:
        SettingError: not a number in that range, or a seed that is not a whole number.
    """

    rate_rps: float
    seed: int = 0
    closed: ClassVar[bool] = False
    length_ns: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate_rps", fields.rate_rps(self.rate_rps, "rate_rps"))
        fields.set_whole(self, "seed", least=-fields.MAX_SEED, most=fields.MAX_SEED)

    def __str__(self) -> str:
        return f"poisson({self.rate_rps:g}/s{f', seed={self.seed}' if self.seed else ''})"

    def describe(self) -> LoadDescription:
        """The load as records keep it."""
        return LoadDescription(str(self), LoadKind.POISSON)

    def arrivals(self) -> Iterator[int]:
        """Cumulative sums of exponential intervals."""
        return _exponential_arrivals(self.rate_rps, self.seed)

    def share(self, number: int, of: int) -> Iterator[int]:
        """An independent stream with an n-th of the rate for each of n generators; one alone has all arrivals."""
        if of == 1:
            return self.arrivals()
        return _exponential_arrivals(self.rate_rps / of, f"{self.seed}/{number}/{of}")

    def merged_arrivals(self, of: int) -> Iterator[int]:
        """What so many generators send together."""
        return self.arrivals() if of == 1 else heapq.merge(*(self.share(number, of) for number in range(of)))


@dataclass(frozen=True, slots=True)
class GammaRate:
    """An open loop whose arrivals come in bursts: intervals are gamma distributed with mean 1 / rate.

    Args:
        rate_rps: mean requests per second, from 0.000001 to 1,000,000.
        burstiness: shape of the distribution, from 0.01 to 100, as vLLM's benchmark names it: 1 are the independent
            callers of :class:`PoissonRate`, less are bursts, more is more even. The variance of the intervals is
            1 / burstiness times that of independent callers.
        seed: seed of the random intervals; the same seed gives the same arrivals.

    Raises:
        SettingError: not a number in that range, or a seed that is not a whole number.
    """

    rate_rps: float
    burstiness: float = 1.0
    seed: int = 0
    closed: ClassVar[bool] = False
    length_ns: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate_rps", fields.rate_rps(self.rate_rps, "rate_rps"))
        shape = fields.plain_number(self.burstiness)
        if shape is None or not _LEAST_BURSTINESS <= shape <= _MOST_BURSTINESS:
            raise SettingError(
                f"GammaRate(burstiness={shown(self.burstiness)}), expected a number from {_LEAST_BURSTINESS} to "
                f"{_MOST_BURSTINESS}: 1 for independent callers, less for bursts; write 0.5"
            )
        object.__setattr__(self, "burstiness", shape)
        fields.set_whole(self, "seed", least=-fields.MAX_SEED, most=fields.MAX_SEED)

    def __str__(self) -> str:
        seed = f", seed={self.seed}" if self.seed else ""
        return f"gamma({self.rate_rps:g}/s, burstiness={self.burstiness:g}{seed})"

    def describe(self) -> LoadDescription:
        """The load as records keep it."""
        return LoadDescription(str(self), LoadKind.GAMMA)

    def arrivals(self) -> Iterator[int]:
        """Cumulative sums of gamma intervals."""
        draw = random.Random(self.seed).gammavariate  # noqa: S311 - arrivals, not secrets
        scale_s = 1 / (self.rate_rps * self.burstiness)
        due_s = 0.0
        while True:
            due_s += draw(self.burstiness, scale_s)
            yield round(due_s * SECOND_NS)

    def share(self, number: int, of: int) -> Iterator[int]:
        """Every n-th arrival of n generators: bursts have no law by which independent streams merge to one."""
        return itertools.islice(self.arrivals(), number, None, of)


def _exponential_arrivals(rate_rps: float, seed: int | str) -> Iterator[int]:
    """Cumulative sums of exponential intervals with mean 1 / rate, in nanoseconds."""
    draw = random.Random(seed).expovariate  # noqa: S311 - arrivals, not secrets
    due_s = 0.0
    while True:
        due_s += draw(rate_rps)
        yield round(due_s * SECOND_NS)


Schedule = ClosedLoop | ConstantRate | PoissonRate | GammaRate | Stages | Trace
