"""The nodes of a cluster: how something is placed on one, how clocks are compared, and the facts of one.

A task that runs there finds out the facts of a node. It needs this package there, which is checked so.
"""

from __future__ import annotations

import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import ray
from msgspec import Struct
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pytest_mlpatterns.engines.ray.cluster import NodeFacts, RoundTrip, offset_of
from pytest_mlpatterns.system.environment import environment, machine_cores
from pytest_mlpatterns.system.machine import machine_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_mlpatterns.engines.ray.cluster import ClockOffset

__all__ = ["CLOCK_AGE_S", "NAMESPACE", "Probed", "is_head", "measured_offset", "on_node", "own_version", "probe"]

NAMESPACE = "mlpatterns"
"""Namespace of all our actors in Ray."""
_HEAD = "node:__internal_head__"
"""Resource that only the head of a cluster has."""
CLOCK_AGE_S = 60.0
"""Time for which an offset of clocks is trusted: quartz drifts by up to 50 ppm, so 3 ms."""
_ROUND_TRIPS = 20
"""Calls, the quickest of which decides: one among 20 meets no other work."""


def is_head(node: Mapping[str, Any]) -> bool:
    """Whether a node, as ``ray.nodes()`` describes it, is the head of its cluster."""
    return _HEAD in node["Resources"]


def on_node(kind: Any, node: str, **options: Any) -> Any:
    """A class or function that runs on a node and reserves no CPU there; its ``remote()`` starts it."""
    placed = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(kind).options(num_cpus=0, scheduling_strategy=placed, **options)


def measured_offset(ask: Callable[[], tuple[str, int]]) -> ClockOffset:
    """How far the clock of a node is ahead of the clock of this process.

    Args:
        ask: asks the node for the identity of its machine, and for the present on its clock, in nanoseconds.
    """
    trips, machine = [], ""
    for _ in range(_ROUND_TRIPS):
        sent_ns = time.perf_counter_ns()
        machine, remote_ns = ask()
        trips.append(RoundTrip(sent_ns, remote_ns, time.perf_counter_ns()))
    return offset_of(trips, same_machine=machine == machine_identity())


class Probed(Struct, frozen=True):
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
