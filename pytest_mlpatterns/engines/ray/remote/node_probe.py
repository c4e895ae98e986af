"""The facts of one node, found out by a task that runs there. It needs this package there, which is checked so."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from pytest_mlpatterns.engines.ray.cluster import NodeFacts
from pytest_mlpatterns.system.environment import environment, machine_cores
from pytest_mlpatterns.system.machine import machine_identity

__all__ = ["Probed", "probe"]


@dataclass(frozen=True, slots=True)
class Probed:
    """A node, and the version of this package there."""

    facts: NodeFacts
    package: str


def probe(node_id: str, ip: str, *, is_head: bool) -> Probed:
    """Look at the machine of this process."""
    import psutil

    found = environment(("ray",))
    facts = NodeFacts(
        node_id=node_id,
        ip=ip,
        processor=found.processor,
        cores=found.cores,
        architecture=found.architecture,
        memory_bytes=psutil.virtual_memory().total,
        machine=machine_identity(),
        gpu=found.gpu or "",
        is_head=is_head,
        machine_cores=machine_cores(),
    )
    return Probed(facts, own_version())


def own_version() -> str:
    """The version of this package; empty if it is not installed but only importable."""
    with suppress(PackageNotFoundError):
        return version("pytest-mlpatterns")
    return ""
