"""The main loop of a load generator process: takes a job, drives it, sends the recording back.

Keep this module light: the process must start quickly and must not load numpy.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import sys
from typing import TYPE_CHECKING, TypeAlias

from pytest_mlpatterns.loadgen.messages import AddAddress, Instruction, LoadJob, OpenWindow, RemoveAddress
from pytest_mlpatterns.system.child import Channel
from pytest_mlpatterns.system.process_limits import raise_file_limit

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.event_loop import LoadLoop
    from pytest_mlpatterns.loadgen.pyreqwest_loop import PyreqwestLoop
    from pytest_mlpatterns.loadgen.slices import SlicedLoops

    Loop: TypeAlias = LoadLoop | PyreqwestLoop | SlicedLoops

_NICENESS = (-20, -10, -5)  # Priorities to try, the highest first; a user without privileges may set none of them
STOP = "stop"  # Message that ends the present job early


def main() -> None:
    """Run jobs until the parent closes the channel."""
    from pytest_mlpatterns.loadgen.event_loop import LoadLoop
    from pytest_mlpatterns.loadgen.pyreqwest_loop import PyreqwestLoop
    from pytest_mlpatterns.loadgen.slices import SlicedLoops

    gc.disable()  # a collection during the load would count as latency of the server
    raise_file_limit()
    raise_priority()
    channel = Channel()
    waiting: queue.SimpleQueue[Loop | None] = queue.SimpleQueue()
    latest: list[Loop] = []

    def on_message(message: LoadJob | Instruction) -> None:
        if isinstance(message, OpenWindow | AddAddress | RemoveAddress | str):
            for loop in latest:
                _instruct(loop, message)
        else:  # created here, so that a stop that follows at once finds it before it runs
            kind: type[Loop] = LoadLoop if message.client or message.endpoint.remote is None else PyreqwestLoop
            loop = (kind if message.beside is None else SlicedLoops)(message, channel.send)
            latest[:] = [loop]
            waiting.put(loop)

    def on_close() -> None:
        for loop in latest:
            loop.stop()
        waiting.put(None)

    channel.listen(on_message, on_close)
    while (loop := waiting.get()) is not None:
        result = loop.run()
        latest.clear()  # before the parent can send the next job
        channel.send(result)
        del loop, result
        gc.collect()


def _instruct(loop: Loop, message: Instruction) -> None:
    """Pass a message on to the present job; of loads that take turns only their end."""
    from pytest_mlpatterns.loadgen.slices import SlicedLoops

    if isinstance(loop, SlicedLoops):
        if isinstance(message, str):
            loop.stop()
    elif isinstance(message, OpenWindow):
        loop.open_at(message.at_ns)
    elif isinstance(message, AddAddress):
        loop.add_address(message.address)
    elif isinstance(message, RemoveAddress):
        loop.remove_address(message.address)
    else:
        loop.stop()


def usual_priority() -> None:
    """Give this thread the priority that every process has: what it runs is measured, and sends no load."""
    with contextlib.suppress(OSError):
        if sys.platform == "linux":
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def raise_priority() -> None:
    """Take the highest priority that this process may have: real-time, or else a lower nice value.

    Without the privilege nothing changes. Beside two busy processes on two cores, 99 % of the requests of 150/s were
    sent at most 14 to 21 ms late with the default priority, 10 ms with a nice value of -20, and 0.6 ms in real-time.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
            return
    for niceness in _NICENESS:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, niceness)
            return
