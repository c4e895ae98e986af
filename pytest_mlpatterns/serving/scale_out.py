"""One more replica of a running deployment: what an engine offers that can add one."""

from __future__ import annotations

from typing import Protocol

__all__ = ["AddedReplica", "Scaler"]


class AddedReplica(Protocol):
    """A replica that was asked for. It ends with its deployment."""

    asked_ns: int
    """When it was asked for, on the clock of ``time.perf_counter_ns``."""

    def address(self) -> tuple[str, int] | None:
        """``(host, port)`` once the replica is ready, that is loaded and accepting connections; None until then.

        Raises:
            ModelLoadError: it could not load its model; with its traceback.
            DeploymentError: it was not ready in time.
        """
        ...

    def requests(self) -> int:
        """Number of requests that it has received; once it is ready.

        Raises:
            DeploymentError: it has ended, or does not answer.
        """
        ...


class Scaler(Protocol):
    """Adds replicas to a running deployment."""

    timeout_ns: int
    """Start-up time limit of a replica."""

    def add(self) -> AddedReplica:
        """Start one more replica of the whole service, without waiting for it.

        It gets no request before a load balancer, or the load generator in its place, knows its address; the client of
        the deployment never does.
        """
        ...
