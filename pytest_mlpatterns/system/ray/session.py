"""The parent's handle of the Ray driver: a child process that is connected to a cluster and calls functions there.

This process never imports Ray, which takes signals, adds threads and exit handlers, and knows one cluster per process.
The driver's lifeline turns every end of this process into an orderly end of our applications.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.system.ray.cluster import ClusterFacts
    from pytest_mlpatterns.system.ray.messages import RayJob

__all__ = ["RaySession"]


class RaySession:
    """One cluster in one session; starts on first use, and takes calls from several threads.

    Args:
        job: what it connects to.
        log: file for the output of the driver.
    """

    def __init__(self, job: RayJob, log: Path) -> None:
        self._job = job
        self._log = log

    def begin(self) -> None:
        """Start the driver without waiting for it."""
        raise NotImplementedError

    @property
    def cluster(self) -> ClusterFacts:
        """The cluster; waits until it is ready.

        Raises:
            SettingError: it cannot be reached, or does not fit.
            DeploymentError: it did not start.
        """
        raise NotImplementedError

    def call(self, function: str, *arguments: object, timeout_s: float = 30.0) -> Any:
        """Call a function in the driver.

        Args:
            function: ``package.module:function`` of this package.
            arguments: its arguments, which are pickled.
            timeout_s: time limit for the result.

        Raises:
            MlpatternsError: what it raised.
            ChildError: it raised another error, whose traceback is the message, or the driver has ended.
            TimeoutError: there was no result in time.
        """
        raise NotImplementedError

    def log_tail(self) -> str:
        """Last lines of the driver's output."""
        raise NotImplementedError

    def close(self) -> None:
        """End the driver, our applications, and a cluster that it started. Safe to call twice."""
        raise NotImplementedError
