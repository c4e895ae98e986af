"""Suspected regressions at the end of a run: open comparisons whose estimate is beyond the tolerance. Pure.

They do not fail, so a reader would miss them. Each has its figures, the measuring time that would decide it, and the
command that measures so long.
"""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.deciding_time import seconds_to_decide
from pytest_mlpatterns.records.result import State
from pytest_mlpatterns.reports.text.comparison import comparison_row, comparisons_of
from pytest_mlpatterns.reports.text.styled_text import Line, Style, line
from pytest_mlpatterns.reports.text.text_table import wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["longer_command", "suspected_sentences", "suspicion_lines"]

_LONGEST_S = 600.0
"""Longest measuring time that is recommended."""
_DEFAULT_S = 120
_STEP_S = 10
_AGAIN = 2
"""Factor on the time of a measurement that is repeated in a quieter moment."""


def suspicion_lines(results: Sequence[TestResult], width: int) -> list[Line]:
    """The section on suspected regressions of tests that did not fail; empty if there are none.

    Args:
        results: of the run.
        width: of the terminal in columns.
    """
    suspected = [result for result in results if result.outcome is State.UNDECIDED and _suspicions(result)]
    if not suspected:
        return []
    title = wording.count(len(suspected), "suspected regression")
    explained = "the estimate is beyond the tolerance, which is not certain"
    lines = [(), *(line(text, Style.OPEN) for text in wrapped(f"{title}: {explained}", width, others="  "))]
    for result in suspected:
        lines.append(line(f"  {result.test}", Style.STRONG))
        for sentence in suspected_sentences(result):
            lines += [line(text) for text in wrapped(sentence, width, "    ", others="      ")]
        if command := longer_command(result):
            lines.append(line(f"    {command}"))
    return lines


def suspected_sentences(result: TestResult) -> list[str]:
    """For each suspected metric the figures and what would decide it; empty without a suspicion."""
    return [_sentence(verdict, result) for verdict in _suspicions(result)]


def longer_command(result: TestResult) -> str:
    """The command that measures long enough to decide the open comparisons; empty if no time suffices.

    What is open although its whole interval is beyond the tolerance, such as a failure beside busy neighbours, gets
    twice the time.
    """
    again = result.command or f"pytest {shlex.quote(result.test)}"
    times = [time for verdict in _suspicions(result) if (time := _time(verdict, result)) is not None]
    if any(map(_is_explained, _suspicions(result))):
        times.append(_AGAIN * result.seconds_spent)
    if not times and _suspicions(result):
        return ""
    seconds = math.ceil(max(times) / _STEP_S) * _STEP_S if times else _DEFAULT_S
    return f"{again} --perf-budget {seconds}s"


def _suspicions(result: TestResult) -> list[Verdict]:
    return [verdict for verdict in comparisons_of(result) if verdict.suspected]


def _sentence(verdict: Verdict, result: TestResult) -> str:
    if _is_explained(verdict):
        return verdict.reason
    row = comparison_row(verdict)
    figures = f"{row.label} {row.reference} → {row.present}: {row.change} ({row.interval}), tolerance {row.tolerance}"
    return f"{figures}; {_what_decides(verdict, result)}"


def _is_explained(verdict: Verdict) -> bool:
    """Whether the whole interval is beyond the tolerance, so that the reason says why the verdict is open."""
    return verdict.change is not None and verdict.tolerance is not None and verdict.change.low > verdict.tolerance


def _what_decides(verdict: Verdict, result: TestResult) -> str:
    seconds = _time(verdict, result)
    if seconds is not None:
        return (
            f"about {math.ceil(seconds)} s of measuring would decide it, {math.ceil(result.seconds_spent)} s were spent"
        )
    recorded = 0 if result.reference is None else result.reference.launches
    if recorded:
        launches = wording.count(recorded, "launch", "launches")
        return f"more measuring would hardly decide it beside a baseline of {launches}: record it with more"
    return "it is too close to the tolerance to be decided in reasonable time"


def _time(verdict: Verdict, result: TestResult) -> float | None:
    """Seconds that would decide an open comparison; None if that is too long."""
    if verdict.change is None or verdict.tolerance is None:
        return None
    recorded = 0 if result.reference is None or verdict.against == "revision" else result.reference.launches
    seconds = seconds_to_decide(
        verdict.change, verdict.tolerance, result.seconds_spent, launches=result.launch_count, recorded=recorded
    )
    return seconds if seconds is not None and seconds <= _LONGEST_S else None
