"""Starts a deployment with the processor that ``perf(cpus=...)`` gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.system.cpu_share import give_cpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.serving.deployment import Deployment

__all__ = ["start_with_cpus"]


def start_with_cpus(cpus: float | None, start: Callable[[], Deployment]) -> Deployment:
    """Start a deployment; its end releases what it was given.

    Args:
        cpus: number of cores; None for all.
        start: starts it.

    Raises:
        SettingError: this machine cannot give it so much, or no such share.
        DeploymentError: it did not start.
    """
    if cpus is None:
        return start()
    share = give_cpus(cpus)
    try:
        with share.current():
            deployment = start()
    except BaseException:
        share.release()
        raise
    deployment.cpu_share = share
    return deployment
