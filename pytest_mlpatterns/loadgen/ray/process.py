"""A load generator process on a node of a Ray cluster, as the parent's handle of the load generator sees it."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import ChildError, MlpatternsError
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, OpenWindow, WindowOpened
from pytest_mlpatterns.loadgen.ray.messages import Ended, Started
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.system.ray.clock import SAME_CLOCK

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.ray.pool import RayPool
    from pytest_mlpatterns.system.ray.clock import ClockOffset

__all__ = ["RayProcess"]

_LOOK_S = 0.5
_END_S = 15.0
_INVALID = "this load is invalid, and the next one gets another generator"


class RayProcess:
    """One process; it starts with its first job.

    Args:
        pool: asks the driver.
        key: names the process there.
        number: of the generator, which decides its node.

    Attributes:
        inbox: messages that have come and were not asked for yet.
    """

    pid = None

    def __init__(self, pool: RayPool, key: int, number: int) -> None:
        self._pool = pool
        self._key = key
        self._number = number
        self._clock: ClockOffset = SAME_CLOCK
        self._remote_pid: int | None = None
        self._was_loaded = False
        self._looked_s = 0.0
        self.node: str = ""
        self.inbox: deque[object] = deque()

    @property
    def name(self) -> str:
        """What messages call it."""
        what = f"generator {self._number}" if self._remote_pid is None else f"process {self._remote_pid}"
        return f"{what} on node {self.node}"

    @property
    def clock_error_ns(self) -> int:
        """Largest error of its times on the clock of this process."""
        return self._clock.error_ns

    def send(self, message: object) -> None:
        """Send a value; a job goes to the node that the generator has now.

        Raises:
            ChildError: its node is gone.
        """
        if isinstance(message, LoadJob):
            facts = self._pool.facts[self._number]
            self.node = facts.node
            self._clock = facts.clock
            self._was_loaded = True
            self.inbox.clear()
            self._pool.load(self._key, self._number, message)
        elif isinstance(message, OpenWindow):
            self._pool.ask("send", self._key, OpenWindow(self._clock.there(message.at_ns)))
        else:
            self._pool.ask("send", self._key, message)

    def receive(self, timeout_s: float) -> Any:
        """The next value, with its times on the clock of this process.

        Raises:
            TimeoutError: none came in time.
            ChildError: the process, or its node, is gone.
            SettingError: what was recorded takes too much memory.
        """
        end_s = time.perf_counter() + timeout_s
        while True:
            while not self.inbox:
                if (left_s := end_s - time.perf_counter()) <= 0:
                    raise TimeoutError
                self._pool.collect(left_s)
            message = self.inbox.popleft()
            if isinstance(message, Ended):
                raise ChildError(f"the load generator ({self.name}) ended during its load: {message.why}: {_INVALID}")
            if not isinstance(message, Started):
                return self._here(message)
            self._remote_pid = message.pid

    def why_stopped(self) -> str:
        """Who is stopped there, and how; looked at twice a second, and empty meanwhile."""
        if time.perf_counter() - self._looked_s < _LOOK_S:
            return ""
        found: str = self._pool.ask("why_stopped", self._key)
        self._looked_s = time.perf_counter()
        return found

    def close_channel(self) -> None:
        """Ask it to end, without waiting for it."""
        self._end("close_channel")

    def stop(self) -> None:
        """End it, and wait until it is gone; with a driver that is gone it has ended too."""
        self._end("stop")
        self._pool.forget(self._key)

    def _end(self, how: str) -> None:
        if self._was_loaded:
            with contextlib.suppress(MlpatternsError):
                self._pool.ask(how, self._key, timeout_s=_END_S)

    def _here(self, message: Any) -> Any:
        """A message with its times on the clock of this process."""
        here = self._clock.here
        if isinstance(message, Progress):
            self._pool.count(self._key, message.completed)
        if isinstance(message, WindowOpened):
            return WindowOpened(here(message.start_ns))
        if not isinstance(message, LoadResult):
            return message
        from pytest_mlpatterns.loadgen.columns import shifted_columns

        return replace(
            message,
            columns=shifted_columns(message.columns, here(0)),
            window=Window(here(message.window.start_ns), here(message.window.end_ns)),
        )
