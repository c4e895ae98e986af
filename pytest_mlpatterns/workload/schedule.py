"""Schedules: closed loops, open loops, stages and traces, as pure functions of elapsed time.

A schedule is a frozen value. In a closed loop it gives the number of callers at each time; in an open loop it gives the
time of each arrival, independent of the responses. This module reads no clock and sends nothing; the file of a trace is
read when the value is made.
"""

import csv
import heapq
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pytest_mlpatterns import fields
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import plain_number
from pytest_mlpatterns.units import MAX_DURATION_NS, SECOND_NS, format_duration, parse_duration
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.text_file import read_lines

MAX_TRACE_BYTES = 256 * 2**20  # Largest file of timestamps
_LEAST_BURSTINESS, _MOST_BURSTINESS = 0.01, 100


@dataclass(frozen=True, slots=True)
class Trace:
    """Recorded arrivals, replayed. The whole trace is the measured window.

    Args:
        path: file of timestamps in seconds, one per request: JSON lines (a number, or an object with the key
            ``column``) or CSV with a heading. The earliest timestamp is the start.
        column: key or heading of the timestamps.
        speed: 2.0 replays in half the time.

    Raises:
        SettingError: the file or one of its timestamps cannot be read; the message names the line.
    """

    path: str | Path
    column: str = "timestamp"
    speed: float = 1.0
    closed: ClassVar[bool] = False
    _offsets_ns: tuple[int, ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            path = Path(self.path)
        except TypeError:
            raise SettingError(
                f"Trace({shown(self.path)}), expected a file of timestamps; write Trace('arrivals.csv')"
            ) from None
        speed = plain_number(self.speed)
        if speed is None or not 1e-9 <= speed <= 1e9:
            raise SettingError(
                f"Trace(speed={shown(self.speed)}), expected a factor above 0; 2.0 replays in half the time"
            )
        object.__setattr__(self, "speed", speed)
        if not isinstance(self.column, str):
            raise SettingError(f"Trace(column={shown(self.column)}), expected the name of the timestamps as text")
        seconds = sorted(_read_trace(path, self.column))
        if len(seconds) < 2:
            raise SettingError(f"Trace({shown(str(self.path))}) has {len(seconds)} timestamps, expected at least 2")
        if (length := (seconds[-1] - seconds[0]) / speed * SECOND_NS) > MAX_DURATION_NS:
            raise SettingError(
                f"Trace({shown(str(self.path))}, speed={speed:g}) lasts {length / SECOND_NS:.3g} s, expected at most "
                f"{MAX_DURATION_NS // SECOND_NS:,} s; give timestamps in seconds"
            )
        offsets = tuple(round((moment - seconds[0]) / speed * SECOND_NS) for moment in seconds)
        object.__setattr__(self, "_offsets_ns", offsets)

    def __str__(self) -> str:
        speed = "" if self.speed == 1 else f", speed={self.speed:g}"
        return f"trace({Path(self.path).name}, {len(self._offsets_ns):,} in {format_duration(self.length_ns)}{speed})"

    @property
    def length_ns(self) -> int:
        """Time from the first request to just after the last."""
        return self._offsets_ns[-1] + 1

    @property
    def arrivals_count(self) -> int:
        """Number of requests."""
        return len(self._offsets_ns)

    def arrivals(self, number: int = 0, of: int = 1) -> Iterator[int]:
        """The recorded times from the start, divided by the speed; for each of n generators every n-th."""
        return itertools.islice(self._offsets_ns, number, None, of)


def _read_trace(path: Path, column: str) -> Iterator[float]:
    """Timestamps in seconds, in the order of the file."""
    rows = _rows_of_csv if path.suffix.lower() == ".csv" else _rows_of_json
    for number, row in rows(_lines_of(path), path):
        try:
            value = json.loads(row) if isinstance(row, str) else row
            moment = float(value[column] if isinstance(value, dict) else value)  # type: ignore[arg-type]
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            moment = math.nan
        if not math.isfinite(moment):
            raise SettingError(
                f"Trace({shown(str(path))}) row {number} is {shown(row)}, expected a number of seconds, or one under "
                f"{shown(column)}"
            )
        yield moment


def _lines_of(path: Path) -> Iterator[str]:
    found = f"Trace({shown(str(path))})"
    try:
        yield from read_lines(path, MAX_TRACE_BYTES)
    except OSError as error:
        raise SettingError(f"{found} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # not in UTF-8, or a path with NUL
        raise SettingError(f"{found} cannot be read: {error}") from None


def _rows_of_json(lines: Iterator[str], _path: Path) -> Iterator[tuple[int, object]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _rows_of_csv(lines: Iterator[str], path: Path) -> Iterator[tuple[int, object]]:
    reader = csv.DictReader(lines)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise SettingError(f"Trace({shown(str(path))}) row {reader.line_num} is not CSV: {error}") from None


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
        """0: a caller does not pause."""
        return 0

    def pauses(self, _generator: int, /) -> Iterator[int]:
        """No pause of any caller."""
        return itertools.repeat(0)

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

    def arrivals(self, number: int = 0, of: int = 1) -> Iterator[int]:
        """Request n is due when the integral of the rate reaches n; each of n generators has every n-th.

        Within a stage of length T from rate a to rate b the integral is a t + (b - a) t² / 2T; its inverse at x is
        2x / (a + sqrt(a² + 2 x (b - a) / T)), which holds for a = b too.
        """
        begin_s, before, reached = 0.0, float(self.start), 0.0
        for duration, level in self.stages:
            length_s = parse_duration(duration) / SECOND_NS
            gained = (before + level) / 2 * length_s
            slope = (level - before) / length_s if length_s else 0.0
            while number < reached + gained - 1e-9:
                x = number - reached
                root = math.sqrt(max(0.0, before * before + 2 * x * slope))
                yield round((begin_s + (2 * x / (before + root) if x > 0 else 0.0)) * SECOND_NS)
                number += of
            begin_s, before, reached = begin_s + length_s, float(level), reached + gained


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A fixed number of callers; each sends its next request when it has the response to its last one.

    Raises:
        SettingError: not a whole number in that range, or an invalid time.
    """

    concurrency: int  #: callers, 1..10,000
    #: pause of each caller after a response, ``"50ms"``, or the shortest and the longest one, ``("10ms", "2s")``: each
    #: pause is then drawn between them, the same ones in every launch and on both sides of a comparison
    think_time: str | tuple[str, str] = "0s"
    closed: ClassVar[bool] = True
    length_ns: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "concurrency", fields.concurrency(self.concurrency, "concurrency"))
        given: object = self.think_time
        if isinstance(given, list):
            object.__setattr__(self, "think_time", tuple(given))
        if len(ends := self._ends_ns) != 2 or ends[0] > ends[1]:
            raise SettingError(
                f"ClosedLoop(think_time={shown(given)}), expected a time, or the shortest and the longest "
                'one; write ("10ms", "2s")'
            )

    def __str__(self) -> str:
        text = " to ".join(self.think_time) if isinstance(self.think_time, tuple) else self.think_time
        pause = f", think_time={text}" if self.think_time_ns else ""
        return f"closed({self.concurrency}{pause})"

    @property
    def think_time_ns(self) -> int:
        """Longest pause between a response and the next request."""
        return self._ends_ns[1]

    @property
    def mean_think_time_ns(self) -> float:
        """The pause on average."""
        return sum(self._ends_ns) / 2

    def pauses(self, generator: int, /) -> Iterator[int]:
        """The pauses of one generator's callers, in the order in which they begin; the same at every call."""
        shortest, longest = self._ends_ns
        if shortest == longest:
            return itertools.repeat(longest)
        draw = random.Random(generator)  # noqa: S311 - pauses, not secrets
        return iter(lambda: draw.randint(shortest, longest), None)

    @property
    def _ends_ns(self) -> tuple[int, ...]:
        """The shortest and the longest pause."""
        ends = self.think_time if isinstance(self.think_time, tuple) else (self.think_time,) * 2
        return tuple(parse_duration(end, name="ClosedLoop(think_time=...)") for end in ends)

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

    Raises:
        SettingError: not a number in that range.
    """

    rate_rps: float  #: requests per second, from 0.000001 to 1,000,000
    closed: ClassVar[bool] = False
    length_ns: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate_rps", fields.rate_rps(self.rate_rps, "rate_rps"))

    def __str__(self) -> str:
        return f"constant({self.rate_rps:g}/s)"

    def due_ns(self, number: int) -> int:
        """When request ``number`` (0, 1, 2, …) is due, in nanoseconds from the start: ``number / rate``."""
        return round(number * SECOND_NS / self.rate_rps)

    def arrivals(self, number: int = 0, of: int = 1) -> Iterator[int]:
        """0, 1/rate, 2/rate, …; for each of n generators every n-th."""
        return map(self.due_ns, itertools.count(number, of))


@dataclass(frozen=True, slots=True)
class PoissonRate:
    """An open loop of independent callers: intervals are exponential with mean 1 / rate.

    Generators that share it are callers of their own, each with its part of the rate and a seed of its own: independent
    Poisson streams merge to one (J. F. C. Kingman, Poisson Processes, 1993, section 2.2).

    Raises:
        SettingError: not a number in that range, or a seed that is not a whole number.
    """

    rate_rps: float  #: mean requests per second, from 0.000001 to 1,000,000
    seed: int = 0  #: seed of the random intervals; the same seed gives the same arrivals
    closed: ClassVar[bool] = False
    length_ns: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate_rps", fields.rate_rps(self.rate_rps, "rate_rps"))
        fields.set_whole(self, "seed", least=-fields.MAX_SEED, most=fields.MAX_SEED)

    def __str__(self) -> str:
        return f"poisson({self.rate_rps:g}/s{f', seed={self.seed}' if self.seed else ''})"

    def arrivals(self, number: int = 0, of: int = 1) -> Iterator[int]:
        """Cumulative sums of exponential intervals; each of n generators has its own stream of an n-th of the rate."""
        draw = random.Random(self.seed if of == 1 else f"{self.seed}/{number}/{of}")  # noqa: S311 - arrivals, not secrets
        return _arrivals(partial(draw.expovariate, self.rate_rps / of))

    def merged_arrivals(self, of: int) -> Iterator[int]:
        """What ``of`` generators send together."""
        return heapq.merge(*(self.arrivals(number, of) for number in range(of)))


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

    def arrivals(self, number: int = 0, of: int = 1) -> Iterator[int]:
        """Cumulative sums of gamma intervals; for each of n generators every n-th.

        Bursts have no law by which independent streams merge to one.
        """
        draw = random.Random(self.seed)  # noqa: S311 - arrivals, not secrets
        due_ns = _arrivals(partial(draw.gammavariate, self.burstiness, 1 / (self.rate_rps * self.burstiness)))
        return itertools.islice(due_ns, number, None, of)


def _arrivals(interval_s: Callable[[], float]) -> Iterator[int]:
    """Cumulative sums of intervals, which are drawn in seconds, in nanoseconds."""
    return (round(due_s * SECOND_NS) for due_s in itertools.accumulate(iter(interval_s, None)))


ClosedSchedule = ClosedLoop | Stages  # Callers, each of which waits for its response before it sends again
OpenSchedule = ConstantRate | PoissonRate | GammaRate | Stages | Trace
"""Arrivals. Generators that share a schedule, each with its number from 0, send all of it together."""
Schedule = ClosedSchedule | OpenSchedule


def most_callers(schedule: Schedule) -> int:
    """Most callers of closed loops at any time; 0 of an open loop."""
    return schedule.max_concurrency if isinstance(schedule, ClosedLoop | Stages) and schedule.closed else 0
