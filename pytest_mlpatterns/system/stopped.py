"""Processes that were stopped, by SIGSTOP or a debugger: they hold their sockets open and answer nothing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["describe_stopped"]

_STOPPED = {psutil.STATUS_STOPPED: "stopped (SIGSTOP)", psutil.STATUS_TRACING_STOP: "stopped by a debugger"}


def describe_stopped(roots: Iterable[int]) -> str:
    """The first stopped process in the trees under these ids: ``process 4711 (python) is stopped (SIGSTOP)``.

    Empty if none is stopped.
    """
    for process in _trees(roots):
        with contextlib.suppress(psutil.Error, OSError):
            if how := _STOPPED.get(process.status()):
                return f"process {process.pid} ({process.name()}) is {how}"
    return ""


def _trees(roots: Iterable[int]) -> Iterator[psutil.Process]:
    for root in roots:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(root)
            yield process
            yield from process.children(recursive=True)
