"""Calls of a function in the main thread from time to time, also while that thread waits: a signal ends each wait.

What waits goes on afterwards. The signal is one that does nothing to a process that expects none.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def can_tick() -> bool:
    """Whether signals reach this thread."""
    return hasattr(signal, "SIGURG") and threading.current_thread() is threading.main_thread()


class Ticks:
    """Calls a function from :meth:`begin` to :meth:`end`; of nested ones, only the innermost's is called.

    ``wait_s``: the time until the next call, asked for after each one. ``tick``: takes the frame that was interrupted.
    """

    def __init__(self, wait_s: Callable[[], float], tick: Callable[[FrameType | None], None]) -> None:
        self._wait_s, self._tick = wait_s, tick
        self._over, self._main = threading.Event(), threading.get_ident()
        self._calling = threading.Thread(target=self._call, name="ticks", daemon=True)
        self._handler: Any = None

    def begin(self) -> None:
        """Begin, in the main thread."""
        self._handler = signal.signal(signal.SIGURG, self._called)
        self._calling.start()

    def end(self) -> None:
        """End; nothing is called afterwards."""
        self._over.set()
        self._calling.join()
        signal.signal(signal.SIGURG, self._handler)

    def _call(self) -> None:
        while not self._over.wait(self._wait_s()):
            signal.pthread_kill(self._main, signal.SIGURG)

    def _called(self, _number: int, frame: FrameType | None) -> None:
        if not self._over.is_set():
            self._tick(frame)
