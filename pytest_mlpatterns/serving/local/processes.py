"""The processes of a local deployment as one: their statistics, their output, their end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.telemetry import PatternStats, merged_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.serving.local.supervised_worker import SupervisedWorker
    from pytest_mlpatterns.serving.redis.embedded_server import EmbeddedServer

__all__ = ["LocalProcesses"]


@dataclass(frozen=True, slots=True)
class LocalProcesses:
    """Workers and auxiliary servers of one deployment.

    Args:
        workers: processes that run models and layers.
        servers: servers of stores and brokers that the deployment started for itself.
    """

    workers: Sequence[SupervisedWorker]
    servers: Sequence[EmbeddedServer] = ()

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
        """End all processes and wait until they are gone; workers end at the same time, servers after them."""
        for worker in self.workers:
            worker.close_channel()
        for worker in self.workers:
            worker.stop()
        for server in self.servers:
            server.stop()
