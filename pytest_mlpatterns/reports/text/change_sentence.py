"""A change of a history in a sentence, and the command that finds its commit.

``RTM +4.2 % (+3.1 to +5.3 %) near d4e5f6a (a1b2c3d..d4e5f6a), 2026-10-03; each run passed, since each step was below
the tolerance``. Changes → text. This module must not know how changes are found, nor which of them are new.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.records.change import Course
from pytest_mlpatterns.reports.text.terminal_text import Line, Style, line
from pytest_mlpatterns.units import format_percent, format_percents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.change import Change, NewChange

__all__ = ["bisect_command", "change_sentence", "new_change_lines"]

_SHOWN_DIGITS = 7
"""Digits of a commit's hash in a sentence, as git abbreviates it in a small repository."""
_USUAL = "rtm"
"""The metric that a search looks for unless another is given."""
_GIVEN_DIGITS = 12
"""Digits of a commit's hash in a command, which name one commit in any repository."""


def change_sentence(change: Change, *, passed: bool = False, tolerance: float | None = None) -> str:
    """A change in a sentence, without the name of its test.

    Args:
        change: of one metric.
        passed: whether each run since the commit before it passed, which is then a part of the sentence.
        tolerance: of the test, as a share; a change below it is why they passed. None if it is not known.
    """
    value, low, high = (factor - 1 for factor in change.factor)
    label = metric_named(change.metric).label if is_known_metric(change.metric) else change.metric
    size = f"{format_percent(value, signed=True)} ({format_percents(low, high)})"
    found = f"{' '.join(filter(None, (label, size, _where(change))))}, {change.date[:10]}"
    beside = "beside revisions, so on any machine" if change.course is Course.RATIOS else ""
    return "; ".join(filter(None, (found, beside, _certainty(change), _verdicts(change, tolerance) if passed else "")))


def bisect_command(change: Change, test: str = "") -> str:
    """The command that finds the commit of a change; empty if its commits are not known, or are the same.

    A metric that is not measured as a ratio, such as p95, is searched for by RTM.

    Args:
        change: in the course of a test.
        test: its id from where the command is to run; empty for pytest's root.
    """
    old, new = change.old.commit, change.new.commit
    if not old or not new or old == new:
        return ""
    commits = f"{old[:_GIVEN_DIGITS]}..{new[:_GIVEN_DIGITS]}"
    is_searched = change.metric in with_role(Role.PAIRED) and change.metric != _USUAL
    metric = f" --metric {change.metric}" if is_searched else ""
    return f"python -m pytest_mlpatterns bisect {shlex.quote(test or change.test)} {commits}{metric}"


def new_change_lines(changes: Sequence[NewChange]) -> list[Line]:
    """The new changes of a run for the terminal, by test, each with the command that finds its commit; none if none."""
    lines: list[Line] = []
    for test, found in _by_test(changes).items():
        lines += [(), line(f"{test} changed in the history", Style.BAD if any(map(_is_worse, found)) else Style.PLAIN)]
        for one in found:
            lines.append(line(f"  {one.sentence}", Style.BAD if _is_worse(one) else Style.PLAIN))
        commands = dict.fromkeys(one.command for one in found if one.command)
        lines += [line(f"  which commit it was: {command}") for command in commands]
    if any(one.fails for one in changes):
        lines.append(line("the run fails, since a change for the worse is new: --perf-history-fail new", Style.BAD))
    return lines


def _by_test(changes: Sequence[NewChange]) -> dict[str, list[NewChange]]:
    found: dict[str, list[NewChange]] = {}
    for one in changes:
        found.setdefault(one.change.test, []).append(one)
    return found


def _is_worse(one: NewChange) -> bool:
    return one.change.is_worse


def _where(change: Change) -> str:
    """Between which commits it is."""
    old, new = (commit.commit[:_SHOWN_DIGITS] for commit in (change.old, change.new))
    if not new:
        return ""
    if old == new:
        return f"between two runs of {new}"
    return f"near {new} ({old}..{new})" if old else f"near {new}"


def _certainty(change: Change) -> str:
    return "" if change.is_confirmed else "new, unconfirmed: too few runs are after it"


def _verdicts(change: Change, tolerance: float | None) -> str:
    """Why no run failed, if it is known that each passed."""
    is_small = tolerance is not None and abs(change.factor[0] - 1) < tolerance
    if is_small:
        return "each run passed, since each step was below the tolerance"
    return "each run passed"
