"""The facts of one node, found out by a task that runs there. It needs this package there, which is checked so."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pytest_mlpatterns.system.environment import environment
from pytest_mlpatterns.system.ray.cluster import NodeFacts

__all__ = ["Probed", "machine_id", "probe"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Probed:
    """A node, and the version of this package there."""

    facts: NodeFacts
    package: str


def probe(node_id: str, ip: str, *, is_head: bool) -> Probed:
    """Look at the machine of this process.

    Args:
        node_id: Ray's id of the node.
        ip: its address.
        is_head: whether it is the cluster's head.
    """
    import psutil

    found = environment()
    facts = NodeFacts(
        node_id=node_id,
        ip=ip,
        processor=found.processor,
        cores=found.cores,
        architecture=found.architecture,
        memory_bytes=psutil.virtual_memory().total,
        machine=machine_id(),
        gpu=found.gpu or "",
        is_head=is_head,
    )
    return Probed(facts, own_version())


def own_version() -> str:
    """The version of this package; empty if it is not installed but only importable."""
    with suppress(PackageNotFoundError):
        return version("pytest-mlpatterns")
    return ""


def machine_id() -> str:
    """An id of this machine since it was booted; its processes share a clock and the counters of the processor."""
    with suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return platform.node()
