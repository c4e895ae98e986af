"""Changes that a history shows are found in its compacted lines too, near the same commits."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from support.history_lines import history_line

from pytest_mlpatterns.analysis.changes.findings import find_changes
from pytest_mlpatterns.analysis.changes.series import series_of
from pytest_mlpatterns.history.compaction import compacted
from pytest_mlpatterns.history.line_texts import content_of
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine
from pytest_mlpatterns.records.launch import LaunchValue

LINE = history_line(metrics=("rtm",))
COMMITS = 40
"""Runs of a course, one of each commit, ten a month; the step is in the middle."""


def course(seed: int, step: float) -> bytes:
    """Runs of three launches, with the usual scatter between launches and a little between runs."""
    chance = random.Random(seed)
    lines = []
    for number in range(COMMITS):
        level = math.log(1e6) + chance.gauss(0, 0.004) + (math.log1p(step) if number >= COMMITS // 2 else 0)
        launches = tuple(LaunchValue(chance.lognormvariate(level, 0.017), 0.006) for _ in range(3))
        lines.append(
            replace(
                LINE,
                at=CommitPosition(f"{0xA1B2C3D4E5F6 + number:012x}", number + 1),
                date=f"2026-0{1 + number // 10}-{1 + number % 10:02}T00:00:00Z",
                values={"rtm": launches},
            )
        )
    return content_of(lines, "test")


def changes(content: bytes) -> list[tuple[int, int]]:
    """Positions of the commits around each change."""
    lines = [HistoryLine.from_text(text) for text in content.decode().splitlines()]
    return [(change.old.position, change.new.position) for change in find_changes(series_of(lines))]


@pytest.mark.simulation
@pytest.mark.parametrize("before", ["2026-03", "2027-01"], ids=["half of it is compacted", "all of it"])
def test_a_step_is_found_in_a_compacted_course_as_often_as_before(before: str) -> None:
    found, kept = 0, 0
    for seed in range(20):
        content = course(seed, 0.03)
        compact = compacted(content, before)
        assert len(compact) < len(content)
        found += any(abs(new - COMMITS // 2 - 1) <= 2 for _, new in changes(content))
        kept += any(abs(new - COMMITS // 2 - 1) <= 2 for _, new in changes(compact))
    assert found >= 18
    assert kept >= found - 1


@pytest.mark.simulation
def test_a_compacted_course_without_a_change_shows_none() -> None:
    found = [changes(compacted(course(seed, 0.0), before)) for seed in range(20) for before in ("2026-03", "2027-01")]
    assert sum(map(len, found)) <= 1
