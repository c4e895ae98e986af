"""Worlds of the mode ``history``: commits, one run each, and whether a run announces the change that they hold.

A history is right if each step is announced by a run near it, and nothing else is. What is announced stands in
``new_changes`` of :mod:`pytest_mlpatterns.history.session`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.history.session import new_changes
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind
from worlds.world import Ruling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worlds.world import Course

_RUNS, _FIRST, _LAUNCHES = 44, 22, 3
_NEAR = 2  # Commits by which the place of an announced change may be off
_METRICS = {"rtm": 20e6, "latency_mean": 21e6, "throughput": 48.0, "cpu_per_request": 12e6}


def history_ruling(course: Course, seed: Sequence[int]) -> Ruling:
    """Look at a history run by run: it fails if all its steps were announced as worse, or any change without one."""
    rng = np.random.default_rng(list(seed))
    lines = _lines(rng, course)
    found: set[int] = set()
    for number in range(_FIRST - 8, len(lines)):
        for change in new_changes(lines[:number], [lines[number]]):
            if change.is_worse and change.is_confirmed:
                found.add(change.new.position - 1)
    steps = [_FIRST + after for after, times in course.steps if times > 1]
    missed = [step for step in steps if not any(abs(step - one) <= _NEAR for one in found)]
    false = [one for one in found if not any(abs(step - one) <= _NEAR for step in steps)]
    words = f"steps at {steps}, announced at {sorted(found)}"
    is_seen = not missed if steps else bool(false)
    return Ruling("fail" if is_seen else "pass", ("history",) if is_seen else (), words)


def _lines(rng: np.random.Generator, course: Course) -> list[HistoryLine]:
    lines = []
    for number in range(_RUNS):
        level = (1 + course.creep) ** number * math.exp(rng.normal(0, course.run_sd))
        level *= 1.3 if rng.random() < course.outliers else 1.0
        for after, times in course.steps:
            level *= times if number >= _FIRST + after else 1.0
        values = {
            name: _values(rng, course, usual / level if name == "throughput" else usual * level)
            for name, usual in _METRICS.items()
        }
        lines.append(
            HistoryLine(
                test="test_world.py::test_it",
                machine="machine",
                date=f"2026-{1 + number // 28:02}-{1 + number % 28:02}T12:00:00Z",
                at=CommitPosition(f"{number + 1:012x}", number + 1),
                clean=True,
                setup="0a1b2c3d4e",
                facts="f0e1d2c3b4",
                kind=Kind.PASSED,
                values=values,
            )
        )
    return lines


def _values(rng: np.random.Generator, course: Course, level: float) -> tuple[LaunchValue, ...]:
    return tuple(LaunchValue(level * math.exp(rng.normal(0, course.launch_sd)), 0.005) for _ in range(_LAUNCHES))
