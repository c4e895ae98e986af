"""Counts the calls of Python functions in each process that imports this module, and in those that it forks.

A copy of this file is the ``sitecustomize`` of a service that is counted, so it needs nothing but the standard library.
Each process has two files beside the copy: the functions that it has called, one a line, and how often it called each,
as native 64-bit integers. They can be read at any time; the process needs neither a thread nor a signal for it.
"""

import mmap
import os
import sys
import threading
from types import CodeType, FrameType
from typing import Any

NAMES, COUNTS = ".names", ".counts"  # Ends of the names of the two files of a process; its id stands before them
MOST = 1 << 16  # Most functions of a process; the last one stands for all others
_BYTES = 8  # Size of a count


class CallCounter:
    """Counts the calls of one process. ``directory``: takes its files."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.open()
        os.register_at_fork(before=self.pause, after_in_parent=self.resume, after_in_child=self.open)

    def open(self) -> None:
        """Begin to count, in new files of this process."""
        self._places: dict[CodeType, int] = {}
        beginning = os.path.join(self._directory, str(os.getpid()))
        flags = os.O_CREAT | os.O_RDWR | os.O_TRUNC | os.O_CLOEXEC
        self._names = os.open(beginning + NAMES, flags, 0o600)
        counts = os.open(beginning + COUNTS, flags, 0o600)
        os.ftruncate(counts, MOST * _BYTES)
        self._counts = memoryview(mmap.mmap(counts, MOST * _BYTES)).cast("Q")
        os.close(counts)
        self.resume()

    def pause(self) -> None:
        """Count nothing: a forked copy of this process would do so in the same files."""
        self._is_counting = False

    def resume(self) -> None:
        """Count again."""
        self._is_counting = True

    def on_call(self, code: CodeType, _offset: int = 0) -> None:
        """A function was called; the callback of ``sys.monitoring``."""
        if not self._is_counting:
            return
        place = self._places.get(code)
        if place is None:
            place = self._places[code] = min(len(self._places), MOST - 1)
            name = getattr(code, "co_qualname", code.co_name)
            os.write(self._names, f"{name}\t{code.co_firstlineno}\t{code.co_filename}\n".encode(errors="replace"))
        self._counts[place] += 1

    def on_event(self, frame: FrameType, event: str, _argument: object) -> None:
        """The callback of ``sys.setprofile``."""
        if event == "call":
            self.on_call(frame.f_code)

    def start(self) -> None:
        """Count the calls of this thread, and of those that start from now on."""
        monitoring: Any = getattr(sys, "monitoring", None)
        if monitoring is None:
            threading.setprofile(self.on_event)
            sys.setprofile(self.on_event)
            return
        tool = next(number for number in (3, 4, 2) if monitoring.get_tool(number) is None)
        monitoring.use_tool_id(tool, "pytest-mlpatterns")
        monitoring.register_callback(tool, monitoring.events.PY_START, self.on_call)
        monitoring.set_events(tool, monitoring.events.PY_START)


if __name__ == "sitecustomize":
    CallCounter(os.path.dirname(__file__)).start()
