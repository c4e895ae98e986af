"""Keeps the load generator and pytest off the cores that a deployment was given, where there are others."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pytest_mlpatterns.system.cpu_share import other_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.measurement.call_loop import CallLoop
    from pytest_mlpatterns.serving.deployment import Deployment

__all__ = ["apart_from"]


@contextlib.contextmanager
def apart_from(deployment: Deployment, generator: Generator | CallLoop, processes: int) -> Iterator[None]:
    """Meanwhile the generator loads a deployment from other cores.

    Args:
        deployment: what is loaded; without ``cpus=`` nothing changes.
        generator: the load generator.
        processes: number of its processes.
    """
    if deployment.cpu_share is None:
        yield
        return
    generator.start(processes)
    with other_cores(deployment.cpu_share, generator.pids):
        yield
