"""What an undecided test leaves open: its figures, one reason, and what would decide it. Pure.

It does not fail, so a reader would miss it, and it needs no more room than a failure. The reason stands once, and the
next step follows from it: more measuring is advised only where it would decide.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named
from pytest_mlpatterns.analysis.verdicts.verdicts import seconds_to_decide
from pytest_mlpatterns.records.setup import SystemKind
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.text.comparison import (
    comparison_row,
    comparisons_of,
    labelled_change,
    most_severe_first,
    named_change,
)
from pytest_mlpatterns.reports.text.terminal_text import Line, Style, line, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = [
    "Command",
    "OpenStep",
    "beside_recorded",
    "is_of_the_machine",
    "open_in_short",
    "open_step",
    "run_again",
    "suspected_sentences",
    "undecided_lines",
]

_LONGEST_S = 600.0
"""Longest measuring time that is recommended: one test of a suite for which ten minutes are too long is rewritten."""
_DEFAULT_S = 120
"""Budget that is recommended where none can be computed: four times the usual one."""
_STEP_S = 10
"""Step to which a computed budget is rounded up."""
_MOST_ROWS = 7
"""Rows of the text on an undecided test: with its row in the table and the line that pytest writes, 12 at most."""
_MOST_LIMITS = 2
"""Limits that are shown with their reasons: each fills two rows of 80 columns."""
_LABEL = 6
"""Columns of a label, such as ``next``, and the space after it."""


class Command(str):
    """A line that a reader can run as it is; other lines are words."""

    __slots__ = ()


def run_again(result: TestResult, *options: str) -> Command:
    """The command that runs the test alone, with these options."""
    return Command(" ".join([result.definition.command or f"pytest {shlex.quote(result.test)}", *options]))


@dataclass(frozen=True, slots=True)
class OpenStep:
    """Why a test is undecided, and what to do about it.

    Attributes:
        why: the reason, in words; empty if the verdict itself has it.
        advice: what to do, in words; empty if the reason or the command has it.
        command: what to run; empty if no command decides it.
        sign: what stands between advice and command.
    """

    why: str = ""
    advice: str = ""
    command: str = ""
    sign: str = ":"

    @property
    def lead(self) -> str:
        """The advice as it stands before the command."""
        return f"{self.advice}{self.sign}" if self.advice and self.command else self.advice


def undecided_lines(
    result: TestResult, width: int, *, notes: Sequence[str] = (), is_short: bool = True, as_above: bool = False
) -> list[Line]:
    """The text on an undecided test below the table.

    Args:
        result: of the test.
        width: of the terminal in columns.
        notes: on the test, for which there is room at the end.
        is_short: whether notes are left out that would make the text longer than 7 rows.
        as_above: whether the text on another test has reported what the machine did and what to do about that.
    """
    as_above = as_above and is_of_the_machine(result)
    step = open_step(result)
    rows = _figures(result, width)
    why = "the machine, as above" if as_above and step.why else step.why
    rows += _labelled("why", why, width) + _labelled("next", "" if as_above else step.lead, width)
    if step.command and not as_above:
        rows += [f"  {'' if step.advice else 'next':<{_LABEL}}{step.command}"]
    further = [part for text in notes for part in wrapped(text, width, "  ", others="    ")]
    if is_short and 1 + len(rows) + len(further) > _MOST_ROWS:
        further = ["  -v shows more about it"] if len(rows) + 2 <= _MOST_ROWS else []
    return [line(f"{result.test}: undecided", Style.STRONG), *map(line, [*rows, *further])]


def is_of_the_machine(result: TestResult) -> bool:
    """Whether the machine left the test undecided, so that another moment would decide it."""
    return any(one.outcome is Outcome.INCONCLUSIVE and one.by_machine for one in result.verdicts)


def suspected_sentences(result: TestResult) -> list[str]:
    """For each suspected metric its figures, and the reason once; empty without a suspicion."""
    suspected = [verdict for verdict in _open_comparisons(result) if verdict.suspected]
    if not suspected:
        return []
    *others, last = map(_figure, suspected)
    return [*others, "; ".join(filter(None, [last, open_step(result).why]))]


def open_in_short(verdicts: Sequence[Verdict]) -> str:
    """Open verdicts in a few words, for the line that pytest lists: ``undecided: mean +8.9 %``."""
    first = most_severe_first(verdicts)[0]
    label = metric_named(first.metric).label if is_known_metric(first.metric) else first.metric
    text = label if first.change is None else named_change(first)
    return f"undecided: {text}, see below"


def open_step(result: TestResult, verdicts: Sequence[Verdict] | None = None) -> OpenStep:
    """Why a test is undecided, and what would decide it; the command measures for that time, if any suffices.

    Args:
        result: of the test.
        verdicts: that are open; by default all of the test.
    """
    found = result.verdicts if verdicts is None else verdicts
    still = most_severe_first([one for one in found if one.outcome is Outcome.INCONCLUSIVE])
    reasons = [one for one in still if one.why_open]
    if by_machine := [one for one in reasons if one.by_machine]:
        why = "" if by_machine[0].change is None else str(by_machine[0].why_open)
        return _in_another_moment(result, why)
    compared = [one for one in still if one.change is not None and one.tolerance is not None]
    if reasons and (not compared or reasons[0] is still[0]):
        return OpenStep("" if reasons[0].change is None else str(reasons[0].why_open))
    if not compared:
        how = "measure longer: raise budget= and launches= in the marker of the test, or run"
        longer = run_again(result, f"--perf-budget {_DEFAULT_S}s")
        return OpenStep("", how, longer, sign="") if still else OpenStep()
    return _by_measuring(result, compared)


def _in_another_moment(result: TestResult, why: str) -> OpenStep:
    """After what the machine explains: the same in a quieter moment, or both sides in the same moment."""
    if beside := beside_recorded(result):
        return OpenStep(why, "run it again in a quieter moment, or beside the recorded code", beside)
    return OpenStep(why, "run it again in a quieter moment", run_again(result))


def beside_recorded(result: TestResult) -> str:
    """The command that runs the baseline's commit beside the present code; empty if it cannot."""
    if result.reference is None or result.reference.kind != "baseline":
        return ""
    commit = result.reference.recorded_commit
    if not commit or result.setup.pattern.kind is SystemKind.URL or result.setup.engine:
        return ""
    return run_again(result, f"--perf-against {commit}")


