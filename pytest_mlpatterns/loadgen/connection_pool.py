"""The connections of a load: opened when needed, balanced over addresses, with the requests that wait for one.

An address can be added and removed while the load runs. A pipe then wakes the loop, since its own ticks are 50 ms
apart.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
from collections import deque
from time import perf_counter_ns
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.addressing import Balancer
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.system.process_limits import allowed_connections
from pytest_mlpatterns.workload.schedule import ClosedLoop, most_callers

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.connection import Connection
    from pytest_mlpatterns.loadgen.event_loop import LoadLoop
    from pytest_mlpatterns.loadgen.messages import LoadJob

__all__ = ["MAX_OPEN_LOOP_CONNECTIONS", "PassedAddresses"]

MAX_OPEN_LOOP_CONNECTIONS = 1024
"""An open loop opens connections as it needs them, up to this many over all addresses."""


def _most_beside(callers: int) -> int:
    """Most connections of an open loop beside those of callers; fewer if the system allows fewer open files."""
    allowed = allowed_connections()
    if allowed is None:
        return MAX_OPEN_LOOP_CONNECTIONS
    return min(MAX_OPEN_LOOP_CONNECTIONS, max(allowed - callers, 1))


class ConnectionPool:
    """All connections to all addresses, the idle ones among them, and the requests that wait for a connection."""

    def __init__(self, loop: LoadLoop, job: LoadJob) -> None:
        self._loop = loop
        self._addresses = job.endpoint.addresses
        self.several: bool = len(job.endpoint.addresses) > 1
        self._idle: list[list[Connection]] = [[] for _ in job.endpoint.addresses]
        self._all: list[Connection] = []
        balancer = Balancer(len(job.endpoint.addresses), job.endpoint.balance)
        self._choose = balancer.choose
        self._outstanding = balancer.in_flight
        self._removed = balancer.removed
        self.waiting: deque[tuple[int, int, int]] = deque()
        self._released: list[Connection] = []
        self._releasing = False
        self._callers = job.share.part_of(most_callers(job.schedule))
        self._limit = self._callers * len(job.endpoint.addresses)
        if not job.schedule.closed:
            self._limit += _most_beside(self._limit)
        self._open_ahead = self._callers if isinstance(job.schedule, ClosedLoop) and self._callers else 1
        self.limit_reached: bool = False

    @property
    def connections(self) -> int:
        return len(self._all)

    @property
    def outstanding(self) -> int:
        return sum(self._outstanding) + len(self.waiting)

    def open(self) -> None:
        """Connect ahead of the load: to each address as many connections as there are callers, or one."""
        for target in range(len(self._addresses)):
            self._open_to(target)

    def add(self, address: tuple[str, int]) -> None:
        """Balance over one more address from now on, as a load balancer does; requests in flight stay where they are.

        Connections to it are opened ahead, as to the others.
        """
        self._addresses = (*self._addresses, address)
        self.several = True
        self._idle.append([])
        self._outstanding.append(0)
        self._limit += self._callers
        self._open_to(len(self._addresses) - 1)

    def remove(self, address: tuple[str, int]) -> None:
        """Send no further request to an address; those in flight there are awaited. The last address stays."""
        targets = [place for place, known in enumerate(self._addresses) if known == address]
        left = [place for place in targets if place not in self._removed]
        if not left or len(self._removed) + 1 == len(self._addresses):
            return
        target = left[0]
        self._removed.add(target)
        self._limit -= self._callers
        for connection in self._idle[target]:
            self._drop(connection)
        self._idle[target].clear()

    def send(self, request: int, due_ns: int | None) -> None:
        """Send a request, over an idle connection or as soon as there is one."""
        target = self._choose() if self.several else 0
        idle = self._idle[target]
        if idle:
            connection = idle.pop()
        elif len(self._all) < self._limit:
            connection = self._make(target)
        else:
            self.limit_reached = True
            now = perf_counter_ns()
            self.waiting.append((request, now if due_ns is None else due_ns, now))
            return
        self._outstanding[target] += 1
        connection.send(request, due_ns)

    def release(self, connection: Connection) -> None:
        """Give the connection to the next waiting request. A request that fails at once releases it again, in here."""
        self._released.append(connection)
        if self._releasing:
            return
        self._releasing = True
        while self._released:
            connection = self._released.pop()
            if connection.target in self._removed:
                self._outstanding[connection.target] -= 1
                self._drop(connection)
                if self.waiting:
                    request, due_ns, _ready_ns = self.waiting.popleft()
                    self.send(request, due_ns)
            elif self.waiting:
                request, due_ns, ready_ns = self.waiting.popleft()
                connection.send(request, due_ns, ready_ns)
            else:
                self._outstanding[connection.target] -= 1
                self._idle[connection.target].append(connection)
        self._releasing = False

    def expire(self, due_before_ns: int) -> None:
        """Fail every unanswered request that was due before this time."""
        while self.waiting and self.waiting[0][1] < due_before_ns:
            request, due_ns, ready_ns = self.waiting.popleft()
            now = perf_counter_ns()
            self._loop.recording.add(due_ns, ready_ns, now, Failure.TIMEOUT, request, 0, 0)
            self._loop.expired(due_ns, now)
        for connection in self._all:
            if connection.busy and connection.due_ns < due_before_ns:
                connection.fail(Failure.TIMEOUT)

    def close(self) -> None:
        for connection in self._all:
            connection.close()

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._all.remove(connection)

    def _open_to(self, target: int) -> None:
        for _ in range(self._open_ahead):
            connection = self._make(target)
            connection.open()
            self._idle[target].append(connection)

    def _make(self, target: int) -> Connection:
        connection = self._loop.new_connection(self._addresses[target], target)
        self._all.append(connection)
        return connection


class PassedAddresses:
    """Passes addresses, that are to be added or removed, from another thread to a selector loop."""

    def __init__(self, selector: selectors.BaseSelector, take: Callable[[tuple[str, int]], None]) -> None:
        self._take = take
        self._added: deque[tuple[str, int]] = deque()
        self._closing = threading.Lock()
        self._closed = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        selector.register(self._reader, selectors.EVENT_READ, self._on_wake)

    def add(self, address: tuple[str, int]) -> None:
        """Add an address; nothing happens if the load has ended. Thread-safe."""
        with self._closing:
            if not self._closed:
                self._added.append(address)
                os.write(self._writer, b"a")

    def close(self) -> None:
        """Close the pipe. The selector is closed by its owner."""
        with self._closing:
            if not self._closed:
                self._closed = True
                os.close(self._reader)
                os.close(self._writer)

    def _on_wake(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 64)
        while self._added:
            self._take(self._added.popleft())
