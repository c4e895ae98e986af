"""The main loop of a load generator process: takes a job, drives it, sends the recording back.

Keep this module light: the process must start quickly and must not load numpy.
"""

from __future__ import annotations

import gc
import queue
from typing import TYPE_CHECKING

from pytest_mlpatterns.loadgen.messages import OpenWindow
from pytest_mlpatterns.system.child import Channel

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.messages import LoadJob


__all__ = ["STOP", "main"]

STOP = "stop"
"""Message that ends the present job early."""


def main() -> None:
    """Run jobs until the parent closes the channel."""
    from pytest_mlpatterns.loadgen.event_loop import LoadLoop
    from pytest_mlpatterns.loadgen.pyreqwest_loop import PyreqwestLoop

    gc.disable()  # a collection during the load would count as latency of the server
    _raise_file_limit()
    channel = Channel()
    waiting: queue.SimpleQueue[LoadLoop | PyreqwestLoop | None] = queue.SimpleQueue()
    latest: list[LoadLoop | PyreqwestLoop] = []

    def on_message(message: LoadJob | OpenWindow | str) -> None:
        if isinstance(message, OpenWindow):
            for loop in latest:
                loop.open_at(message.at_ns)
        elif isinstance(message, str):
            for loop in latest:
                loop.stop()
        else:  # created here, so that a stop that follows at once finds it before it runs
            is_remote = message.endpoint.remote is not None
            loop = PyreqwestLoop(message, channel.send) if is_remote else LoadLoop(message, channel.send)
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


def _raise_file_limit() -> None:
    """Raise the soft limit on open files, of which each connection needs one, to the hard limit."""
    import resource

    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
