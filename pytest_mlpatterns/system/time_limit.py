"""A time limit of a block of the main thread, and calls of a function in it from time to time, also while it waits.

A signal ends each wait, and what waits goes on afterwards. The signal is one that does nothing to a process that
expects none.
"""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

_CLEANING_S = 5.0  # Time that a block which has ended may take to clean up


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


class TimeIsUp(BaseException):
    """The time of a block is over."""


def time_limit(limit_ns: int | None, show: Callable[[int | None], None]) -> contextlib.AbstractContextManager[None]:
    """End a block by :class:`TimeIsUp` after this time; there is no limit outside of the thread that signals reach.

    ``limit_ns``: None for no limit. ``show``: takes the seconds that are left, once a second; None at the end.
    """
    if limit_ns is None or not can_tick():
        return contextlib.nullcontext()
    return _TimeLimit(limit_ns, show)


class _TimeLimit:
    """Ends a block by a signal, as Ctrl-C would; the one that is taken does nothing to a process that expects none."""

    def __init__(self, limit_ns: int, show: Callable[[int | None], None]) -> None:
        self._limit_s, self._show = limit_ns / 1e9, show
        self._ends = time.monotonic() + self._limit_s
        self._cleans = False
        self._ticks = Ticks(lambda: min(max(self._ends - time.monotonic(), 0.01), 1.0), self._tick)

    def __enter__(self) -> None:
        self._show(math.ceil(self._limit_s))
        self._ticks.begin()

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._ticks.end()
        self._show(None)
        if self._cleans and isinstance(error, Exception):  # what was cut made another error of it
            raise TimeIsUp from error

    def _tick(self, frame: FrameType | None) -> None:
        left_s = self._ends - time.monotonic()
        if left_s > 0 and not self._cleans:
            self._show(math.ceil(left_s))
        ends = (_TimeLimit.__enter__.__code__, _TimeLimit.__exit__.__code__)  # where nothing ends the ticks any more
        while frame is not None and frame.f_code.co_name != "__del__" and frame.f_code not in ends:
            frame = frame.f_back  # __del__: there Python drops what is raised
        if left_s <= 0 and frame is None:
            self._ends, self._cleans = time.monotonic() + _CLEANING_S, True
            raise TimeIsUp
