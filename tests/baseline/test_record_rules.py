"""The rules of recording: what speaks against a result, and what is stored beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.streams import stream_result
from support.synthetic import MS, changed, result, verdict

from pytest_mlpatterns.baseline.updates import disturbances, is_narrow, reasons_not_to_record
from pytest_mlpatterns.records.launch import Noise
from pytest_mlpatterns.records.outcomes import FirstFailure
from pytest_mlpatterns.records.verdict import Gate, Outcome

NOISE = Noise("other processes used 1.1 of the 2 cores while this was measured", "stop other programs")


def test_a_quiet_steady_narrow_result_has_no_reason() -> None:
    assert reasons_not_to_record(result(failed_requests={"500": 7})) == ()  # of 7,406 requests, less than 0.1 %


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"noise": (NOISE,)}, NOISE.what),
        ({"unsteady": ("RTM changed by +21 % through the window",)}, "RTM changed by +21 % through the window"),
        ({"failed_requests": {"500": 8}}, "8 of 7,406 requests failed (500: 8)"),
        (
            {"verdicts": (verdict(Outcome.PASS), verdict(Outcome.INCONCLUSIVE, against="limit"))},
            "undecided: rtm against its limit: inconclusive",
        ),
    ],
    ids=["noise", "unsteady", "failures", "undecided"],
)
def test_a_disturbance_is_a_reason_and_is_stored(changes: dict[str, object], reason: str) -> None:
    assert disturbances(result(**changes)) == (reason,)
    assert reasons_not_to_record(result(**changes)) == (reason,)


@pytest.mark.parametrize(
    ("error", "named"),
    [
        ("ValueError: could not convert 'alice@example.org'", " -> ValueError"),
        ("torch.cuda.OutOfMemoryError: 'alice'", " -> torch.cuda.OutOfMemoryError"),
        ("KeyError", " -> KeyError"),
        ("alice is no customer", ""),
        ("Alice: no customer", ""),
        ("500", ""),
    ],
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


def test_an_interval_wider_than_the_tolerance_is_measured_again_and_stored_with_both() -> None:
    wide = result(metrics={"rtm": (10e6, 3e6, 20e6)})
    why = "RTM 10.0 ms is known to ±85.0 % only, wider than the tolerance of 10.0 %"
    assert reasons_not_to_record(wide) == (why,)
    assert disturbances(wide) == (why,)


def test_the_interval_of_the_better_known_statistic_counts() -> None:
    narrow, wide = (10e6, 9.5e6, 10.5e6), (10e6, 3e6, 20e6)
    assert reasons_not_to_record(result(metrics={"rtm": wide, "latency_mean": narrow})) == ()
    assert reasons_not_to_record(result(metrics={"rtm": narrow, "latency_mean": wide})) == ()
    (why,) = reasons_not_to_record(result(metrics={"rtm": wide, "latency_mean": wide}))
    assert why.startswith("mean latency 10.0 ms is known to ±85.0 % only")


@pytest.mark.parametrize(
    "metrics", [{}, {"rtm": (10e6, 9.1e6, 10.9e6)}, {"rtm": (0.0, 0.0, 0.0)}], ids=["none", "narrow", "zero"]
)
def test_an_interval_within_the_tolerance_is_no_reason(metrics: dict[str, tuple[float, float, float]]) -> None:
    assert reasons_not_to_record(result(metrics=metrics)) == ()


def test_launches_of_two_kinds_are_as_wide_as_each_of_them() -> None:
    wide, calm = (10e6, 7e6, 14e6), {"failed_requests": {}, "noise": (), "unsteady": ()}
    even = [(16e6, 0.01), (22e6, 0.01), (16.2e6, 0.01), (22.1e6, 0.01), (15.9e6, 0.01), (21.9e6, 0.01)]
    assert reasons_not_to_record(result(metrics={"rtm": wide}, launches={"rtm": even}, **calm)) == ()
    (found,) = reasons_not_to_record(result(metrics={"rtm": wide}, launches={"rtm": even}, tolerance=0.01, **calm))
    assert found.startswith("RTM 16.0 ms is known to ±")
    assert found.endswith("; launches settle in one of two ways: 16.0 ms or 22.0 ms")


def test_streams_are_judged_by_their_first_token_and_their_time_per_token() -> None:
    narrow, wide = (10.0 * MS, 9.5 * MS, 10.5 * MS), (10.0 * MS, 5.0 * MS, 15.0 * MS)
    calm = {"failed_requests": {}, "noise": (), "unsteady": ()}
    assert reasons_not_to_record(stream_result(metrics={"ttft": narrow, "tpot": narrow, "rtm": wide}, **calm)) == ()
    for name, label in (("ttft", "TTFT"), ("tpot", "TPOT")):
        (found,) = reasons_not_to_record(stream_result(metrics={"ttft": narrow, "tpot": narrow, name: wide}, **calm))
        assert found == f"{label} 10.0 ms is known to ±50.0 % only, wider than the tolerance of 10.0 %"


@pytest.mark.parametrize(
    ("values", "narrow"),
    [
        ((10.0, 10.1, 9.9), True),
        ((10.0, 13.0, 8.0), False),
        ((10.0,), False),  # one launch says nothing of their scatter
        ((), False),
        ((10.0, float("inf")), False),
        ((0.0, 0.0), True),
    ],
)
def test_an_entry_is_narrow_if_its_launches_know_a_third_of_the_tolerance(
    values: tuple[float, ...], narrow: bool
) -> None:
    launches = {"rtm": tuple((value, 0.002) for value in values)}
    assert is_narrow(result(launches=launches)) is narrow
    assert is_narrow(result(launches=launches, tolerance=3.0)) is (bool(values) and float("inf") not in values)


def test_the_entry_of_a_stream_is_as_narrow_as_its_times_of_tokens() -> None:
    narrow, wide = ((10.0, 0.0), (10.1, 0.0), (9.9, 0.0)), ((10.0, 0.0), (20.0, 0.0))
    both = {"ttft": narrow, "tpot": narrow, "rtm": wide}
    assert is_narrow(stream_result(launches=both))
    assert not is_narrow(stream_result(launches=both | {"tpot": wide}))
