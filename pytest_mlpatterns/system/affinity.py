"""CPU affinity: both blocks of a pair start on the same core, the next pair on another.

The cores of a virtual machine are not equally fast: a neighbour on the other hardware thread of a physical core can
take
half of it for seconds, and no counter of this machine shows that. The scheduler keeps a process on its last core, so
one
of two equal deployments can stay on the slow core for a whole launch. Therefore the processes of a block are pinned
to given cores before the block, and released at once: the scheduler then leaves them there until a better core is
idle. An affinity that the user has set is respected. On systems without CPU affinity nothing happens.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["put_on_cores"]


def put_on_cores(processes: Iterable[int], first: int) -> None:
    """Move the main thread of each process to a core of its own, as far as the cores suffice, and release it again.

    Args:
        processes: process ids, in an order that both variants of a comparison share.
        first: index of the first process's core, modulo the number of allowed cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    for number, process in enumerate(processes, first):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            allowed = os.sched_getaffinity(process)
            if len(allowed) > 1:
                os.sched_setaffinity(process, {sorted(allowed)[number % len(allowed)]})
                os.sched_setaffinity(process, allowed)
