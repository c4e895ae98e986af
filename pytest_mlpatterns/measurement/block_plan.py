"""How a paired launch spends its time: how long the blocks of each side are, and how many of them there are.

Pure. A paired launch loads two sides in rounds of blocks A B B A. This module must not know deployments or verdicts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, PoissonRate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.workload.schedule import Schedule

__all__ = ["BlockDesign", "BlockPlan", "ResponsePace", "pace_of"]

_QUICK_START_S = 1.1


@dataclass(frozen=True, slots=True)
class ResponsePace:
    """How a side answers: the time between two answers, and between two requests of one caller (of all, by the clock).

    ``length_ns`` is set where the schedule has a length of its own, which is then that of every block.
    """

    interval_ns: float
    cycle_ns: float
    length_ns: int | None = None


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """The plan of a launch: the length of each side's blocks, and rounds of four blocks."""

    lengths_ns: tuple[int, ...]
    rounds: int


@dataclass(frozen=True, slots=True)
class BlockDesign:
    """What is asked of a paired launch.

    With c the time that starting and warming up both sides takes, b that of a pair of blocks, and s and t the
    deviations of a pair and between launches, the interval narrows fastest with s/t sqrt(c/b) pairs in a launch: four
    where c is 1.1 s, as measured, and in proportion to sqrt(c).

    Args:
        block_ns: shortest block.
        answers: blocks are longer where they would have fewer answers than this, as far as there is time.
        rounds: rounds A B B A of sides that start quickly.
        most_rounds: up to so many where starting takes long, so that it is worth it.
        warmup_ns: shortest warm-up of each side; a longer one that its plan asks for is kept.
        launch_ns: time for a launch, of which at least a quarter belongs to the blocks, however long the sides take to
            start. Blocks are shortened to keep it, down to two requests of a caller, then rounds are left out, down to
            one.
    """

    block_ns: int = 200_000_000
    answers: int = 20
    rounds: int = 2
    most_rounds: int = 8
    warmup_ns: int = 200_000_000
    launch_ns: int = 20_000_000_000

    def blocks(self, paces: Sequence[ResponsePace], start_s: float) -> BlockPlan:
        """The plan for sides that answer like this and took so long to start and warm up, together."""
        rounds = max(self.rounds, min(round(self.rounds * math.sqrt(start_s / _QUICK_START_S)), self.most_rounds))
        wanted = [max(self.block_ns, self.answers * pace.interval_ns) for pace in paces]
        least = [max(self.block_ns, 2 * pace.cycle_ns) for pace in paces]
        room_ns = max(self.launch_ns - round(start_s * 1e9), self.launch_ns // 4)
        share = min(1.0, room_ns / (2 * rounds * sum(wanted)))
        lengths = tuple(
            pace.length_ns or int(max(low, share * high)) for pace, low, high in zip(paces, least, wanted, strict=True)
        )
        return BlockPlan(lengths, max(1, min(rounds, room_ns // (2 * sum(lengths)))))


def pace_of(schedule: Schedule, latency_ns: float) -> ResponsePace:
    """How a side answers under a schedule when a request takes so long."""
    if isinstance(schedule, ClosedLoop):
        cycle_ns = latency_ns + schedule.think_time_ns
        return ResponsePace(cycle_ns / schedule.concurrency, cycle_ns)
    if isinstance(schedule, ConstantRate | PoissonRate):
        return ResponsePace(1e9 / schedule.rate_rps, 1e9 / schedule.rate_rps)
    return ResponsePace(latency_ns, latency_ns, schedule.length_ns)
