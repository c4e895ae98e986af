"""The live line while a test measures: which test, how far, how long still. Pure: takes what is known, returns text.

How long a test takes is not known beforehand, since it measures until it is decided. It is taken to be what the tests
before it took on average, and for the first one a launch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.text.styled_text import cut, width_of
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from pytest_mlpatterns.records.addressing import Progress

__all__ = ["Standing", "live_text"]

_STARTS_NS = 2_000_000_000
"""About what starting a deployment and warming it up takes."""
_BAR = 16
_MOST = 0.97
"""A test that takes longer than expected is nearly done until it is done."""
_MIN_TEST = 12


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands.

    Attributes:
        test: the id of the test that is measured.
        number: which of the run's perf tests it is, from 1.
        of: how many there are.
        elapsed_ns: since it began.
        finished_ns: what the tests before it took together.
        launch_ns: the measured window of one launch.
    """

    test: str
    number: int
    of: int
    elapsed_ns: int
    finished_ns: int
    launch_ns: int

    @property
    def expected_ns(self) -> int:
        """How long a test is taken to last."""
        before = self.number - 1
        return self.finished_ns // before if before else self.launch_ns + _STARTS_NS

    @property
    def share(self) -> float:
        """How much of the run is done."""
        own = min(self.elapsed_ns / self.expected_ns, _MOST)
        return (self.number - 1 + own) / self.of

    @property
    def left_ns(self) -> int:
        """How long the run will take still."""
        return max(self.expected_ns - self.elapsed_ns, 0) + (self.of - self.number) * self.expected_ns


def live_text(standing: Standing, progress: Progress | None, width: int) -> str:
    """The live line, at most so many columns wide; what matters least is left out first.

    Args:
        standing: where the run stands.
        progress: a sign of life of the load; None while the deployment starts.
        width: room in columns.
    """
    name = standing.test.rpartition("::")[2]
    count = f" {standing.number}/{standing.of}" if standing.of > 1 else ""
    if progress is None:
        parts = ["starting"]
    else:
        rtm = [] if progress.median_ns is None else [f"RTM {format_duration(progress.median_ns)}"]
        parts = [f"{standing.elapsed_ns / 1e9:.0f} s", *rtm, f"{progress.completed:,} requests"]
    seconds = -(-standing.left_ns // 1_000_000_000)
    left = f", about {format_left(seconds)} left" if seconds else ""
    while True:
        tail = f"{count} {_bar(standing.share)} {', '.join(parts)}{left}"
        room = width - width_of(tail)
        if room >= min(width_of(name), _MIN_TEST) or len(parts) == 1:
            return cut(f"{cut(name, max(room, _MIN_TEST), left=True)}{tail}", width)
        parts.pop()


def format_left(seconds: int) -> str:
    """Time that is left, as coarse as it is known: ``40 s``, ``3 min``."""
    if seconds < 90:
        return f"{seconds} s"
    return f"{round(seconds / 60)} min"


def _bar(share: float) -> str:
    full = round(share * _BAR)
    return "█" * full + "·" * (_BAR - full)
