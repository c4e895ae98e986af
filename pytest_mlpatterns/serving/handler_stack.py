"""What one service process does with a request: the layers of its node, each around the next, down to the model."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.arguments import EMBEDDED
from pytest_mlpatterns.patterns.layer import Handler, Resources
from pytest_mlpatterns.patterns.pattern import ModelNode, Pattern
from pytest_mlpatterns.patterns.queued import Queued
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.telemetry import AWAITS, LayerStats
from pytest_mlpatterns.serving.model import UnusableModelError
from pytest_mlpatterns.serving.model import is_stepped as steps
from pytest_mlpatterns.serving.processes import PackedLayer, QueueNode
from pytest_mlpatterns.serving.timed_model import ModelMeter, TimedModel, TimedSteps
from pytest_mlpatterns.system.thread_times import RunQueueClock
from pytest_mlpatterns.wire import REST_JSON, Wire

if TYPE_CHECKING:
    from pytest_mlpatterns.serving.redis.cache import RedisCache


class HandlerStack:
    """Loads the models of a process and makes the layers around them.

    ``upstream``: makes the handler of a process group behind this process from the node of the engine that stands for
    the group, a tally, and the stage or model that the group is (empty if it is none); None: no group is behind.
    ``layer_of``: makes the layer of a pattern in place of :meth:`Pattern.layer`, with its arguments.
    """

    def __init__(
        self,
        node: object,
        identity: str,
        *,
        wire: Wire = REST_JSON,
        own_server: str | None = None,
        upstream: Callable[[Any, Tally, str], Handler] | None = None,
        layer_of: Callable[[Any, Sequence[Handler], Tally, Resources], object] | None = None,
    ) -> None:
        self._upstream = upstream
        self._layer_of = layer_of
        self._identity = identity
        self._wire = wire
        self._own_server = own_server
        self._tallies: list[Tally] = []
        self._layers: list[Handler] = []
        self._meter = ModelMeter()
        outermost: Any = self._build(node)
        if hasattr(outermost, "returns_copies"):
            outermost.returns_copies = False  # the server only encodes what it gets
        self.handler: Handler = outermost

    @property
    def run_queue(self) -> RunQueueClock:
        """How long threads of this process have waited for a processor."""
        return self._meter.run_queue

    def follow_awaits(self) -> None:
        """Count where coroutines wait, for a profile."""
        self._meter.awaits = self._tally(0, AWAITS)

    def layers(self) -> tuple[LayerStats, ...]:
        """What every layer has counted so far."""
        return tuple(tally.snapshot() for tally in self._tallies)

    async def start(self) -> None:
        """Start the layers that have a ``start``, the innermost first."""
        for layer in self._layers:
            if (start := getattr(layer, "start", None)) is not None:
                await start()

    async def close(self) -> None:
        """Close the layers that have a ``close``, the outermost first."""
        for layer in reversed(self._layers):
            if (close := getattr(layer, "close", None)) is not None:
                await close()

    def _tally(self, position: int, layer: str) -> Tally:
        self._tallies.append(Tally(position, layer))
        return self._tallies[-1]

    def _build(self, node: Any, *, is_stepped: bool = False, of: str = "") -> Handler:
        """Build the handler of a node; ``of`` is the stage or model that it belongs to in a split of latencies."""
        if isinstance(node, PackedLayer):
            return self._layer(node, of)
        if isinstance(node, ModelNode):
            model: Any = _checked(node.target.load(), node.target.name, is_stepped=is_stepped)
            timed: Any = TimedSteps if is_stepped else TimedModel
            return timed(model, self._meter, of)  # type: ignore[no-any-return]
        assert self._upstream is not None, f"requests reach {node} through the layer of its queue"
        return self._upstream(node, self._tally(node.position, "hop"), of)

    def _layer(self, node: PackedLayer, of: str) -> Handler:
        pattern: Pattern = pickle.loads(node.pattern)  # noqa: S301 - only our own parent writes here
        queue = next((inside for inside in node.inside if isinstance(inside, QueueNode)), None)
        inside = [
            self._build(inside, is_stepped=pattern.steps_model, of=name)
            for inside, name in zip_longest(node.inside, pattern.inside_names[: len(node.inside)], fillvalue=of)
            if not isinstance(inside, QueueNode)
        ]
        resources = _Resources(f"{self._identity}:{node.position}:", self._wire, self._own_server, queue)
        make = self._layer_of or type(pattern).layer
        layer: object = make(pattern, inside, self._tally(node.position, pattern.name), resources)
        if not callable(layer):
            raise SettingError(
                f"{type(pattern).__name__}.layer() returned {type(layer).__name__}, expected a handler: "
                "a callable that takes a list of inputs"
            )
        self._layers.append(layer)
        return layer


def _checked(model: Any, name: str, *, is_stepped: bool) -> Handler:
    """Check that a model has the methods that its pattern calls."""
    if is_stepped and not steps(model):
        raise UnusableModelError(
            f"{name} has no start and step, which Continuous calls; give a class with start(input) and step(active)",
            name=name,
        )
    if not is_stepped and not callable(model):
        raise UnusableModelError(
            f"{name} has start and step instead of __call__(batch); write pattern=Continuous(max_batch_size=8)",
            name=name,
        )
    return model  # type: ignore[no-any-return]


class _Resources(Struct, frozen=True):
    """Stores and queues for one layer; fulfils :class:`pytest_mlpatterns.patterns.layer.Resources`."""

    prefix: str
    wire: Wire
    own_server: str | None
    queue_node: QueueNode | None

    def store(self, url: str, ttl_ns: int | None = None) -> RedisCache:
        from pytest_mlpatterns.serving.redis.cache import RedisCache

        if url == EMBEDDED:
            assert self.own_server is not None, "a layer may only use stores that its pattern lists in servers"
            url = self.own_server
        return RedisCache(url, self.prefix.encode(), ttl_ns)

    def queue(self, pattern: Queued, tally: Tally) -> Handler:
        from pytest_mlpatterns.serving.redis.queue import RedisQueue

        assert self.queue_node is not None, "a layer may only use a queue if its process group has a broker"
        return RedisQueue(pattern, self.queue_node.url, self.queue_node.stream, tally=tally, wire=self.wire)
