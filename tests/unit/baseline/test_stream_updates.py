"""Updates of entries of streams: what got worse, what begins a new anchor, and which drift is told."""

from msgspec.structs import replace
from support.streams import stream_result
from support.synthetic import MS

from pytest_mlpatterns.baseline.updates import RunFacts, anchor_of, drift_notes, update_of
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
    assert (same.worse, same.after.anchor) == ((), replace(anchor_of(before), updates=1))


def test_updates_are_compared_by_means_if_both_entries_know_them() -> None:
    before = entry(ttft=190.0 * MS, ttft_mean=280.0 * MS, tpot=10.0 * MS)
    jumped = measured(ttft=370.0 * MS, ttft_mean=283.0 * MS, tpot=10.0 * MS)
    assert update_of(jumped, before, FACTS).worse == ()
    (worse,) = update_of(measured(ttft=190.0 * MS, ttft_mean=380.0 * MS, tpot=10.0 * MS), before, FACTS).worse
    assert (worse.metric, worse.judged_by) == ("ttft", "ttft_mean")
    assert worse.reason.endswith("; median TTFT 190 ms → 190 ms")
    (by_medians,) = update_of(jumped, entry(ttft=190.0 * MS, tpot=10.0 * MS), FACTS).worse
    assert by_medians.judged_by == ""


def test_a_slow_drift_of_means_is_told() -> None:
    anchor = replace(anchor_of(entry("2026-01-01", ttft=190.0 * MS, ttft_mean=200.0 * MS)), updates=3)
    assert set(anchor.metrics) == {"ttft", "ttft_mean"}
    drifted = replace(entry(ttft=370.0 * MS, ttft_mean=278.0 * MS), anchor=anchor)
    notes = drift_notes(measured(ttft=190.0 * MS, ttft_mean=280.0 * MS), drifted)
    assert notes == ["mean TTFT 40.0 % worse than on 2026-01-01 (1a2b3c4), little by little"]


def test_longer_answers_are_no_step() -> None:
    before = entry(ttft=100.0 * MS, rtm=900.0 * MS)
    longer = update_of(measured(ttft=100.0 * MS, rtm=1800.0 * MS), before, FACTS)
    assert longer.worse == ()
    assert longer.after.anchor is not None


def test_a_slow_drift_of_tokens_is_told() -> None:
    anchor = replace(anchor_of(entry("2026-01-01", tpot=10.0 * MS, rtm=100.0 * MS)), updates=3)
    drifted = replace(entry(tpot=13.9 * MS, rtm=200.0 * MS), anchor=anchor)
    notes = drift_notes(measured(tpot=14.0 * MS, rtm=200.0 * MS), drifted)
    assert notes == ["median TPOT 40.0 % worse than on 2026-01-01 (1a2b3c4), little by little"]
