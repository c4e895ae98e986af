"""The live line while a test measures: its name, its progress and the time left. Pure.

A test measures until it is decided, so its duration is an estimate: the mean of the tests before it, or one launch for
the first test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.records.result import name_of
from pytest_mlpatterns.reports.text.terminal_text import cut, width_of
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from pytest_mlpatterns.records.addressing import Progress

__all__ = ["Standing", "live_text", "plain_text"]

_STARTS_NS = 2_000_000_000
"""Typical time to start a deployment and to warm it up."""
_BAR = 16
"""Width of the bar."""
_MOST = 0.97
"""Highest progress of a test that is not done yet."""
_MIN_TEST = 12
"""Letters of the name of a test that are always shown."""


class Standing(Struct, frozen=True):
    """The progress of a run.

    Attributes:
        test: the id of the test that is measured.
        number: its number among the perf tests of the run, from 1.
        of: number of perf tests.
        elapsed_ns: time since it began.
        finished_ns: time that the tests before it took together.
        launch_ns: the measured window of one launch.
        note: a sentence about the test; empty if there is none.
    """

    test: str
    number: int
    of: int
    elapsed_ns: int
    finished_ns: int
    launch_ns: int
    note: str = ""

    @property
    def expected_ns(self) -> int:
        """Expected duration of a test."""
        before = self.number - 1
        return self.finished_ns // before if before else self.launch_ns + _STARTS_NS

    @property
    def share(self) -> float:
        """The share of the run that is done."""
        own = min(self.elapsed_ns / self.expected_ns, _MOST)
        return (self.number - 1 + own) / self.of

    @property
    def left_ns(self) -> int:
        """Expected time left of the run."""
        return max(self.expected_ns - self.elapsed_ns, 0) + (self.of - self.number) * self.expected_ns


def live_text(standing: Standing, progress: Progress | None, width: int) -> str:
    """The live line, at most ``width`` columns wide; if it is too long, the least important parts are left out.

    Args:
        standing: progress of the run.
        progress: progress of the load; None while the deployment starts.
        width: columns to use.
    """
    name = name_of(standing.test)
    count = f" {standing.number}/{standing.of}" if standing.of > 1 else ""
    if progress is None:
        parts = ["starting"]
    else:
        parts = [f"{standing.elapsed_ns / 1e9:.0f} s", *_median(progress), f"{progress.completed:,} requests"]
        parts += filter(None, [standing.note])
    seconds = -(-standing.left_ns // 1_000_000_000)
    left = f", about {format_left(seconds)} left" if seconds else ""
    while True:
        tail = f"{count} {_bar(standing.share)} {', '.join(parts)}{left}"
        room = width - width_of(tail)
        if room >= min(width_of(name), _MIN_TEST) or len(parts) == 1:
            return cut(f"{cut(name, max(room, _MIN_TEST), left=True)}{tail}", width)
        parts.pop()


def _median(progress: Progress) -> list[str]:
    """What the reader of a live line waits for: RTM, or TTFT if the answers stream."""
    if progress.median_ttft_ns is not None:
        return [f"TTFT {format_duration(progress.median_ttft_ns)}"]
    return [] if progress.median_ns is None else [f"RTM {format_duration(progress.median_ns)}"]


def plain_text(standing: Standing) -> str:
    """The same as a line for a log: ``measuring test_perf.py::test_digits (3 of 10), about 2 min left``."""
    seconds = -(-standing.left_ns // 1_000_000_000)
    left = f", about {format_left(seconds)} left" if seconds else ""
    since = f" for {standing.elapsed_ns / 1e9:.0f} s" if standing.elapsed_ns >= 1_000_000_000 else ""
    note = f"; {standing.note}" if standing.note else ""
    return f"measuring {standing.test} ({standing.number} of {standing.of}){since}{left}{note}"


def format_left(seconds: int) -> str:
    """The time left, rounded: ``40 s``, ``3 min``."""
    if seconds < 90:
        return f"{seconds} s"
    return f"{round(seconds / 60)} min"


def _bar(share: float) -> str:
    full = round(share * _BAR)
    return "█" * full + "·" * (_BAR - full)
