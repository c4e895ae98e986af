"""Merges lines of older months: those of one test, machine, set-up, environment and commit become one.

A line for each commit stays, and not one for each month: a search for changes names the commit near which a metric
changed, and needs several points on both sides. A month in one line would move each change to the end of a month, and
a value from both sides of a step is one that was never measured. So runs that repeat a commit become one, and each line
loses its single launches: a metric has one value and its error, from all launches of all these runs.

Bytes in, bytes out. This module must not know where they are kept.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.history.line_texts import line_of, numbered
from pytest_mlpatterns.records.history import LINE_MEMBERS, HistoryLine, PairedRatio
from pytest_mlpatterns.records.json_text import parsed, shown
from pytest_mlpatterns.records.launch import LaunchValue

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["compacted", "merged", "month"]

_MONTH = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Level:
    """A mean with its standard error, and the number of runs that it comes from."""

    mean: float
    error: float
    runs: int


def month(given: str) -> str:
    """A month as the user wrote it.

    Raises:
        SettingError: it is none.
    """
    if not _MONTH.fullmatch(given):
        raise SettingError(f"the month is {shown(given)}, expected the first one that stays as it is, such as 2026-10")
    return given


def compacted(content: bytes, before: str) -> bytes:
    """The bytes of a history in which the lines of older months are merged.

    A merged line stands where the first of its lines stood. Lines that are damaged, of a later version, or with members
    that this version does not know stay as they are.

    Args:
        content: lines of a history.
        before: first month whose lines stay, ``2026-10``.
    """
    groups: dict[Hashable, dict[bytes, HistoryLine]] = {}
    kept: list[tuple[bytes, Hashable]] = []
    for number, text in numbered(content):
        line = _old_line(text, before)
        key = ("line", number) if line is None else _key(line)
        if line is None or key not in groups:
            kept.append((text, key))
        if line is not None:
            groups.setdefault(key, {})[text] = line  # an exact duplicate counts once
    texts = (merged([*groups[key].values()]).to_text().encode() if key in groups else text for text, key in kept)
    return b"".join(text + b"\n" for text in texts)


def merged(lines: Sequence[HistoryLine]) -> HistoryLine:
    """One line that stands for all the runs of these, which are of one test, machine, set-up, environment and commit.

    Each metric has one value: the mean over runs of their means over launches, of the logarithm if all are positive.
    Its error is the larger of two: the one that the errors of the launches give, and the one that the scatter gives,
    between launches in a run and between runs.
    """
    return replace(
        lines[0],
        date=max(line.date for line in lines),
        values={
            name: (_merged_values([(line.values[name], line.runs) for line in lines if name in line.values]),)
            for name in sorted({name for line in lines for name in line.values})
        },
        ratios={
            name: (_merged_ratios([(line.ratios[name], line.runs) for line in lines if name in line.ratios]),)
            for name in sorted({name for line in lines for name in line.ratios})
        },
        runs=sum(line.runs for line in lines),
    )


def _old_line(text: bytes, before: str) -> HistoryLine | None:
    """The line of these bytes if it is one to merge."""
    try:
        line = line_of(text)
    except ValueError:
        return None
    return line if line.date[: len(before)] < before and parsed(text.decode()).keys() <= LINE_MEMBERS else None


def _key(line: HistoryLine) -> Hashable:
    return (line.test, line.machine, line.setup, line.facts, line.at, line.clean, line.kind, line.reference)


def _merged_values(runs: Sequence[tuple[Sequence[LaunchValue], int]]) -> LaunchValue:
    if all(launch.value > 0 for launches, _ in runs for launch in launches):
        levels = [
            _mean([(math.log(one.value), one.relative_error) for one in launches], number) for launches, number in runs
        ]
        level = _mean_of_runs(levels)
        return LaunchValue(math.exp(level.mean), level.error)
    levels = [
        _mean([(one.value, one.relative_error * abs(one.value)) for one in launches], number)
        for launches, number in runs
    ]
    level = _mean_of_runs(levels)
    return LaunchValue(level.mean, level.error / abs(level.mean) if level.mean else 0.0)


def _merged_ratios(runs: Sequence[tuple[Sequence[PairedRatio], int]]) -> PairedRatio:
    level = _mean_of_runs(
        [_mean([(one.log_ratio, one.error) for one in launches], number) for launches, number in runs]
    )
    return PairedRatio(level.mean, level.error)


def _mean(launches: Sequence[tuple[float, float]], runs: int) -> _Level:
    """The mean of launches, each with its error."""
    number = len(launches)
    mean = math.fsum(level for level, _ in launches) / number
    from_errors = math.sqrt(math.fsum(error**2 for _, error in launches)) / number
    if number == 1:
        return _Level(mean, from_errors, runs)
    scatter = math.sqrt(math.fsum((level - mean) ** 2 for level, _ in launches) / (number - 1) / number)
    return _Level(mean, max(from_errors, scatter), runs)


def _mean_of_runs(levels: Sequence[_Level]) -> _Level:
    """The mean of runs, each weighted by the number of runs that it stands for already."""
    if len(levels) == 1:
        return levels[0]
    runs = sum(level.runs for level in levels)
    mean = math.fsum(level.mean * level.runs for level in levels) / runs
    from_errors = math.sqrt(math.fsum((level.error * level.runs) ** 2 for level in levels)) / runs
    squares = math.fsum(level.runs * (level.mean - mean) ** 2 for level in levels) / runs
    return _Level(mean, max(from_errors, math.sqrt(squares / (len(levels) - 1))), runs)
