"""A Ray session without Ray: calls go to functions of the test."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_mlpatterns.engines.ray.cluster import ClusterFacts, NodeFacts


def node_facts(number: int = 1, **changes: Any) -> NodeFacts:
    """A node of its own machine; ``number`` makes it another one."""
    values = {
        "node_id": f"{number:056x}",
        "ip": f"10.0.0.{number}",
        "processor": "AMD EPYC 7B13",
        "cores": 16.0,
        "architecture": "x86_64",
        "machine": f"machine-{number}",
        "is_head": number == 1,
    }
    return NodeFacts(**{**values, **changes})


def cluster_facts(nodes: int = 1, **changes: Any) -> ClusterFacts:
    """An attached cluster of nodes that lie on a machine each."""
    values = {
        "address": "10.0.0.1:6379",
        "is_own": False,
        "run": "mlpatterns-1764146400-0123abcd",
        "nodes": tuple(node_facts(number) for number in range(1, nodes + 1)),
        "http": ("", 8000),
    }
    return ClusterFacts(**{**values, **changes})


@dataclass
class FakeRay:
    """Has the members of :class:`pytest_mlpatterns.engines.ray.session.RaySession`.

    ``call`` calls ``functions`` by the name that it takes, or by what follows its last dot or colon.
    """

    functions: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    facts: ClusterFacts = field(default_factory=cluster_facts)
    calls: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    runtime_env: Mapping[str, object] = field(default_factory=dict)
    begun: bool = False
    closed: bool = False
    log: str = ""

    def begin(self) -> None:
        self.begun = True

    @property
    def cluster(self) -> ClusterFacts:
        self.begin()
        return self.facts

    def call(self, function: str, *arguments: object, timeout_s: float = 30.0) -> Any:
        short = re.split("[.:]", function)[-1]
        self.calls.append((short, arguments))
        found = self.functions.get(function) or self.functions[short]
        return found(*arguments)

    def log_tail(self) -> str:
        return self.log

    def close(self) -> None:
        self.closed = True
