"""The memory of ``Cached``: outputs by their key, the least recently used evicted first, with or without a lifetime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachetools import LRUCache, TTLCache

from pytest_mlpatterns.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from pytest_mlpatterns.patterns.cached import Cached
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["memory_of"]


def memory_of(pattern: Cached, tally: Tally, clock_ns: Callable[[], int]) -> MutableMapping[bytes, Any]:
    """An empty memory.

    Args:
        pattern: has its capacity, and the lifetime of its entries.
        tally: counts evictions.
        clock_ns: monotonic clock, in nanoseconds.
    """
    if pattern.ttl is None:
        return _Memory(pattern.max_entries, tally)
    return _TimedMemory(pattern.max_entries, parse_duration(pattern.ttl), clock_ns, tally=tally)


class _Memory(LRUCache[bytes, Any]):
    """An LRU cache of outputs."""

    def __init__(self, max_entries: int, tally: Tally) -> None:
        super().__init__(max_entries)
        self._tally = tally

    def popitem(self) -> tuple[bytes, Any]:
        self._tally.count("evictions")
        return super().popitem()


class _TimedMemory(TTLCache[bytes, Any]):
    """A TTL cache that evicts the least recently used entry when all are still valid."""

    def __init__(self, max_entries: int, ttl_ns: int, clock_ns: Callable[[], int], *, tally: Tally) -> None:
        super().__init__(max_entries, ttl_ns, clock_ns)
        self._tally = tally

    def popitem(self) -> tuple[bytes, Any]:
        self._tally.count("evictions")
        return super().popitem()
