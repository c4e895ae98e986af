"""What one service process does with a request: the layers of a node, each around the next, down to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.batch_layer import BatchLayer
from pytest_mlpatterns.patterns.batched import Batched
from pytest_mlpatterns.patterns.cache_layer import CacheLayer
from pytest_mlpatterns.patterns.cached import Cached
from pytest_mlpatterns.patterns.ensemble import Ensemble, EnsembleLayer
from pytest_mlpatterns.patterns.pattern import LayerNode, ModelNode, QueueNode, UpstreamNode
from pytest_mlpatterns.patterns.pipeline import Pipeline, PipelineLayer
from pytest_mlpatterns.patterns.queued import Queued, QueueLayer
from pytest_mlpatterns.patterns.store_url import MEMORY
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.local.upstream import Upstream
from pytest_mlpatterns.units import parse_duration
from pytest_mlpatterns.wire import REST_JSON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.patterns.layer import Handler
    from pytest_mlpatterns.patterns.pattern import Node, Pattern
    from pytest_mlpatterns.records.telemetry import LayerStats
    from pytest_mlpatterns.serving.redis.queue import RedisQueue
    from pytest_mlpatterns.wire import Wire

__all__ = ["HandlerStack", "in_flight"]


class HandlerStack:
    """Builds the layers.

    Args:
        node: what happens in this process; models are loaded here.
        identity: unique for the deployment; keys in servers begin with it.
        wire: how inputs and outputs are written in a store or broker.

    Attributes:
        inner: the outermost layer, or the model itself.
        queue: the queue, where there is one.

    Raises:
        Exception: whatever a model raises while it loads.
    """

    def __init__(self, node: Node, identity: str, wire: Wire = REST_JSON) -> None:
        self._identity = identity
        self._wire = wire
        self._tallies: list[Tally] = []
        self._broker_queue: RedisQueue | None = None
        self.queue: QueueLayer | RedisQueue | None = None
        self.inner = self._build(node)

    def layers(self) -> tuple[LayerStats, ...]:
        """What every layer counted so far."""
        return tuple(tally.snapshot() for tally in self._tallies)

    async def start(self) -> None:
        """Connect to the broker, so that the first request need not."""
        if self._broker_queue is not None:
            await self._broker_queue.start()

    async def close(self) -> None:
        """Leave nothing in a broker."""
        if self._broker_queue is not None:
            await self._broker_queue.close()

    def _tally(self, position: int, layer: str) -> Tally:
        self._tallies.append(Tally(position, layer))
        return self._tallies[-1]

    def _build(self, node: Node) -> Handler:
        """The layer of a node, around the layers of what is inside."""
        match node:
            case ModelNode(target):
                inner: Handler = target.load()  # packed by the engine
            case UpstreamNode(addresses, path, position, least, wire=wire):
                inner = Upstream(addresses, path, self._tally(position, "hop"), wire=wire, least_outstanding=least)
            case LayerNode(Queued() as pattern, position, (inside,)):
                inner = self.queue = self._queue_before(inside, pattern, position)
            case LayerNode(pattern, position, inside, names):
                inner = self._layer(pattern, position, inside, names)
            case _:
                raise AssertionError(f"nobody started {node!r}")
        return inner

    def _layer(self, pattern: Pattern, position: int, inside: Sequence[Node], names: Sequence[str]) -> Handler:
        layers = [self._build(node) for node in inside]
        tally = self._tally(position, type(pattern).__name__.lower())
        match pattern:
            case Cached():
                return CacheLayer(pattern, layers[0], tally, self._store(pattern, position), wire=self._wire)
            case Batched():
                return BatchLayer(pattern, layers[0], tally, at_once=_at_once(inside[0]))
            case Pipeline():
                return PipelineLayer(pattern, layers, names, tally)
            case Ensemble():
                models, combine = layers[: len(names)], layers[len(names) :]
                return EnsembleLayer(pattern, models, names, combine[0] if combine else None, tally)
        raise AssertionError(f"nobody knows how to serve {pattern}")

    def _queue_before(self, inside: Node, pattern: Queued, position: int) -> QueueLayer | RedisQueue:
        tally = self._tally(position, "queued")
        if isinstance(inside, QueueNode):
            from pytest_mlpatterns.serving.redis.queue import RedisQueue

            self._broker_queue = RedisQueue(pattern, inside.url, inside.stream, tally, self._wire)
            return self._broker_queue
        assert isinstance(inside, UpstreamNode)
        hops = self._tally(position, "hop")
        workers = [Upstream([address], inside.path, hops, wire=inside.wire) for address in inside.addresses]
        return QueueLayer(pattern, workers, inside.in_flight, tally)

    def _store(self, pattern: Cached, position: int) -> Any:
        if pattern.store == MEMORY:
            return None
        from pytest_mlpatterns.serving.redis.cache import RedisCache

        ttl_ns = None if pattern.ttl is None else parse_duration(pattern.ttl, name="ttl")
        return RedisCache(pattern.store, f"{self._identity}:{position}:".encode(), ttl_ns)


def in_flight(node: Node) -> int:
    """How many requests a worker that does this takes at a time: one, or a batch where it gathers them again."""
    return node.pattern.max_batch_size if isinstance(node, LayerNode) and isinstance(node.pattern, Batched) else 1


def _at_once(node: Node) -> int:
    """How many batches can be worked on at a time: one, or as many as there are processes behind."""
    match node:
        case UpstreamNode(addresses):
            return len(addresses)
        case LayerNode(Queued(workers=workers)):
            return workers
        case LayerNode(Cached(), _, (inside,)):
            return _at_once(inside)
    return 1
