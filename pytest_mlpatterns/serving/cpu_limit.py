"""Starts a deployment with the processor that ``perf(cpus=...)`` or ``cpus_per_replica=`` gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.system.cpu_share import give_cpus, give_replica_cores

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.system.cpu_share import CpuShare, ReplicaCores

__all__ = ["start_with_cpus", "start_with_replica_cores"]


def start_with_cpus(cpus: float | None, start: Callable[[], Deployment]) -> Deployment:
    """Start a deployment; its end releases what it was given.

    Args:
        cpus: number of cores; None for all.
        start: starts it.

    Raises:
        SettingError: this machine cannot give it so much, or no such share.
        DeploymentError: it did not start.
    """
    return start() if cpus is None else _start_with(give_cpus(cpus), start)


def start_with_replica_cores(wanted: ReplicaCores, replicas: int, start: Callable[[], Deployment]) -> Deployment:
    """Start a deployment each of whose replicas runs on cores of its own.

    Args:
        wanted: cores of each, and the largest number of replicas.
        replicas: number of replicas that start with it.
        start: starts it; an engine enters :func:`pytest_mlpatterns.system.cpu_share.share_of_replica` for each replica.

    Raises:
        SettingError: this machine has fewer cores, or no CPU affinity.
        DeploymentError: it did not start.
    """
    return _start_with(give_replica_cores(wanted, replicas), start)


def _start_with(share: CpuShare, start: Callable[[], Deployment]) -> Deployment:
    try:
        with share.current():
            deployment = start()
    except BaseException:
        share.release()
        raise
    deployment.cpu_share = share
    return deployment
