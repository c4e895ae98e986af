"""The processes of a local deployment as one: their statistics, their output, their end."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import DeploymentError, LeftoverWarning
from pytest_mlpatterns.records.environment_facts import merged_facts
from pytest_mlpatterns.records.telemetry import PatternStats, merged_layers
from pytest_mlpatterns.system.orphans import describe_killed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.environment_facts import EnvironmentFacts
    from pytest_mlpatterns.serving.local.supervised_worker import SupervisedWorker
    from pytest_mlpatterns.serving.redis.embedded_server import EmbeddedServer

__all__ = ["LocalProcesses"]


@dataclass(frozen=True, slots=True)
class LocalProcesses:
    """Workers and auxiliary servers of one deployment.

    Args:
        workers: processes that run models and layers.
        servers: servers of stores and brokers that the deployment started for itself.
        model: name of the model, for messages.
    """

    workers: Sequence[SupervisedWorker]
    servers: Sequence[EmbeddedServer] = ()
    model: str = ""

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids: workers first, in the order of their start."""
        return (*(worker.child.pid for worker in self.workers), *(server.pid for server in self.servers))

    def check(self, wait_s: float = 0.0) -> None:
        """Ask each worker for its statistics, which fails if it has ended.

        Raises:
            DeploymentError: a worker or server has ended, or a worker does not answer.
        """
        self.stats()

    def stats(self) -> PatternStats:
        """Statistics of all workers since the start; replicas are those of the outermost group with more than one.

        Raises:
            DeploymentError: a worker or server has ended, or a worker does not answer.
        """
        for server in self.servers:
            server.check()
        answers = [(worker, worker.stats()) for worker in self.workers]
        groups: dict[tuple[int, str], list[int]] = {}
        for worker, answer in sorted(answers, key=lambda pair: pair[0].position):
            groups.setdefault((worker.position, worker.role), []).append(answer.predict_requests)
        replicas = next((counts for counts in groups.values() if len(counts) > 1), None)
        return PatternStats(
            replica_requests=tuple(replicas or next(iter(groups.values()), ())),
            tracebacks=tuple(dict.fromkeys(text for _, answer in answers for text in answer.tracebacks)),
            layers=merged_layers(layer for _, answer in answers for layer in answer.layers),
            replaced=sum(worker.replaced for worker in self.workers),
        )

    def facts(self) -> EnvironmentFacts:
        """The environment of the workers; of those that serve the same, the first answers."""
        groups = {(worker.position, worker.role): worker for worker in reversed(self.workers)}
        return merged_facts(groups[group].facts() for group in sorted(groups))

    def log_tail(self) -> str:
        """Last lines of each worker's output."""
        return "\n".join(filter(None, (worker.child.log_tail() for worker in self.workers)))

    def log_sizes(self) -> tuple[int, ...]:
        """Return nothing: tracebacks of a model are in the statistics."""
        return ()

    def traceback_since(self, sizes: Sequence[int]) -> str:
        """Return an empty text, likewise."""
        return ""

    def stop(self) -> None:
        """End all processes and wait until they are gone; workers end at the same time, servers after them.

        A warning names the processes that a model started and that had to be killed.

        Raises:
            DeploymentError: a process survived SIGKILL.
        """
        for worker in self.workers:
            worker.close_channel()
        ends = [worker.stop() for worker in self.workers]
        for server in self.servers:
            server.stop()
        if survivors := [name for end in ends for name in end.survivors]:
            raise DeploymentError(f"these processes survived SIGKILL: {', '.join(survivors)}; end them by hand")
        if killed := [name for end in ends for name in end.killed]:
            warnings.warn(
                f"perf_model {self.model}: processes that it started and that did not end after SIGTERM were killed: "
                f"{describe_killed(killed)}",
                LeftoverWarning,
                stacklevel=2,
            )
