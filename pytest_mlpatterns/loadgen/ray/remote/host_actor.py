"""One host of load generators as the driver calls it: an actor on a node, its answers and its clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pytest_mlpatterns.errors import ChildError, MlpatternsError
from pytest_mlpatterns.loadgen.ray.host import GeneratorHost
from pytest_mlpatterns.loadgen.ray.messages import HostFacts
from pytest_mlpatterns.system.machine_identity import machine_identity
from pytest_mlpatterns.system.ray.clock import RoundTrip, offset_of

if TYPE_CHECKING:
    from pytest_mlpatterns.system.ray.clock import ClockOffset

__all__ = ["ANSWER_S", "START_S", "Host", "start_host"]

START_S = 60.0
"""Time limit for the start of an actor, and for its first answer."""
ANSWER_S = 20.0
_ROUND_TRIPS = 20
_CLOCK_AGE_S = 60.0
_THREADS = 8
"""Calls that a host answers at once: one waits for messages, and the others are short."""


@dataclass(eq=False)
class Host:
    """One actor.

    Attributes:
        node: id of its node.
        ip: address of its node.
        actor: handle of the actor.
        machine: identity of its machine.
        allowed_connections: of a process there.
        clock: how far its clock is ahead.
        compared_s: when the clocks were compared last.
        loading: answers of the jobs that were given to its processes, by key, until they are awaited.
        is_lost: whether it no longer answers.
    """

    node: str
    ip: str
    actor: Any
    machine: str = ""
    allowed_connections: int | None = None
    clock: ClockOffset | None = None
    compared_s: float = 0.0
    loading: dict[int, Any] = field(default_factory=dict)
    is_lost: bool = False

    def get(self, answer: Any, timeout_s: float = ANSWER_S) -> Any:
        """The value of an answer of the actor.

        Raises:
            ChildError: the actor is gone, or does not answer in time.
            MlpatternsError: what the call raised.
        """
        try:
            return ray.get(answer, timeout=timeout_s)
        except RayTaskError as error:
            if isinstance(error.cause, MlpatternsError):
                raise error.cause from None
            raise
        except GetTimeoutError:
            raise ChildError(f"node {self.ip} of the Ray cluster does not answer for {timeout_s:.0f} s") from None
        except RayError as error:
            self.is_lost = self.is_lost or isinstance(error, RayActorError)
            raise ChildError(f"node {self.ip} of the Ray cluster keeps no load generator: {error}") from error

    def await_start(self, facts: Any) -> None:
        """Wait until the actor runs.

        Args:
            facts: answer to the question for its facts.
        """
        self.machine, self.allowed_connections = self.get(facts, START_S)

    def compare_clocks(self) -> None:
        """Measure how far its clock is ahead, unless that is known since a minute."""
        if self.clock is not None and time.monotonic() - self.compared_s < _CLOCK_AGE_S:
            return
        trips = []
        for _ in range(_ROUND_TRIPS):
            sent_ns = time.perf_counter_ns()
            remote_ns = self.get(self.actor.now_ns.remote())
            trips.append(RoundTrip(sent_ns, remote_ns, time.perf_counter_ns()))
        self.clock = offset_of(trips, same_machine=self.machine == machine_identity())
        self.compared_s = time.monotonic()

    @property
    def facts(self) -> HostFacts:
        """What pytest knows of it."""
        assert self.clock is not None
        return HostFacts(self.ip, self.machine, self.clock, self.allowed_connections)


def start_host(node: str, ip: str) -> Host:
    """Start an actor on a node, without waiting for it.

    Args:
        node: id of the node.
        ip: its address.
    """
    actor = ray.remote(GeneratorHost).options(
        num_cpus=0,
        max_concurrency=_THREADS,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )
    return Host(node, ip, actor.remote(ends_with_parent=True))
