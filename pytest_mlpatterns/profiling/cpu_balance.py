"""Makes the sampled time of blocks agree with their CPU time, which the system counts exactly. Pure.

A profiler that waits for a core itself looks late, and then often in a row: in some blocks it sees too little of the
work, in others too much. Let s be the sampled time of a block and c its CPU time. Where a service computes, s/c is
nearly the same in all blocks of a side, so each is scaled to the median of s/c (the ratio estimator of survey sampling;
Cochran, Sampling Techniques, chapter 6). If the service waited for cores, too, both sides are scaled to one median.
Where a service mostly waits, its CPU time says nothing, and nothing is changed.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.profiling.stack_times import SampledStacks

__all__ = ["balanced"]

_COMPUTES = (0.3, 1.5)
"""Least and largest s/c of a service that computes: the server's native code is in c only, short waits in s only."""
_COMPUTES_ALONE = (0.6, 1.25)
"""The same of one whose waits are so short that both sides can share a median."""
_BUSY = 0.2
"""Wait for cores per CPU time from which a machine is busy."""
_FEWEST = 3


def balanced(sides: Sequence[Sequence[SampledStacks]]) -> list[list[SampledStacks]]:
    """The blocks of each side, with the time of their stacks scaled.

    Args:
        sides: a side with fewer than three blocks, or with one without CPU time, is returned as it is.
    """
    ratios = [_ratios(blocks) for blocks in sides]
    usual = [median(found) if found else 0.0 for found in ratios]
    is_busy = any(block.ready_ns > _BUSY * block.cpu_ns for blocks in sides for block in blocks)
    if is_busy and all(_COMPUTES_ALONE[0] <= one <= _COMPUTES_ALONE[1] for one in usual):
        usual = [median([one for found in ratios for one in found])] * len(usual)
    return [
        [_scaled(block, goal / ratio) for block, ratio in zip(blocks, found, strict=True)]
        if _COMPUTES[0] <= goal <= _COMPUTES[1]
        else [*blocks]
        for blocks, found, goal in zip(sides, ratios, usual, strict=True)
    ]


def _ratios(blocks: Sequence[SampledStacks]) -> list[float]:
    """The s/c of each block; empty if they are not known."""
    sampled = [sum(stack.ns for stack in block.stacks) for block in blocks]
    if len(blocks) < _FEWEST or not all(block.cpu_ns for block in blocks) or not all(sampled):
        return []
    return [seen / block.cpu_ns for seen, block in zip(sampled, blocks, strict=True)]


def _scaled(block: SampledStacks, factor: float) -> SampledStacks:
    return replace(block, stacks=tuple(replace(stack, ns=stack.ns * factor) for stack in block.stacks))
