"""One call of a plain model at a time in a service behind a gateway, so that ``hop`` leaves out the wait for it.

A plain model blocks the event loop, and uvloop sends responses only after all callbacks that are ready. Without the
lock, the response of the first of several requests would leave after the calls of all others.
"""

from __future__ import annotations

import asyncio
from time import perf_counter_ns

__all__ = ["ModelLock"]


class ModelLock:
    """A lock whose release waits for the next iteration of the event loop, when the response has been sent.

    Attributes:
        free_ns: when the last call of the model ended, on the clock of ``perf_counter_ns``; 0 before the first.
    """

    def __init__(self) -> None:
        self.free_ns: int = 0
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.free_ns = perf_counter_ns()
        asyncio.get_running_loop().call_soon(self._lock.release)
