"""Length and number of the blocks in a paired launch.

Pure. A paired launch loads two variants in rounds of blocks A B B A. This module must not know deployments or verdicts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, GammaRate, PoissonRate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.workload.schedule import Schedule

__all__ = ["BlockDesign", "BlockPlan", "ResponsePace", "response_pace"]

_QUICK_START_S = 0.8
"""Measured time to start two variants of a light model side by side, and to warm up both."""


@dataclass(frozen=True, slots=True)
class ResponsePace:
    """How fast a variant answers.

    Attributes:
        interval_ns: time between two answers.
        cycle_ns: time between two requests of one caller; in an open loop between two requests.
        length_ns: length of every block, if the schedule has a length of its own; else None.
    """

    interval_ns: float
    cycle_ns: float
    length_ns: int | None = None


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """The plan of a launch.

    Attributes:
        lengths_ns: length of the blocks of each variant.
        rounds: rounds of four blocks.
    """

    lengths_ns: tuple[int, ...]
    rounds: int


@dataclass(frozen=True, slots=True)
class BlockDesign:
    """The design of a paired launch.

    Let c be the time to start and warm up both variants, b the time of a pair of blocks, s the standard deviation of a
    pair, and t the standard deviation between launches. For a given total time the interval is narrowest with
    s/t sqrt(c/b) pairs per launch: four at c = 0.8 s, as measured, and in proportion to sqrt(c).

    Args:
        block_ns: shortest block.
        answers: answers that a block should have; blocks get longer for it, as far as there is time.
        rounds: rounds A B B A of variants that start quickly.
        most_rounds: rounds of variants that start slowly, at most.
        warmup_ns: shortest warm-up of each variant; a longer one in its plan replaces it.
        launch_ns: time for a launch. At least a quarter of it belongs to the blocks, however slowly the variants start.
            To keep it, blocks are shortened down to two requests of a caller, then rounds are left out down to one.
    """

    block_ns: int = 100_000_000
    answers: int = 20
    rounds: int = 2
    most_rounds: int = 8
    warmup_ns: int = 100_000_000
    launch_ns: int = 20_000_000_000

    def blocks(self, paces: Sequence[ResponsePace], start_s: float) -> BlockPlan:
        """Plan the blocks of one launch.

        Args:
            paces: how fast each variant answers.
            start_s: seconds that starting and warming up both variants took.
        """
        rounds = max(self.rounds, min(round(self.rounds * math.sqrt(start_s / _QUICK_START_S)), self.most_rounds))
        preferred = [max(self.block_ns, self.answers * one.interval_ns) for one in paces]
        least = [max(self.block_ns, 2 * one.cycle_ns) for one in paces]
        room_ns = max(self.launch_ns - round(start_s * 1e9), self.launch_ns // 4)
        share = min(1.0, room_ns / (2 * rounds * sum(preferred)))
        lengths = tuple(
            one.length_ns or int(max(low, share * high)) for one, low, high in zip(paces, least, preferred, strict=True)
        )
        return BlockPlan(lengths, max(1, min(rounds, room_ns // (2 * sum(lengths)))))


def response_pace(schedule: Schedule, latency_ns: float) -> ResponsePace:
    """The one of a variant under a schedule, from the median latency of its warm-up."""
    if isinstance(schedule, ClosedLoop):
        cycle_ns = latency_ns + schedule.think_time_ns
        return ResponsePace(cycle_ns / schedule.concurrency, cycle_ns)
    if isinstance(schedule, ConstantRate | PoissonRate | GammaRate):
        return ResponsePace(1e9 / schedule.rate_rps, 1e9 / schedule.rate_rps)
    return ResponsePace(latency_ns, latency_ns, schedule.length_ns)
