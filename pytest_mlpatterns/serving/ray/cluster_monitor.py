"""The resource monitor of a service on a Ray cluster: begins readings on all nodes, and collects them afterwards."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.serving.ray.readings import usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.records.launch import Usage
    from pytest_mlpatterns.serving.ray.messages import NodeReading, RayApplication
    from pytest_mlpatterns.system.ray.clock import ClockOffset
    from pytest_mlpatterns.system.ray.session import RaySession

__all__ = ["MONITORS", "ClusterMonitor"]

MONITORS = "pytest_mlpatterns.serving.ray.remote.node_monitor"
"""Module whose functions ask the nodes, in the driver."""
_POLL_NS = 250_000_000
"""Shortest time between two polls: each is a message to every node."""
_BEGIN_TIMEOUT_S = 5.0


class ClusterMonitor:
    """Samples what an application uses on all nodes.

    A driver that has ended is no error here: the statistics of the service, which every measurement asks for, report
    it.

    Args:
        session: the cluster.
        application: the application.
    """

    def __init__(self, session: RaySession, application: RayApplication) -> None:
        self._session = session
        self._application = application
        self._marks_ns: list[int] = []
        self._readings: list[NodeReading] = []

    @property
    def pids(self) -> list[int]:
        """None: the processes belong to the cluster, which may be on other machines."""
        return []

    def sample(self, *, poll: bool = False) -> None:
        """Take one sample, without waiting for the nodes.

        Args:
            poll: it is one of many during a load; it is left out if the last sample is younger than a quarter of a
                second.
        """
        now_ns = time.perf_counter_ns()
        if poll and self._marks_ns and now_ns - self._marks_ns[-1] < _POLL_NS:
            return
        self._marks_ns.append(now_ns)
        at = self._application
        try:
            arguments = (at.run, at.app, len(self._marks_ns), not poll)
            self._session.call(f"{MONITORS}:begin_read", *arguments, timeout_s=_BEGIN_TIMEOUT_S)
        except (ChildError, TimeoutError):
            return

    def usage(self) -> Usage | None:
        """All samples so far; None if no replica was ever found."""
        at = self._application
        offsets: Mapping[str, ClockOffset] = {}
        try:
            collected: Mapping[int, tuple[NodeReading, ...]]
            collected = self._session.call(f"{MONITORS}:collect", at.run, at.app)
            self._readings += (reading for number in sorted(collected) for reading in collected[number])
            offsets = self._session.call(f"{MONITORS}:offsets", at.run)
        except (ChildError, TimeoutError):
            pass
        return usage_of(self._marks_ns, self._readings, offsets)
