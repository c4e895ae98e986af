"""On which core a process goes on: the same for both sides of a pair of blocks, another one for the next pair.

The cores of a virtual machine are not equally fast: a neighbour on the other thread of the same physical core takes up
to half of one away, unseen in any counter here, for seconds. A process stays where it ran last, so that of two equal
deployments one may be on the slow core throughout a launch. So before a block its processes are put on given cores,
and at once left free again to run wherever they may: the scheduler keeps them there while nothing better is idle.
What the user has set is respected. Where the system offers no such thing, nothing happens.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["put_on_cores"]


def put_on_cores(processes: Iterable[int], first: int) -> None:
    """Put the main thread of each process on a core of its own, as far as there are so many, and leave it free again.

    Args:
        processes: their ids, in an order that two like deployments have in common.
        first: which core the first one gets; numbers beyond the last core begin again.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    for number, process in enumerate(processes, first):
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            allowed = os.sched_getaffinity(process)
            if len(allowed) > 1:
                os.sched_setaffinity(process, {sorted(allowed)[number % len(allowed)]})
                os.sched_setaffinity(process, allowed)
