"""A model that counts its calls, a dictionary in place of a server, and a layer of the cache around them."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from pytest_mlpatterns.patterns.cache_layer import CacheLayer, StoreUnavailable
from pytest_mlpatterns.patterns.cached import Cached
from pytest_mlpatterns.patterns.tally import Tally

MS = 1_000_000
REST_NS = 500 * MS


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 7_000 * MS

    def __call__(self) -> int:
        return self.now_ns


class Model:
    """Answers every input with itself in a list, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []

    def __call__(self, batch: list[Any]) -> list[Any]:
        self.calls.append(batch)
        return [[value] for value in batch]

    @property
    def inputs(self) -> list[Any]:
        """Everything it was asked, in order."""
        return [value for batch in self.calls for value in batch]


class SlowModel(Model):
    """Answers when it is let go, and says when it was asked."""

    def __init__(self, failure: BaseException | None = None) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.failure = failure

    async def __call__(self, batch: list[Any]) -> list[Any]:  # type: ignore[override]
        outputs = super().__call__(batch)
        self.asked.set()
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return outputs


class Server:
    """A store in this process: it can be away for reading or for writing, and counts what it is asked."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.away = ""
        self.asked: list[str] = []
        self.reading: asyncio.Event | None = None

    async def get(self, keys: list[bytes]) -> list[bytes | None]:
        self.asked.append("get")
        if self.reading is not None:
            await self.reading.wait()
        if "get" in self.away:
            raise StoreUnavailable("gone")
        return [self.kept.get(key) for key in keys]

    async def put(self, items: Mapping[bytes, bytes]) -> None:
        self.asked.append("put")
        if "put" in self.away:
            raise StoreUnavailable("gone")
        self.kept.update(items)


def counted(tally: Tally) -> dict[str, int]:
    """Its counters that are not zero."""
    return {name: count for name, count in tally.snapshot().counters.items() if count}


def timed(tally: Tally) -> dict[str, int]:
    """How many times it saw, by name."""
    return {name: sum(spread.values()) for name, spread in tally.snapshot().histograms.items()}


def caching(
    inner: Callable[[list[Any]], Any], pattern: Cached | None = None, store: Server | None = None, **more: Any
) -> tuple[CacheLayer, Tally]:
    tally = Tally(0, "cached")
    return CacheLayer(pattern or Cached(), inner, tally, store=store, **more), tally


async def answer_of(outputs: Any) -> Any:
    return await outputs if asyncio.iscoroutine(outputs) else outputs


async def in_a_moment(batch: list[Any]) -> list[Any]:
    """A model that gives way to others once."""
    await asyncio.sleep(0)
    return [[value] for value in batch]
