"""Addresses that a running load gets: another thread adds one, and the selector loop takes it at once.

The loop is woken by a pipe, since its own ticks are 50 ms apart.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AddedAddresses"]


class AddedAddresses:
    """Passes addresses from another thread to a selector loop.

    Args:
        selector: of the loop.
        take: takes each address, in the thread of the loop.
    """

    def __init__(self, selector: selectors.BaseSelector, take: Callable[[tuple[str, int]], None]) -> None:
        self._take = take
        self._added: deque[tuple[str, int]] = deque()
        self._closing = threading.Lock()
        self._closed = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        selector.register(self._reader, selectors.EVENT_READ, self._on_wake)

    def add(self, address: tuple[str, int]) -> None:
        """Add an address; nothing happens if the load has ended. Thread-safe."""
        with self._closing:
            if not self._closed:
                self._added.append(address)
                os.write(self._writer, b"a")

    def close(self) -> None:
        """Close the pipe. The selector is closed by its owner."""
        with self._closing:
            if not self._closed:
                self._closed = True
                os.close(self._reader)
                os.close(self._writer)

    def _on_wake(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 64)
        while self._added:
            self._take(self._added.popleft())
