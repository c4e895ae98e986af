"""The rules of recording: what speaks against a result, what is stored beside it, and updates of streams."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.streams import stream_result
from support.synthetic import MS, S, changed, result, verdict

from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.analysis.statistics.alpha_spending import BASELINE_ALPHA, looks_beside_entry
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change
from pytest_mlpatterns.baseline.updates import (
    RunFacts,
    anchor_of,
    disturbances,
    drift_notes,
    is_narrow,
    reasons_not_to_record,
    seen_from,
    update_of,
)
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import LaunchValue, Noise
from pytest_mlpatterns.records.outcomes import FirstFailure
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import Terms
from pytest_mlpatterns.records.verdict import Gate, Outcome

NOISE = Noise("other processes used 1.1 of the 2 cores while this was measured", "stop other programs")


@each_row(
    "changes",
    {"failed_requests": {"500": 7}},  # of 7,406 requests, less than 0.1 %
    {"metrics": {}},
    {"metrics": {"rtm": (10e6, 9.1e6, 10.9e6)}},
    {"metrics": {"rtm": (0.0, 0.0, 0.0)}},
)
def test_a_quiet_steady_narrow_result_has_no_reason(changes: dict[str, object]) -> None:
    assert reasons_not_to_record(result(**changes)) == ()


@each_row(
    ("changes", "reason"),
    ({"noise": (NOISE,)}, NOISE.what),
    ({"unsteady": ("it changed by +21 % through the window",)}, "it changed by +21 % through the window"),
    ({"failed_requests": {"500": 8}}, "8 of 7,406 requests failed (500: 8)"),
    ({"verdicts": (verdict(Outcome.INCONCLUSIVE, against="limit"),)}, "undecided: rtm against its limit: inconclusive"),
    (
        {"metrics": {"rtm": (10e6, 3e6, 20e6)}},
        "median latency 10.0 ms is known to ±85.0 % only, wider than the tolerance of 10.0 %",
    ),
)
def test_a_disturbance_is_a_reason_and_is_stored(changes: dict[str, object], reason: str) -> None:
    assert disturbances(result(**changes)) == (reason,)
    assert reasons_not_to_record(result(**changes)) == (reason,)


@each_row(
    ("error", "named"),
    ("ValueError: could not convert 'alice@example.org'", " -> ValueError"),
    ("torch.cuda.OutOfMemoryError: 'alice'", " -> torch.cuda.OutOfMemoryError"),
    ("KeyError", " -> KeyError"),
    ("alice is no customer", ""),
    ("Alice: no customer", ""),
    ("500", ""),
)
def test_an_error_is_stored_by_its_class_since_its_text_may_quote_an_input(error: str, named: str) -> None:
    first = FirstFailure("perf_payload item 7", error)
    undecided = replace(verdict(Outcome.INCONCLUSIVE, against="limit"), reason=f"1 failed; first: {first}")
    found = disturbances(result(failed_requests={"500": 8}, first_failure=first, verdicts=(undecided,)))
    assert found == (
        f"8 of 7,406 requests failed (500: 8; first: perf_payload item 7{named})",
        f"undecided: 1 failed; first: perf_payload item 7{named}",
    )


def test_a_failed_test_has_a_reason() -> None:
    assert reasons_not_to_record(result(passed=False)) == ("the test failed",)
    assert reasons_not_to_record(result(passed=False, gate=Gate.WARN)) == ("the test failed",)  # by an error
    missed = result(passed=False, verdicts=(verdict(Outcome.FAIL, against="limit"),))
    assert reasons_not_to_record(missed) == ("the test failed",)
    assert reasons_not_to_record(changed(missed, gate=Gate.WARN)) == ()


def test_the_interval_of_the_better_known_statistic_counts() -> None:
    narrow, wide = (10e6, 9.5e6, 10.5e6), (10e6, 3e6, 20e6)
    assert reasons_not_to_record(result(metrics={"rtm": wide, "latency_mean": narrow})) == ()
    assert reasons_not_to_record(result(metrics={"rtm": narrow, "latency_mean": wide})) == ()
    (why,) = reasons_not_to_record(result(metrics={"rtm": wide, "latency_mean": wide}))
    assert why.startswith("mean latency 10.0 ms is known to ±85.0 % only")


def test_launches_of_two_kinds_are_as_wide_as_each_of_them() -> None:
    wide, calm = (10e6, 7e6, 14e6), {"failed_requests": {}, "noise": (), "unsteady": ()}
    even = [(16e6, 0.01), (22e6, 0.01), (16.2e6, 0.01), (22.1e6, 0.01), (15.9e6, 0.01), (21.9e6, 0.01)]
    assert reasons_not_to_record(result(metrics={"rtm": wide}, launches={"rtm": even}, **calm)) == ()
    (found,) = reasons_not_to_record(result(metrics={"rtm": wide}, launches={"rtm": even}, tolerance=0.01, **calm))
    assert found.startswith("median latency 16.0 ms is known to ±")
    assert found.endswith("; launches run in one of two ways: 16.0 ms or 22.0 ms")


def test_streams_are_judged_by_their_first_token_and_their_time_per_token() -> None:
    narrow, wide = (10.0 * MS, 9.5 * MS, 10.5 * MS), (10.0 * MS, 5.0 * MS, 15.0 * MS)
    calm = {"failed_requests": {}, "noise": (), "unsteady": ()}
    assert reasons_not_to_record(stream_result(metrics={"ttft": narrow, "tpot": narrow, "rtm": wide}, **calm)) == ()
    for name, label in (("ttft", "median TTFT"), ("tpot", "median TPOT")):
        (found,) = reasons_not_to_record(stream_result(metrics={"ttft": narrow, "tpot": narrow, name: wide}, **calm))
        assert found == f"{label} 10.0 ms is known to ±50.0 % only, wider than the tolerance of 10.0 %"


@each_row(
    ("values", "narrow"),
    ((10.0, 10.1, 9.9), True),
    ((10.0, 13.0, 8.0), False),
    ((10.0,), False),  # one launch says nothing of their scatter
    ((), False),
    ((10.0, float("inf")), False),
    ((0.0, 0.0), True),
)
def test_an_entry_is_narrow_if_launches_know_a_third_of_the_tolerance(values: tuple[float, ...], narrow: bool) -> None:
    launches = {"rtm": tuple((value, 0.002) for value in values)}
    assert is_narrow(result(launches=launches)) is narrow
    assert is_narrow(result(launches=launches, tolerance=3.0)) is (bool(values) and float("inf") not in values)


def test_the_entry_of_a_stream_is_as_narrow_as_its_times_of_tokens() -> None:
    narrow, wide = ((10.0, 0.0), (10.1, 0.0), (9.9, 0.0)), ((10.0, 0.0), (20.0, 0.0))
    both = {"ttft": narrow, "tpot": narrow, "rtm": wide}
    assert is_narrow(stream_result(launches=both))
    assert not is_narrow(stream_result(launches=both | {"tpot": wide}))


# --- what an entry sees ----------------------------------------------------------------------------------------------

EVEN = (-1.4, -0.9, -0.5, -0.1, 0.1, 0.5, 0.9, 1.4)
"""Eight launches, in standard deviations."""


def scattered(deviation: float, launches: tuple[float, ...] = EVEN) -> tuple[tuple[float, float], ...]:
    """Values of launches that differ by this much, without an error within."""
    return tuple((10e6 * math.exp(deviation * one), 0.0) for one in launches)


@each_row(
    ("deviation", "tolerance", "seen"),
    [(0.0, 0.10, 0.127), (0.01, 0.10, 0.139), (0.03, 0.10, 0.199), (0.08, 0.10, 0.406), (0.01, 0.05, 0.088)],
)
def test_an_entry_sees_what_is_beyond_the_tolerance_and_the_scatter_of_its_launches(
    deviation: float, tolerance: float, seen: float
) -> None:
    found = seen_from(result(launches={"rtm": scattered(deviation)}, tolerance=tolerance))
    assert found == pytest.approx(seen, abs=0.001)


@pytest.mark.parametrize(("tolerance", "is_wide"), [(0.05, True), (0.15, False)])
def test_an_entry_is_wide_beyond_four_times_the_tolerance(tolerance: float, *, is_wide: bool) -> None:
    one = result(launches={"rtm": scattered(0.08)}, tolerance=tolerance)
    assert update_of(one, None, RunFacts({}, None, "2026-01-31")).is_wide is is_wide


def test_fewer_launches_see_less_whether_of_the_entry_or_of_a_run() -> None:
    def seen(terms: Terms, launches: tuple[float, ...] = EVEN) -> float:
        one = result(launches={"rtm": scattered(0.01, launches)}, launch_count=8, seconds_spent=8.0, terms=terms)
        found = seen_from(one)
        assert found is not None
        return found

    usual = seen(Terms(30 * S, 8, {}))
    assert usual < seen(Terms(30 * S, 8, {}), EVEN[2:6])
    assert usual < seen(Terms(4 * S, 8, {}))  # the budget has time for four
    assert seen(Terms(30 * S, 4, {})) == seen(Terms(4 * S, 8, {}))


def test_the_better_known_statistic_and_the_worst_known_time_count() -> None:
    narrow, wide = scattered(0.01), scattered(0.08)
    assert seen_from(result(launches={"rtm": wide, "latency_mean": narrow})) == seen_from(
        result(launches={"rtm": narrow})
    )
    assert seen_from(stream_result(launches={"ttft": narrow, "tpot": wide})) == seen_from(
        stream_result(launches={"tpot": wide})
    )


def test_launches_of_two_kinds_see_as_much_as_the_worse_known_kind() -> None:
    two = [(16e6, 0.01), (22e6, 0.01), (16.2e6, 0.01), (22.1e6, 0.01), (15.9e6, 0.01), (21.9e6, 0.01)]
    found = seen_from(result(launches={"rtm": two}))
    assert found is not None
    assert 0.1 < found < 0.4


@pytest.mark.parametrize("values", [(), ((0.0, 0.0), (0.0, 0.0)), ((10.0, 0.0), (float("inf"), 0.0))])
def test_nothing_is_known_of_what_has_no_launch_or_no_logarithm(values: tuple[tuple[float, float], ...]) -> None:
    assert seen_from(result(launches={"rtm": values})) is None


@pytest.mark.simulation
@pytest.mark.parametrize("deviation", [0.005, 0.02, 0.05])
def test_what_an_entry_sees_fails_in_nine_of_ten_runs_and_half_of_it_in_few(deviation: float) -> None:
    draw = np.random.default_rng(6)
    looks = looks_beside_entry(8, launches=8, alpha=BASELINE_ALPHA / 2)

    def drawn(slower: float = 0.0) -> tuple[tuple[float, float], ...]:
        levels = math.log1p(slower) + draw.normal(0, deviation, 8)
        return tuple((10e6 * math.exp(level), 0.001) for level in levels.tolist())

    def fails(entry: Sequence[tuple[float, float]], slower: float) -> bool:
        before, now = ([LaunchValue(*one) for one in launches] for launches in (entry, drawn(slower)))
        outcomes = [
            judge_change(metric_named("latency_mean"), now[:number], before, tolerance=0.1, plan=looks).outcome
            for number in range(1, 9)
        ]
        decided = [one for one in outcomes if one is not Outcome.INCONCLUSIVE]
        return bool(decided) and decided[0] is Outcome.FAIL

    failed = []
    for _ in range(60):
        entry = drawn()
        seen = seen_from(result(launches={"latency_mean": entry, "rtm": entry}, tolerance=0.1))
        assert seen is not None
        failed.append([fails(entry, seen), fails(entry, 0.5 * seen)])
    caught, half = np.mean(failed, axis=0).tolist()
    assert caught >= 0.85
    assert half <= 0.4


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
