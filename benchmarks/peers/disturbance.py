"""What disturbs a run from outside: busy cores, or a machine that is slower for some seconds at a time.

``python -m peers.disturbance KIND`` disturbs the other descendants of its parent until that parent ends.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Literal, get_args

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Beside", "disturbed"]

Beside = Literal["", "one", "two", "slowed"]
"""``one`` or ``two`` cores are busy; or ``slowed``: see :func:`slow`."""

_PHASES_S = (0.5, 4.0)
"""Shortest and longest phase of a machine that is slowed."""
_PERIOD_S = 0.03
"""In which processes are stopped for a part, as ``cpulimit`` does."""
_STOPPED = (0.0, 0.0, 0.0, 0.2, 0.4)
"""Shares of the time in which all processes are stopped, of which a phase draws one."""


@contextlib.contextmanager
def disturbed(kind: Beside) -> Iterator[None]:
    """Disturb what this process starts meanwhile."""
    if not kind:
        yield
        return
    disturber = subprocess.Popen([sys.executable, __file__, kind], stdout=subprocess.PIPE)
    assert disturber.stdout is not None
    disturber.stdout.readline()  # it disturbs from now on
    try:
        yield
    finally:
        disturber.terminate()
        disturber.wait()


def burn(parent: int) -> None:
    """Keep one core busy until the parent has ended."""
    while os.getppid() == parent:
        sum(range(10_000))


def slow(parent: int) -> None:
    """Slow the machine down for seconds at a time, until the parent has ended.

    A loop for each core runs or rests, free or pinned to its core; meanwhile all processes of the run are stopped for a
    share of the time, which no counter shows as stolen.
    """
    loops = [start_burner() for _ in range(os.cpu_count() or 1)]
    while os.getppid() == parent:
        for number, loop in enumerate(loops):
            pinned = [number] if random.random() < 0.5 else range(len(loops))
            os.sched_setaffinity(loop.pid, pinned)
            loop.send_signal(random.choice((signal.SIGSTOP, signal.SIGCONT)))
        stop_for(random.choice(_STOPPED), time.monotonic() + random.uniform(*_PHASES_S), parent)


def stop_for(share: float, until: float, parent: int) -> None:
    """Stop the run's processes for a share of the time."""
    while time.monotonic() < until and os.getppid() == parent:
        stopped = others(parent) if share else []
        signal_all(stopped, signal.SIGSTOP)
        time.sleep(share * _PERIOD_S)
        signal_all(stopped, signal.SIGCONT)
        time.sleep((1 - share) * _PERIOD_S)


def others(parent: int) -> list[psutil.Process]:
    """The descendants of the parent without this process and its own."""
    own = {os.getpid(), *(one.pid for one in psutil.Process().children(recursive=True))}
    return [one for one in psutil.Process(parent).children(recursive=True) if one.pid not in own]


def signal_all(processes: list[psutil.Process], number: int) -> None:
    """Send a signal to the processes that still live."""
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(number)


def start_burner() -> subprocess.Popen[bytes]:
    """A busy process, which ends with this one."""
    return subprocess.Popen([sys.executable, __file__, "burn"])


def main(kind: str) -> None:
    """Disturb until the parent ends or this process is terminated."""
    parent = os.getppid()
    if kind == "burn":
        burn(parent)
        return
    if kind not in get_args(Beside):
        sys.exit(f"{kind!r} is no disturbance; give one of {', '.join(filter(None, get_args(Beside)))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    print("begins", flush=True)
    children = [start_burner() for _ in range({"one": 1, "two": 2}.get(kind, 0))]
    try:
        if kind == "slowed":
            slow(parent)
        for child in children:
            child.wait()
    finally:
        for one in psutil.Process().children():
            one.kill()
        if kind == "slowed":
            signal_all(others(parent), signal.SIGCONT)


if __name__ == "__main__":
    main(sys.argv[1])
