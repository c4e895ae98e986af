"""Scenarios of coroutines, run on an event loop of their own within a bound of time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally

PATIENCE_S = 30


class Panic(BaseException):
    """As the panics of libraries in Rust: no ``Exception``."""


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await scenario

    return asyncio.run(bounded())


async def settle() -> None:
    """Let everything that can go on without the test go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def counts(tally: Tally) -> dict[str, int]:
    """What a layer counted, without times."""
    return {name: count for name, count in tally.snapshot().counters.items() if not name.endswith("_ns")}


async def read(stream: Any) -> list[Any]:
    """All chunks of a stream, which is closed then."""
    assert isinstance(stream, Stream)
    try:
        return [chunk async for chunk in stream]
    finally:
        await stream.aclose()
