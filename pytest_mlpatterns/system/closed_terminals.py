"""Terminals that are closed while a process writes to them: what it writes afterwards goes nowhere, without an error.

A terminal closes with its window or with its connection. Each later write to it fails, also the first line of a
summary, and so the files that are written after this line would be lost.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Terminals"]

_DESCRIPTORS = "/dev/fd"


class Terminals:
    """The terminals that this process has open."""

    def __init__(self) -> None:
        self._devices = {device for descriptor, device in _devices() if os.isatty(descriptor)}

    def replace_closed(self) -> None:
        """Point each descriptor of one of these terminals that is closed at the null device."""
        closed = [one for one, device in _devices() if device in self._devices and _is_closed(one)]
        if closed:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in closed:  # pytest keeps copies of them while it captures output
                os.dup2(nowhere, descriptor, inheritable=os.get_inheritable(descriptor))
            os.close(nowhere)


def _devices() -> Iterator[tuple[int, int]]:
    """The open descriptors of this process, each with the number of its device."""
    with contextlib.suppress(FileNotFoundError):  # a container without it has no terminal either
        for name in os.listdir(_DESCRIPTORS):
            with contextlib.suppress(OSError):  # that of the listing itself is closed by now
                yield int(name), os.fstat(int(name)).st_rdev


def _is_closed(descriptor: int) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, 0)  # the end of the other side is reported unasked
    return any(events & select.POLLHUP for _, events in waiting.poll(0))
