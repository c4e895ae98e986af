"""Declared courses of histories with their changes, seeded, for the tests of what people and programs read of them."""

import datetime
import math
import random
from collections.abc import Callable, Sequence

from pytest_mlpatterns.analysis.changes.series import Point, Segment, Series
from pytest_mlpatterns.records.history import Change, CommitPosition, Course
from support.reported import HOSTILE
from support.synthetic import MS

CHANGE = Change(
    test="test_perf.py::test_digits[small-cached]",
    metric="rtm",
    machine="Test Processor 3000",
    course=Course.VALUES,
    factor=(1.042, 1.031, 1.053),
    is_worse=True,
    old=CommitPosition("a1b2c3d" + 33 * "0", 40),
    new=CommitPosition("d4e5f6a" + 33 * "0", 41),
    date="2026-10-03T12:00:00+00:00",
    is_confirmed=True,
    p_value=1e-6,
)
"""A change for the worse."""
MACHINE = "Test Processor 3000, 2 cores, x86_64, Python 3.11"
DIGITS = "test_perf.py::test_digits[cached|batched]"
SLOW = "test_perf.py::test_slow"
_FIRST_DAY = datetime.date(2026, 9, 1)


def position(number: int) -> CommitPosition:
    """The commit of this number, with a hash that looks like one."""
    return CommitPosition(f"{random.Random(number).getrandbits(160):040x}", number)


def series_from(
    metric: str,
    levels: Sequence[float],
    *,
    test: str = DIGITS,
    machine: str = MACHINE,
    course: Course = Course.VALUES,
    borders: Sequence[tuple[int, str]] = (),
    error: float = 0.006,
) -> Series:
    """A course with one run a day, at these levels; those of ratios are the factor to their first reference.

    A border is the index and reason of a segment after the first; ``error`` is relative, of each run.
    """
    points = tuple(
        Point(
            position(number), f"{_FIRST_DAY + datetime.timedelta(days=number)}T06:30:00+00:00", math.log(level), error
        )
        for number, level in enumerate(levels)
    )
    starts = [(0, ""), *borders]
    stops = [*(start for start, _ in borders), len(points)]
    segments = tuple(Segment(start, stop, reason) for (start, reason), stop in zip(starts, stops, strict=True))
    return Series(test, metric, "" if course is Course.RATIOS else machine, course, points, segments)


def change_of(
    series: Series, place: int, factor: tuple[float, float, float], *, is_worse: bool = True, is_confirmed: bool = True
) -> Change:
    """A change of a course at this run."""
    return Change(
        series.test,
        series.metric,
        series.machine,
        series.course,
        factor,
        is_worse,
        series.points[place - 1].at,
        series.points[place].at,
        series.points[place].date,
        is_confirmed,
        1e-6,
    )


def _noisy(seed: int, level_of: Callable[[int], float], *, runs: int = 45, scatter: float = 0.008) -> list[float]:
    """Levels with scatter; one run in the first third is far off, as a disturbed one is."""
    draw = random.Random(seed)
    levels = [level_of(number) * math.exp(draw.gauss(0.0, scatter)) for number in range(runs)]
    levels[runs // 4] *= 1.3
    return levels


def _after(place: int, factor: float) -> Callable[[int], float]:
    return lambda number: factor if number >= place else 1.0


_BORDERS = ((18, "environment"),)
_RTM = series_from(
    "rtm",
    [4.0 * MS * one for one in _noisy(1, lambda number: _after(18, 0.96)(number) * _after(30, 1.06)(number))],
    borders=_BORDERS,
)
_THROUGHPUT = series_from("throughput", [240 * one for one in _noisy(2, _after(30, 0.945))], borders=_BORDERS)
_P95 = series_from(
    "p95", [9.0 * MS * one for one in _noisy(3, _after(42, 1.12), scatter=0.02)], borders=_BORDERS, error=0.02
)
_RATIO = series_from("rtm", _noisy(4, _after(30, 1.061), scatter=0.003), course=Course.RATIOS, error=0.003)
_MEMORY = series_from(
    "peak_memory", [300 * 2**20 * _after(30, 1.092)(number) for number in range(45)], test=SLOW, error=0.001
)
_UNKNOWN = series_from(
    "operations",
    _noisy(5, lambda _: 1200.0, runs=6),
    test=f"test_old.py::test_{HOSTILE}",
    machine="Abacus, 2 cores",
    error=0.0,
)
SERIES = (_RTM, _THROUGHPUT, _P95, _RATIO, _MEMORY, _UNKNOWN)
"""One of each thing that a history can show."""
CHANGES = (
    change_of(_RTM, 30, (1.06, 1.05, 1.07)),
    change_of(_THROUGHPUT, 30, (0.945, 0.935, 0.955)),
    change_of(_P95, 42, (1.12, 1.06, 1.18), is_confirmed=False),
    change_of(_RATIO, 30, (1.061, 1.057, 1.065)),
    change_of(_MEMORY, 30, (1.092, 1.09, 1.094)),
)
"""The changes of :data:`SERIES`."""
