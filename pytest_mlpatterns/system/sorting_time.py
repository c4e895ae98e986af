"""How fast the machine is at this moment: CPU time of a fixed work, sorting the same texts, in a hundredth of a second.

One call of a built-in function does the work, so tracers and coverage of this process add nothing. Stored times are of
this work: after a change of it they need another name. This module must not know what the time is compared with.
"""

from __future__ import annotations

import functools
from time import thread_time_ns

__all__ = ["sorting_time_ns"]

_TEXTS = 6_000
"""Texts that a round sorts, in 0.7 ms: long beside the clock's step, and short beside a time slice."""
_ROUNDS = 15
_COUNTED = 3
"""Rounds that were faster than the one that counts. The rounds above are those that neighbours disturbed: beside eight
busy processes on two cores, this one varied by 1.5 % between processes, the median of a simpler work by 10 %."""


def sorting_time_ns() -> float:
    """CPU time of a round, by the lower fifth of some; 0 where the system has no such clock."""
    texts = _texts()
    times = []
    for _ in range(_ROUNDS):
        started = thread_time_ns()
        sorted(texts)
        times.append(thread_time_ns() - started)
    return float(sorted(times)[_COUNTED])


@functools.cache
def _texts() -> list[str]:
    """Texts in an order without a pattern."""
    return [str(number * 7919 % 100_003) for number in range(_TEXTS)]
