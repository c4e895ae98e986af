"""What is known of a Ray cluster: its nodes, where Ray Serve listens, and the words that describe it as a machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ClusterFacts", "NodeFacts", "describe"]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node of a cluster.

    Attributes:
        node_id: Ray's id of it, in hexadecimal digits.
        ip: address by which other nodes reach it.
        processor: model name of its processor.
        cores: cores that processes on it may use.
        architecture: such as ``x86_64``.
        memory_bytes: memory of its machine.
        machine: id of the machine since it was booted; several nodes may lie on one machine.
        gpu: name of its GPU; empty without one.
        is_head: whether it is the cluster's head.
        machine_cores: cores of the whole machine; 0: those of the node.
    """

    node_id: str
    ip: str
    processor: str
    cores: float
    architecture: str
    memory_bytes: int
    machine: str
    gpu: str = ""
    is_head: bool = False
    machine_cores: int = 0


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """A cluster.

    Attributes:
        address: by which Ray attaches to it, ``host:port``.
        is_own: whether it was started for this run.
        run: name of the run, with which all names of its applications and actors begin.
        nodes: its nodes.
        cpus: logical CPUs of all nodes, as Ray counts them.
        http: host and port of the proxies of Ray Serve; an empty host stands for the address of each node.
        token: lets other processes of this run attach to it; empty if the cluster asks for none.
    """

    address: str
    is_own: bool
    run: str
    nodes: tuple[NodeFacts, ...]
    cpus: float
    http: tuple[str, int]
    token: str = field(default="", repr=False)

    @property
    def cores(self) -> float:
        """Cores that processes on all nodes may use; nodes of one machine have no more together than it has."""
        cores: dict[str, float] = {}
        for node in self.nodes:
            most = node.machine_cores or node.cores
            cores[node.machine] = min(most, cores.get(node.machine, 0.0) + node.cores)
        return sum(cores.values())


def describe(nodes: Iterable[NodeFacts]) -> str:
    """The kinds of nodes and how many there are of each, most frequent first: ``3 × AMD EPYC, 16 cores, x86_64``."""
    kinds = Counter((node.processor, node.cores, node.architecture, node.gpu) for node in nodes)
    return " + ".join(
        f"{number} × {processor}, {cores:g} {'core' if cores == 1 else 'cores'}, {architecture}"
        + (f", {gpu}" if gpu else "")
        for (processor, cores, architecture, gpu), number in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    )
