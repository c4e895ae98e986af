"""The link of a replica on Ray: finds the monitor of its node and reports to it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import ray

from pytest_mlpatterns.serving.ray.link import Hello, LinkClient, own_output
from pytest_mlpatterns.serving.ray.node_monitor import monitor_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.serving.process_messages import WorkerStats
    from pytest_mlpatterns.serving.ray.link import LinkAddress
    from pytest_mlpatterns.serving.ray.messages import ReplicaJob

__all__ = ["ReplicaLink"]

_NAMESPACE = "mlpatterns"
_PATIENCE_S = 30.0
_POLL_S = 0.1


class ReplicaLink:
    """Reports what a replica does. It blocks, so an event loop makes it in a thread.

    Args:
        job: what the replica does.
        replica: its identity in Ray Serve.

    Raises:
        RuntimeError: the node has no monitor after half a minute.
    """

    def __init__(self, job: ReplicaJob, replica: str) -> None:
        hello = Hello(job.app, job.deployment, job.role, job.position, replica, os.getpid(), own_output())
        self._client = LinkClient(_monitor_address(job.run), hello)

    def ready(self, statistics: Callable[[], WorkerStats]) -> None:
        """Report that the model is built; ``statistics`` is called in a thread whenever they are asked for."""
        self._client.ready(statistics)

    def failed(self, traceback: str, reason: str) -> None:
        """Report that the model could not be built: a traceback, or a reason that says it all."""
        self._client.failed(traceback, reason)


def _monitor_address(run: str) -> LinkAddress:
    name = monitor_name(run, ray.get_runtime_context().get_node_id())
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            monitor = ray.get_actor(name, namespace=_NAMESPACE)
            address: LinkAddress = ray.get(monitor.link.remote(), timeout=_PATIENCE_S)
            return address
        except ValueError:  # it starts beside the application
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"node {ray.util.get_node_ip_address()} has no monitor {name} after {_PATIENCE_S:.0f} s"
                ) from None
        time.sleep(_POLL_S)
