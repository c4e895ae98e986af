"""Lines of a history for tests, and processes that append them at once or are killed while they do.

It loads nothing heavy, so that a test starts such processes in a moment.
"""

import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from pytest_mlpatterns.records.history import CommitPosition, HistoryLine
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind

METRICS = ("rtm", "latency_mean", "p95", "p99", "cpu_ns_per_request", "peak_rss_bytes", "nmrt")


def history_line(
    number: int = 0, *, commit: str = "", launches: int = 3, metrics: Sequence[str] = METRICS[:6], **changes: object
) -> HistoryLine:
    """A usual line, which differs from those of other numbers."""
    chance = random.Random(number)
    line = HistoryLine(
        test=f"tests/perf/test_embedding.py::test_embed[{number % 50}]",
        machine="Intel Xeon Gold 6148, 16 cores, x86_64; Python 3.12",
        date=f"2026-{number // 1000 % 12 + 1:02}-01T12:{number // 60 % 60:02}:{number % 60:02}Z",
        at=CommitPosition(commit or f"{0xA1B2C3D4E5F6 + number // 50:012x}", number // 50 + 1),
        clean=True,
        setup="0a1b2c3d4e",
        facts="f0e1d2c3b4",
        kind=Kind.PASSED,
        values={
            name: tuple(
                LaunchValue(chance.lognormvariate(16, 0.02), chance.uniform(0.002, 0.02)) for _ in range(launches)
            )
            for name in metrics
        },
    )
    return replace(line, **changes)  # type: ignore[arg-type]


def numbered_line(number: int, commit: str = "", **changes: object) -> HistoryLine:
    """A line that has its number as the digest of its set-up, for tests of many."""
    at = CommitPosition(commit or "a1b2c3d4e5f6", 1)
    return replace(_LINE, setup=f"{number:010}", at=at, **changes)  # type: ignore[arg-type]


_LINE = history_line()


def herd(work: Callable[[int], None], number: int) -> list[int]:
    """Start this many processes, which begin their work, by their number, at once; returns their ids."""
    gate, opened = os.pipe()
    processes = []
    for index in range(number):
        process = os.fork()
        if process == 0:
            os.close(opened)
            os.read(gate, 1)  # until the other end is closed
            try:
                work(index)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        processes.append(process)
    os.close(gate)
    os.close(opened)
    return processes


def codes(processes: Sequence[int]) -> list[int]:
    """Exit codes of processes, when they have ended; that of a signal is negative."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def killed_at_random(work: Callable[[int, int], None], number: int, *, most_s: float, seed: int) -> None:
    """Start processes one after the other, and kill each a random time, at most ``most_s``, after it has begun its
    work.

    The work gets its number and a descriptor, to which it writes when it has begun.
    """
    chance = random.Random(seed)
    for index in range(number):
        begun, begin = os.pipe()
        (process,) = herd(lambda _, index=index, begin=begin: work(index, begin), 1)  # type: ignore[misc]
        os.close(begin)
        assert os.read(begun, 1)
        os.close(begun)
        time.sleep(chance.uniform(0, most_s))
        os.kill(process, signal.SIGKILL)
        assert codes([process]) == [-signal.SIGKILL]
