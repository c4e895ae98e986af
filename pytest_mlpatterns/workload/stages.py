"""Stages: a load that changes over time, by the clock or by callers, as a pure function of elapsed time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_mlpatterns import fields
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.setup import LoadDescription, LoadKind
from pytest_mlpatterns.units import SECOND_NS, parse_duration
from pytest_mlpatterns.wording import shown

__all__ = ["Stages"]


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
        """Request n is due when the integral of the rate reaches n."""
        return self.share(0, 1)

    def share(self, number: int, of: int) -> Iterator[int]:
        """Every n-th arrival of n generators.

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
