"""Schedules: closed loops, open loops, stages and traces, as pure functions of elapsed time.

A schedule is a frozen value. In a closed loop it gives the number of callers at each time; in an open loop it gives the
time of each arrival, independent of the responses. This module reads no clock and sends nothing; the file of a trace is
read when the value is made.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from pytest_mlpatterns import fields
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.setup import LoadDescription, LoadKind
from pytest_mlpatterns.units import SECOND_NS, parse_duration
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.trace import Trace

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
        return map(self.due_ns, itertools.count())


@dataclass(frozen=True, slots=True)
class PoissonRate:
    """An open loop of independent callers: intervals are exponential with mean 1 / rate.

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
        draw = random.Random(self.seed).expovariate  # noqa: S311 - arrivals, not secrets
        due_s = 0.0
        while True:
            due_s += draw(self.rate_rps)
            yield round(due_s * SECOND_NS)


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


@dataclass(frozen=True, slots=True)
class Stages:
    """A load that changes over time: ramps, plateaus and spikes. The stages together are the measured window.

    During a stage the level changes linearly from the end of the previous stage to its own level; a stage of ``"0s"``
    is a jump.

    Args:
        stages: ``(duration, level)`` pairs such as ``("10s", 100)``.
        of: unit of the levels, ``"rate_rps"`` (an open loop) or ``"concurrency"`` (a closed loop).
        start: level before the first stage.

    Raises:
        SettingError: no stage, an invalid time or level, or level 0 all the time.
    """

    stages: tuple[tuple[str, float], ...]
    of: Literal["rate_rps", "concurrency"] = "rate_rps"
    start: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.of, str) or self.of not in ("rate_rps", "concurrency"):
            raise SettingError(f"Stages(of={shown(self.of)}), expected 'rate_rps' or 'concurrency'")
        found = self.stages
        pairs = isinstance(found, Sequence) and all(isinstance(one, Sequence) and len(one) == 2 for one in found)
        if not pairs or not found:
            raise SettingError(
                f"Stages({shown(found)}), expected (duration, level) pairs; write [('10s', 100), ('5s', 0)]"
            )
        object.__setattr__(self, "start", self._level(self.start))
        object.__setattr__(self, "stages", tuple((duration, self._level(level)) for duration, level in found))
        if not any(self._areas()):
            raise SettingError(f"Stages({shown(found)}) never sends anything, expected some time above level 0")

    def __str__(self) -> str:
        steps = ", ".join(f"{duration}→{level:g}" for duration, level in self.stages)
        return f"stages({self.of}: {self.start:g}, {steps})"

    def describe(self) -> LoadDescription:
        """The load as records keep it."""
        return LoadDescription(str(self), LoadKind.STAGES)

    def _level(self, given: object) -> float:
        """A level as a plain number, which may be 0."""
        read = fields.rate_rps if self.of == "rate_rps" else fields.concurrency
        return 0 if fields.plain_number(given) == 0 else read(given, f"Stages level ({self.of})")

    def _areas(self) -> Iterator[float]:
        """The integral of twice the level over each stage."""
        before = self.start
        for duration, level in self.stages:
            yield parse_duration(duration, name="Stages duration") * (before + level)
            before = level

    @property
    def closed(self) -> bool:
        """Whether it is a closed loop."""
        return self.of == "concurrency"

    @property
    def length_ns(self) -> int:
        """Total length of the stages."""
        return sum(parse_duration(duration, name="Stages duration") for duration, _ in self.stages)

    @property
    def max_concurrency(self) -> int:
        """Most callers at any time."""
        return int(max(self.start, *(level for _, level in self.stages)))

    @property
    def think_time_ns(self) -> int:
        """No pause."""
        return 0

    def level_at(self, elapsed_ns: int) -> float:
        """The level at this time; linear between the ends of stages."""
        begin, before = 0, self.start
        for duration, level in self.stages:
            end = begin + parse_duration(duration)
            if elapsed_ns < end:
                return before + (level - before) * (elapsed_ns - begin) / (end - begin)
            begin, before = end, level
        return before

    def concurrency_at(self, elapsed_ns: int) -> int:
        """Callers at this time, the level rounded to the nearest whole number."""
        return round(self.level_at(elapsed_ns))

    def arrivals(self) -> Iterator[int]:
        """Request n is due when the integral of the rate reaches n.

        Within a stage of length T from rate a to rate b the integral is a t + (b - a) t² / 2T; its inverse at x is
        2x / (a + sqrt(a² + 2 x (b - a) / T)), which holds for a = b too.
        """
        begin_s, before, reached, number = 0.0, float(self.start), 0.0, 0
        for duration, level in self.stages:
            length_s = parse_duration(duration) / SECOND_NS
            gained = (before + level) / 2 * length_s
            slope = (level - before) / length_s if length_s else 0.0
            while number < reached + gained - 1e-9:
                x = number - reached
                root = math.sqrt(max(0.0, before * before + 2 * x * slope))
                yield round((begin_s + (2 * x / (before + root) if x > 0 else 0.0)) * SECOND_NS)
                number += 1
            begin_s, before, reached = begin_s + length_s, float(level), reached + gained


Schedule = ClosedLoop | ConstantRate | PoissonRate | GammaRate | Stages | Trace