def _by_measuring(result: TestResult, compared: Sequence[Verdict]) -> OpenStep:
    """What more measuring would decide, or what to do where it would not."""
    suspected = [one for one in compared if one.suspected] or compared
    times = [_time(one, result) for one in suspected]
    known = [time for time in times if time is not None]
    if known:
        seconds = max(known)
        spent = math.ceil(result.measured.seconds_spent)
        more = "" if len(known) == len(times) else " of what can be decided"
        why = f"about {math.ceil(seconds)} s of measuring would decide it{more}, {spent} s were spent"
        return OpenStep(why, "", run_again(result, f"--perf-budget {math.ceil(seconds / _STEP_S) * _STEP_S}s"))
    recorded = 0 if result.reference is None or suspected[0].against == "revision" else result.reference.launches
    if recorded:
        launches = wording.count(recorded, "launch", "launches")
        return OpenStep(
            f"more measuring would hardly decide it beside a baseline of {launches}",
            "record it with more, from the code that it is of",
            run_again(result, f"--perf-baseline update --perf-budget {_DEFAULT_S}s"),
        )
    return OpenStep(
        "it is too close to the tolerance to be decided in reasonable time",
        f'give the metric a tolerance of its own: tolerance={{"{suspected[0].metric}": {_roomy(suspected[0])}}}',
    )


def _roomy(verdict: Verdict) -> str:
    """A tolerance that the whole interval of a change keeps, in steps of 5 %, as the marker takes it: above 1 in %."""
    assert verdict.change is not None
    steps = math.ceil(verdict.change.high * 20)
    return f"{steps / 20:g}" if steps <= 20 else f'"{steps * 5}%"'


def _open_comparisons(result: TestResult) -> list[Verdict]:
    """The open comparisons, the largest change in tolerances first."""
    return most_severe_first([one for one in comparisons_of(result) if one.outcome is Outcome.INCONCLUSIVE])


def _figures(result: TestResult, width: int) -> list[str]:
    """The most severe open comparison with its interval, the others in short, and open limits with their reasons."""
    compared = _open_comparisons(result)
    rows = wrapped(_figure(compared[0]), width, "  ", others="    ") if compared else []
    if compared[1:]:
        rows += wrapped(f"also {', '.join(map(labelled_change, compared[1:]))}", width, "  ", others="    ")[:1]
    named = {one.metric for one in compared}
    limits = list(
        dict.fromkeys(
            one.reason
            for one in result.verdicts
            if one.outcome is Outcome.INCONCLUSIVE and (one.against in ("limit", "pattern") or one.metric not in named)
        )
    )
    for reason in limits[:_MOST_LIMITS]:
        rows += wrapped(reason, width, "  ", others="    ")
    if (more := len(limits) - _MOST_LIMITS) > 0:
        rows.append(f"  and {wording.count(more, 'more limit')}")
    return rows


def _figure(verdict: Verdict) -> str:
    """``p99 latency 2.00 ms → 3.00 ms: +50.0 % (+10.0 % to +100 %), tolerance 20.0 %``."""
    row = comparison_row(verdict)
    interval = f" ({row.interval})" if row.interval else ""
    return f"{row.label} {row.reference} → {row.present}: {row.change}{interval}, tolerance {row.tolerance}"


def _labelled(label: str, text: str, width: int) -> list[str]:
    """A text after a label, on as many rows as it needs; none without a text."""
    return wrapped(text, width, f"  {label:<{_LABEL}}", others=" " * (2 + _LABEL)) if text else []


def _time(verdict: Verdict, result: TestResult) -> float | None:
    """Seconds that would decide an open comparison; None if that is too long."""
    if verdict.change is None or verdict.tolerance is None:
        return None
    recorded = 0 if result.reference is None or verdict.against == "revision" else result.reference.launches
    seconds = seconds_to_decide(
        verdict.change,
        verdict.tolerance,
        result.measured.seconds_spent,
        launches=result.measured.launch_count,
        recorded=recorded,
    )
    return seconds if seconds is not None and seconds <= _LONGEST_S else None
