"""What a run did with the baseline file: the entries an update wrote, and the entries without a test. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import are_of_streams, metric_named, objectives_of, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.analysis.statistics.intervals import estimate
from pytest_mlpatterns.units import format_percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.baseline_entry import Entry, Update

_MOST_GONE = 10  # Most entries without a test that are listed; of further ones their number is
_DISTURBED = "recorded although disturbed; record them again while the machine does nothing else:"


def update_lines(updates: Sequence[Update]) -> list[str]:
    """What ``--perf-baseline update`` wrote: old → new for every test, then a list of those that got worse.

    ``updates``: at least one.
    """
    lines = [f"{update.test}: {_written(update)}{_seen(update)}" for update in updates]
    disturbed = [f"  {update.test}: {text}" for update in updates for text in update.after.disturbed]
    worse = [f"  {update.test}: {verdict.reason}" for update in updates for verdict in update.worse]
    return [
        *lines,
        *([_DISTURBED, *disturbed] if disturbed else []),
        *(["recorded although worse:", *worse] if worse else []),
    ]


def gone_lines(entries: Mapping[str, int]) -> list[str]:
    """The entries without a test, and how to remove them. ``entries``: number of entries by test id; at least one."""
    count = sum(entries.values())
    what = "1 entry of the baseline belongs" if count == 1 else f"{count} entries of the baseline belong"
    shown = [f"  {test}" for test in entries][:_MOST_GONE]
    more = [f"  and {len(entries) - _MOST_GONE} more tests"] if len(entries) > _MOST_GONE else []
    return [f"{what} to no test; remove what is not needed: pytest --perf-baseline prune", *shown, *more]


def _written(update: Update) -> str:
    """The new entry of one test."""
    then, now = update.before, update.after
    primary = with_role(Role.PRIMARY, streams=are_of_streams(now.metrics))
    names = [*(name for name in primary if name in now.metrics), *objectives_of(now.metrics)]
    if then is None or update.differences:
        how = "new" if then is None else f"replaced ({'; '.join(update.differences)})"
        return ", ".join([how, *(f"{metric_named(name).label} {_recorded(now, name)}" for name in names)])
    changes = [
        f"{metric_named(name).label} {_recorded(then, name)} → {_recorded(now, name)}{_percent(then, now, name)}"
        for name in names
        if name in then.metrics
    ]
    return ", ".join(changes) or "recorded"


def _seen(update: Update) -> str:
    """From which change on a comparison with the new entry fails; rounded up, so that it holds as it is printed."""
    if update.seen_from is None:
        return ""
    return f"; this entry sees changes from {math.ceil(100 * update.seen_from - 1e-9)} % on"


def _recorded(entry: Entry, name: str) -> str:
    return metric_named(name).show(_value(entry, name))


def _percent(then: Entry, now: Entry, name: str) -> str:
    before = _value(then, name)
    return f" ({format_percent(_value(now, name) / before - 1, signed=True)})" if before else ""


def _value(entry: Entry, name: str) -> float:
    return estimate(entry.metrics[name], metric_named(name).launch_sd).value
