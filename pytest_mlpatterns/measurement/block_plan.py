"""Length and number of the blocks in a paired launch.

Pure. A paired launch loads two variants in rounds of blocks A B B A. This module must not know deployments or verdicts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, GammaRate, PoissonRate
from pytest_mlpatterns.workload.window_plan import SLOW_INTERVAL_NS, whole_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.workload.schedule import Schedule

__all__ = ["BlockDesign", "BlockPlan", "ResponsePace", "response_pace"]

_QUICK_START_S = 0.8
"""Measured time to start two variants of a light model side by side, and to warm up both."""
_LAUNCHES = 4
"""Launches that the budget should have time for, more than a first verdict needs: each is evidence of its own."""
_ENOUGH_FOR_THEM = 10
"""Requests of a block from which another launch is worth more than longer blocks."""
_LEAST_SHARE = 0.25
"""Smallest share of a launch that its blocks get."""
_STAGGER = 0.25
"""Time between the first requests of two callers, of the time between two answers. Requests sent at once race for the
service: it computes both prompts together or one after the other, and its times stay those of the winner for some
rounds. A quarter is longer than that race, and shorter than what the first request keeps the service busy for."""


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

    @property
    def callers(self) -> int:
        """Requests in flight of a closed loop; 1 of an open one."""
        return max(round(self.cycle_ns / self.interval_ns), 1)


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """The plan of a launch.

    Attributes:
        lengths_ns: length of the blocks of each variant.
        rounds: rounds of four blocks.
        requests: of each block, on either side, and the length is about that of the slower one; None if blocks last
            their length.
        stagger_ns: time between the first requests of two callers of a block, on either side.
    """

    lengths_ns: tuple[int, ...]
    rounds: int
    requests: int | None = None
    stagger_ns: int = 0


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
        budget_ns: time for all launches; the launches of slow variants get a quarter of it, or a third if the blocks
            would have few requests. None if ``launch_ns`` holds for them too.
    """

    block_ns: int = 100_000_000
    answers: int = 20
    rounds: int = 2
    most_rounds: int = 8
    warmup_ns: int = 100_000_000
    launch_ns: int = 20_000_000_000
    budget_ns: int | None = None

    @property
    def longest_warmup_ns(self) -> int:
        """Time after which no caller of a warm-up begins another request, so that both take a quarter of a launch."""
        return max(self.warmup_ns, self.launch_ns // 16)

    def within(self, budget_ns: int, launches: int) -> BlockDesign:
        """The same for a run that has a budget, of which its first launches may take no more than all."""
        launch_ns = min(self.launch_ns, budget_ns // launches)
        return replace(self, launch_ns=launch_ns, budget_ns=budget_ns if launches > 1 else None)

    def blocks(self, paces: Sequence[ResponsePace], start_s: float, inputs: int = 1) -> BlockPlan:
        """Plan the blocks of one launch.

        Args:
            paces: how fast each variant answers.
            start_s: seconds that starting and warming up both variants took.
            inputs: requests of a round of the inputs.
        """
        if all(one.length_ns is None and one.interval_ns >= SLOW_INTERVAL_NS for one in paces):
            return self._blocks_of_requests(paces, start_s, inputs)
        rounds = max(self.rounds, min(round(self.rounds * math.sqrt(start_s / _QUICK_START_S)), self.most_rounds))
        preferred = [max(self.block_ns, self.answers * one.interval_ns) for one in paces]
        least = [max(self.block_ns, 2 * one.cycle_ns) for one in paces]
        room_ns = max(self.launch_ns - round(start_s * 1e9), round(_LEAST_SHARE * self.launch_ns))
        share = min(1.0, room_ns / (2 * rounds * sum(preferred)))
        lengths = tuple(
            one.length_ns or int(max(low, share * high)) for one, low, high in zip(paces, least, preferred, strict=True)
        )
        return BlockPlan(lengths, max(1, min(rounds, room_ns // (2 * sum(lengths)))))

    def _blocks_of_requests(self, paces: Sequence[ResponsePace], start_s: float, inputs: int) -> BlockPlan:
        """One round of long blocks with the same requests on both sides, whole rounds of the inputs if they fit.

        The two blocks of a side may share a round of the inputs: each begins with the input after the block before.
        """
        interval_ns = sum(one.interval_ns for one in paces)
        callers = max(one.callers for one in paces)
        most = self._room_ns(start_s, interval_ns) / (2 * interval_ns)
        half = -(-inputs // 2)
        shares_a_round = inputs > most or inputs % 2 == 0
        requests = whole_rounds(self.answers, most, half if shares_a_round else inputs, callers=callers)
        longest_ns = int(requests * max(one.interval_ns for one in paces))
        stagger_ns = round(_STAGGER * interval_ns / len(paces)) if callers > 1 else 0
        return BlockPlan((longest_ns,) * len(paces), 1, requests, stagger_ns)

    def _room_ns(self, start_s: float, interval_ns: float) -> float:
        """Time for the blocks of a launch."""
        if self.budget_ns is not None:
            room_ns = min(self.budget_ns / _LAUNCHES, self.launch_ns) - start_s * 1e9
            if room_ns >= 2 * _ENOUGH_FOR_THEM * interval_ns:
                return room_ns
        return max(self.launch_ns - start_s * 1e9, _LEAST_SHARE * self.launch_ns)


def response_pace(schedule: Schedule, latency_ns: float) -> ResponsePace:
    """The one of a variant under a schedule, from the median latency of its warm-up."""
    if isinstance(schedule, ClosedLoop):
        cycle_ns = latency_ns + schedule.think_time_ns
        return ResponsePace(cycle_ns / schedule.concurrency, cycle_ns)
    if isinstance(schedule, ConstantRate | PoissonRate | GammaRate):
        return ResponsePace(1e9 / schedule.rate_rps, 1e9 / schedule.rate_rps)
    return ResponsePace(latency_ns, latency_ns, schedule.length_ns)
