"""Waiting for processes to end, and making sure that none is left."""

import contextlib
import time
from collections.abc import Iterable

import psutil


def our_children() -> set[int]:
    """Ids of the processes under this one that run."""
    return {process.pid for process in psutil.Process().children(recursive=True) if _runs(process)}


def survivors(pids: Iterable[int], timeout_s: float) -> set[int]:
    """Those of these processes that still run after so long; they are killed then."""
    alive = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            alive.append(psutil.Process(pid))
    deadline = time.monotonic() + timeout_s
    while (alive := [process for process in alive if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)  # awaiting a child through psutil would take its exit status from its owner
    for process in alive:
        process.kill()
    return {process.pid for process in alive}


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
