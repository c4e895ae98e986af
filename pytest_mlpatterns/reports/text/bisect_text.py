"""The lines of a search for the commit of a change: its size, what it measured, and what it found. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.records.bisect import BisectResult, CommitName, SearchedCommit, SearchEnd, SearchExtent, WhyRange
from pytest_mlpatterns.units import format_duration, format_percent
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from pytest_mlpatterns.records.launch import Estimate

_SUBJECT = 60  # Columns of the subject of a commit in a line
_MOST_NAMED = 8  # Most commits of a range that are named with the reason why they were not measured
_LIKE = {
    "good": "like the good end",
    "bad": "like the bad end",
    "near good": "between both ends, nearer to the good one",
    "near bad": "between both ends, nearer to the bad one",
    "undecided": "undecided",
    "": "not decided yet, measured again",
}
"""What a commit is like, in words."""


def announcement(extent: SearchExtent) -> list[str]:
    """The size of a search, and how long it may take."""
    between = count(extent.between, "commit")
    then = f"then at most {count(extent.steps, 'commit')} between them, and last what was found beside its parent"
    return [
        f"{extent.test}: {between} from {extent.good.short} to {extent.bad.short} may have changed "
        f"{_label(extent.metric)}",
        f"both ends are compared, {then}; each measurement takes {format_duration(extent.budget_ns)} and more, "
        f"all together at most {format_duration(extent.most_ns)}",
    ]


def searched_line(found: SearchedCommit) -> str:
    """One commit that was measured or tried."""
    left = f"{found.left:>5} left  {found.commit.short}  "
    if found.change is None:
        return f"{left}does not run: {found.skipped}"
    launches = count(found.launches, "paired launch", "paired launches")
    return f"{left}{change_text(found.change)}, {launches}: {_LIKE[found.likeness]}  {_subject(found.commit)}".rstrip()


def change_text(ratio: Estimate) -> str:
    """A ratio as a change with its interval: ``+4.2 % (+3.1 % to +5.3 %)``."""
    value, low, high = (format_percent(one - 1, signed=True) for one in (ratio.value, ratio.low, ratio.high))
    return f"{value} ({low} to {high})"


def result_lines(result: BisectResult) -> list[str]:
    """What a search found."""
    match result.end:
        case SearchEnd.FOUND:
            return _found(result)
        case SearchEnd.NONE:
            return [_none(result)]
        case SearchEnd.RANGE:
            return _range(result)


def _found(result: BisectResult) -> list[str]:
    assert result.first is not None
    assert result.before is not None
    assert result.step is not None
    first, before = result.first, result.before
    return [
        f"{first.short} changed {_figure(result)} by {change_text(result.step)} against its parent {before.short}:",
        f"  {first.subject}",
        f"  {first.author}, {first.date[:10]}",
        *(f"  {line}" for line in result.cause.splitlines()),
        *_rest(result),
    ]


def _rest(result: BisectResult) -> list[str]:
    """That other commits have a part in the change, and how to find them."""
    if not result.is_part or result.whole is None or result.first is None or result.before is None:
        return []
    ranges = [
        f"{one.sha[:12]}..{other.sha[:12]}"
        for one, other in ((result.good, result.before), (result.first, result.bad))
        if one != other
    ]
    return [
        f"from {result.good.short} to {result.bad.short} it changed by {change_text(result.whole)}: other commits have "
        "a part in that; to find them:",
        *(f"  {_command(result, one)}" for one in ranges),
    ]


def _none(result: BisectResult) -> str:
    assert result.whole is not None
    text = change_text(result.whole)
    if result.is_open:
        return (
            f"no change was shown: {_figure(result)} {text} from {result.good.short} to {result.bad.short}; "
            "measure longer with --budget, or in a quieter moment"
        )
    return f"no change to find: {_figure(result)} {text} from {result.good.short} to {result.bad.short}"


def _range(result: BisectResult) -> list[str]:
    assert result.first is not None
    assert result.before is not None
    before, first = result.before, result.first
    whole = "" if result.whole is None else f" by {change_text(result.whole)}"
    if result.why is WhyRange.UNCONFIRMED:
        assert result.step is not None
        return [
            f"{_figure(result)} changed{whole} from {result.good.short} to {result.bad.short}",
            f"{first.short} ({_subject(first)}) was found, but beside its parent {before.short} it changes it by "
            f"{change_text(result.step)}; search again in a quieter moment, or with a longer --budget",
        ]
    if result.why is WhyRange.TIME and not any(one.likeness for one in result.searched):
        return _open_ends(result)
    lines = [f"{_figure(result)} changed{whole} after {before.short} and up to {first.short} ({_subject(first)})"]
    match result.why:
        case WhyRange.GRADUAL:
            return [*lines, "many commits between have a part in it, each too small to be found"]
        case WhyRange.TIME:
            return [*lines, "the time of the search is over; the same command goes on where it ended"]
        case _:
            return [*lines, "the commits between could not be measured or decided:", *_not_decided(result)]


def _open_ends(result: BisectResult) -> list[str]:
    """That the time did not suffice to see whether both ends differ; the first commit of a search is its bad end."""
    ends = f"from {result.good.short} to {result.bad.short}"
    if result.whole is None:
        found = f"nothing was measured {ends}, so it is not known whether {_figure(result)} changed"
    else:
        found = f"it is not decided whether {_figure(result)} changed {ends}: {change_text(result.whole)} so far"
    return [found, "the time of the search is over; the same command with a longer --at-most goes on where it ended"]


def _not_decided(result: BisectResult) -> list[str]:
    """The commits that were tried and neither ran nor were decided, with the reason."""
    tried = [one for one in result.searched if one.skipped or one.likeness == "undecided"]
    lines = [f"  {one.commit.short}  {one.skipped or 'undecided'}" for one in tried[-_MOST_NAMED:]]
    more = len(tried) - len(lines)
    return [*lines, *([f"  and {more} more"] if more > 0 else [])]


def _command(result: BisectResult, commits: str) -> str:
    metric = [] if result.metric == "rtm" else ["--metric", result.metric]
    return shlex.join(["python", "-m", "pytest_mlpatterns", "bisect", result.test, commits, *metric])


def _label(metric: str) -> str:
    return metric_named(metric).label


def _figure(result: BisectResult) -> str:
    """The metric as it was compared."""
    return _label(result.figure or result.metric)


def _subject(commit: CommitName) -> str:
    return commit.subject if len(commit.subject) <= _SUBJECT else f"{commit.subject[: _SUBJECT - 1]}…"
