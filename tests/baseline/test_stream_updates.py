"""Updates of entries of streams: what got worse, what begins a new anchor, and which drift is told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.streams import stream_result
from support.synthetic import MS

from pytest_mlpatterns.baseline.updates import RunFacts, drift_notes, update_of

if TYPE_CHECKING:
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.result import TestResult

FACTS = RunFacts({"numpy": "2.0.0"}, "1a2b3c4", "2026-02-28")


def entry(date: str = "2026-02-01", **values: float) -> Entry:
    return replace(update_of(measured(**values), None, FACTS).after, date=date)


def measured(**values: float) -> TestResult:
    return stream_result(launches={name: ((value, 0.002),) * 2 for name, value in values.items()})


def test_a_slower_first_token_is_worse_and_begins_a_new_anchor() -> None:
    before = entry(ttft=100.0 * MS, tpot=10.0 * MS)
    slower = update_of(measured(ttft=130.0 * MS, tpot=10.0 * MS), before, FACTS)
    assert [verdict.metric for verdict in slower.worse] == ["ttft"]
    assert slower.after.anchor is None
    same = update_of(measured(ttft=101.0 * MS, tpot=10.0 * MS), before, FACTS)
    assert (same.worse, same.after.anchor) == ((), replace(before.anchored, updates=1))


def test_longer_answers_are_no_step() -> None:
    before = entry(ttft=100.0 * MS, rtm=900.0 * MS)
    longer = update_of(measured(ttft=100.0 * MS, rtm=1800.0 * MS), before, FACTS)
    assert longer.worse == ()
    assert longer.after.anchor is not None


def test_a_slow_drift_of_tokens_is_told() -> None:
    anchor = replace(entry("2026-01-01", tpot=10.0 * MS, rtm=100.0 * MS).anchored, updates=3)
    drifted = replace(entry(tpot=13.9 * MS, rtm=200.0 * MS), anchor=anchor)
    notes = drift_notes(measured(tpot=14.0 * MS, rtm=200.0 * MS), drifted)
    assert notes == ["TPOT 40.0 % worse than on 2026-01-01 (1a2b3c4), little by little"]
