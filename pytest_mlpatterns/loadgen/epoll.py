"""A selector for a load generator: ``epoll`` with less work per event than the one of the standard library.

That one costs as much per event as reading and parsing a small answer. Elsewhere than on Linux the standard library's
default serves. This module must not know what it wakes.
"""

from __future__ import annotations

import select
import selectors
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["new_selector"]


def new_selector() -> selectors.BaseSelector:
    """The fastest selector of this system."""
    return _Epoll() if sys.platform == "linux" else selectors.DefaultSelector()


class _Epoll(selectors.BaseSelector):
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a file for events; :meth:`select` returns ``data`` with them."""
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._epoll.register(descriptor, _mask_of(events))
        self._keys[descriptor] = key = selectors.SelectorKey(fileobj, descriptor, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching a file."""
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._epoll.unregister(descriptor)
        return self._keys.pop(descriptor)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a file for other events."""
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._epoll.modify(descriptor, _mask_of(events))
        self._keys[descriptor] = key = selectors.SelectorKey(fileobj, descriptor, events, data)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready files after at most ``timeout`` seconds, rounded up to milliseconds; None waits without limit."""
        keys = self._keys
        return [
            (keys[descriptor], 1 if event == select.EPOLLIN else _events_of(event))
            for descriptor, event in self._epoll.poll(timeout)
        ]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Watched files by descriptor."""
        return self._keys

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()
        self._keys.clear()


def _mask_of(events: int) -> int:
    reads = select.EPOLLIN if events & selectors.EVENT_READ else 0
    return reads | (select.EPOLLOUT if events & selectors.EVENT_WRITE else 0)


def _events_of(mask: int) -> int:
    """Report a hang-up or an error as readable and writable, so that the next read or write raises it."""
    reads = selectors.EVENT_READ if mask & ~select.EPOLLOUT else 0
    return reads | (selectors.EVENT_WRITE if mask & ~select.EPOLLIN else 0)
