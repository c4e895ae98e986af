"""Courses of runs that are made up: of values, of ratios to one release, and of ratios to the commit before."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.changes.series import Point, Segment, Series
from pytest_mlpatterns.records.history import CommitPosition, Course

Levels = NDArray[np.float64]


SCATTER = 0.017
"""Scatter between runs, relative."""
RELEASE = CommitPosition("f" * 12, 1)


def commit(number: int) -> CommitPosition:
    return CommitPosition(f"{number:012x}", number + 100)


def noise(seed: int, runs: int, scatter: float = SCATTER) -> Levels:
    return np.random.default_rng(seed).normal(0, scatter, runs)


def stepped(runs: int, *steps: tuple[int, float]) -> Levels:
    """Levels that begin at zero, with steps of a size before a run."""
    levels = np.zeros(runs)
    for place, size in steps:
        levels[place:] += size
    return levels


def of_values(
    levels: Levels, *, metric: str = "rtm", commits: Sequence[int] = (), error: float = 0.01, test: str = "t.py::test"
) -> Series:
    """A course around 10 ms."""
    numbers = commits or range(levels.size)
    points = tuple(
        Point(commit(number), date(place), math.log(10e6) + float(level), error)
        for place, (number, level) in enumerate(zip(numbers, levels, strict=True))
    )
    return Series(test, metric, "machine", Course.VALUES, points, (Segment(0, len(points)),))


def of_release(levels: Levels, *, error: float = 0.007) -> Series:
    """A course in which every commit was compared with one release."""
    points = tuple(
        Point(commit(place), date(place), float(level), error, RELEASE, 0.0) for place, level in enumerate(levels)
    )
    return Series("t.py::test", "rtm", "", Course.RATIOS, points, (Segment(0, len(points)),))


def of_neighbours(increments: Levels, *, error: float = 0.007) -> Series:
    """A course in which every commit was compared with the one before."""
    levels = np.concatenate([[0.0], np.cumsum(increments)])
    points = tuple(
        Point(commit(place), date(place), float(levels[place + 1]), error, commit(place - 1), float(levels[place]))
        for place in range(increments.size)
    )
    return Series("t.py::test", "rtm", "", Course.RATIOS, points, (Segment(0, len(points)),))


def date(place: int) -> str:
    """One run a day."""
    return str(np.datetime64("2026-01-01T12:00:00") + np.timedelta64(place, "D")) + "Z"
