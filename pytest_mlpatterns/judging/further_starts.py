"""When only the start of a deployment is left to decide, which further starts do for a fraction of the time of a load.

A launch under load takes several times as long as its start, and gives one start. This module must not know how a
deployment is started.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["MOST_STARTS", "START", "is_left_to_starts", "with_starts_named", "without_start"]

START = "cold_start"
"""Metric that each start of a deployment gives, loaded or not."""
MOST_STARTS = 20
"""Further starts of a test. Of starts that take 74 % longer (tolerance 50 %) and scatter by 10 %, 9 of 10 fail after 6;
where 20 do not decide, the change is at the tolerance."""


def is_left_to_starts(verdicts: Iterable[Verdict]) -> bool:
    """Whether the start is the only metric that is open, and no metric has failed.

    A start that is surely beyond its tolerance, and left open because the machine may explain it, needs a quieter
    machine and not another start.
    """
    found = {verdict.metric: verdict for verdict in verdicts if verdict.outcome is not Outcome.PASS}
    start = found.get(START)
    if len(found) != 1 or start is None or start.outcome is Outcome.FAIL:
        return False
    return start.change is None or start.change.low <= (start.tolerance or 0.0)


def without_start(verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
    """The verdicts that need launches under load: those on other metrics, if the start alone is open."""
    return [one for one in verdicts if one.metric != START] if is_left_to_starts(verdicts) else verdicts


def with_starts_named(verdict: Verdict, starts: int) -> Verdict:
    """The verdict on the start, with the number of further starts that it rests on."""
    if verdict.metric != START or not starts:
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; with {count(starts, 'further start')} without load")
