"""The load generator's process: its main loop, and the handle by which the parent asks it for load.

The process is fresh, so that coverage, debuggers and the suite's garbage do not disturb it, and it serves one job after
the other, so that starting it is paid once.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from pytest_mlpatterns.children import Channel, Child
from pytest_mlpatterns.load.job import Recorded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_mlpatterns.load.job import Job, Progress, WindowOpened

__all__ = ["Generator", "LoadInterrupted"]

_STOP = "stop"
_STOP_TIMEOUT_S = 2.0


class LoadInterrupted(KeyboardInterrupt):
    """Ctrl-C during the load, with what was recorded until then."""

    def __init__(self, recorded: Recorded) -> None:
        super().__init__()
        self.recorded = recorded


class Generator:
    """The parent's handle; starts the process at its first job.

    Args:
        log: file for what the process prints, which should be nothing.

    Attributes:
        ceiling_rps: what it reaches on this machine against a server that does nothing; None until measured.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._child: Child | None = None
        self.ceiling_rps: float | None = None

    def run(self, job: Job, *, poll_s: float, on_poll: Callable[[WindowOpened | Progress | None], None]) -> Recorded:
        """Drive one job to its end.

        Args:
            job: what to send.
            poll_s: how often ``on_poll`` is called at least.
            on_poll: takes each event as it comes, and None when none came for ``poll_s``. What it raises ends the load.

        Raises:
            ChildError: the process died.
            LoadInterrupted: Ctrl-C; carries what was recorded until then.
        """
        if self._child is None:
            self._child = Child(__name__, log=self._log)
        child = self._child
        try:
            child.send(job)
            return _until_recorded(child, poll_s, on_poll)
        except KeyboardInterrupt:
            child.send(_STOP)
            recorded = _until_recorded(child, _STOP_TIMEOUT_S, _raise_timeout)
            raise LoadInterrupted(recorded) from None
        except BaseException:
            self.close()  # whatever it still does belongs to nobody; the next job gets a fresh process
            raise

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.stop()
            self._child = None


def _until_recorded(child: Child, poll_s: float, on_poll: Callable[[WindowOpened | Progress | None], None]) -> Recorded:
    while True:
        try:
            message = child.receive(poll_s)
        except TimeoutError:
            message = None
        if isinstance(message, Recorded):
            return message
        on_poll(message)


def _raise_timeout(event: WindowOpened | Progress | None) -> None:
    if event is None:
        raise TimeoutError("the load generator does not stop")


def main() -> None:
    """The child: take a job, drive it, answer, until the parent closes the channel."""
    import queue

    from pytest_mlpatterns.load.loop import LoadLoop

    gc.disable()  # a collection in the middle of the load would count as the server's latency
    channel = Channel()
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    current: list[LoadLoop] = []

    def on_message(message: Job | str) -> None:
        if message != _STOP:
            jobs.put(message)  # type: ignore[arg-type]
        elif current:
            current[0].stop()

    def on_close() -> None:
        if current:
            current[0].stop()
        jobs.put(None)

    channel.listen(on_message, on_close)
    while (job := jobs.get()) is not None:
        loop = LoadLoop(job, channel.send)
        current.append(loop)
        channel.send(loop.run())
        current.clear()
        del loop, job
        gc.collect()
