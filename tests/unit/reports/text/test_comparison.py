"""The rows of a comparison: both sides of every metric, the worst one, and what could not be compared."""

import math
from typing import Literal

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, counterpart, result

from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict
from pytest_mlpatterns.reports.text.comparison import (
    ComparisonRow,
    compared_line,
    compared_sentences,
    comparison_row,
    comparisons_of,
    named_change,
    worst_comparison,
)
from pytest_mlpatterns.reports.text.failure import failure_text, next_step
from pytest_mlpatterns.reports.text.summary_table import cells_of, summary_lines
from pytest_mlpatterns.reports.text.terminal_text import text_of
from pytest_mlpatterns.reports.text.undecided import undecided_lines

MIB = 2.0**20


def compared(
    metric: str, change: float, *, tolerance: float = 0.1, outcome: Outcome = Outcome.PASS, before: float = 100.0
) -> Verdict:
    sign = -1 if metric == "throughput" else 1
    interval = Estimate(change, change - 0.05, change + 0.05)
    reason = f"{metric} changed"
    return Verdict(metric, "baseline", outcome, reason, interval, tolerance, before, before * (1 + sign * change))


def comparison_rows(found: TestResult) -> list[ComparisonRow]:
    return [comparison_row(verdict) for verdict in comparisons_of(found)]


RTM = compared("rtm", 0.0066, before=4 * MS)
MEAN = replace(RTM, judged_by="latency_mean")
TAIL = compared("p99", 3.1, tolerance=0.2, outcome=Outcome.FAIL, before=2 * MS)
LATER = compared("rtm", 0.5, outcome=Outcome.FAIL, before=4 * MS)
MEMORY = compared("peak_memory", 0.02, tolerance=0.15, before=32 * MIB)
ERRORS = Verdict("error_rate", "baseline", Outcome.FAIL, "", Estimate(0.03, 0.02, 0.04), 0.001, 0.0, 0.03)
GROWN = Verdict("memory_growth", "revision", Outcome.FAIL, "", Estimate(15, 14, 16), 0.5, 0.0, 4188.0)
LOST = Verdict("p99", "baseline", Outcome.FAIL, "p99 never", None, 0.2, 2.0 * MS, math.inf)


@each_row(
    ("verdicts", "shown"),
    ((RTM, MEMORY), "median +0.66 %"),
    ((MEAN, MEMORY), "mean +0.66 %"),
    ((replace(compared("ttft", 0.02), judged_by="ttft_mean"),), "mean TTFT +2.0 %"),
    ((RTM, TAIL, MEMORY), "p99 +310 %"),
    ((compared("rtm", 0.5, outcome=Outcome.FAIL), compared("p95", 0.6, outcome=Outcome.PASS)), "median +50.0 %"),
    ((RTM, ERRORS), "errors +3.0 %"),
    ((RTM, GROWN), "memory growth +4.09 KiB"),
    ((RTM, LOST), "p99 never"),
    ((RTM, compared("throughput", 0.09)), "throughput -9.0 %"),
    ((RTM, compared("peak_memory", 0.09, tolerance=0.15)), "memory +9.0 %"),
    ((compared("throughput", -0.3),), "throughput +30.0 %"),
    ((), "–"),
)
def test_the_change_column_names_the_worst_metric(verdicts: tuple[Verdict, ...], shown: str) -> None:
    assert cells_of(result(verdicts=verdicts))["change"] == shown


def test_a_row_has_both_sides_the_interval_the_tolerance_and_the_outcome() -> None:
    tail, rate, lost = comparison_rows(result(verdicts=(TAIL, compared("throughput", 0.093, before=508.0)))) + (
        comparison_rows(result(verdicts=(LOST,)))
    )
    assert (tail.label, tail.reference, tail.present, tail.outcome) == ("p99 latency", "2.00 ms", "8.20 ms", "FAIL")
    assert (tail.change, tail.interval, tail.tolerance) == ("+310 %", "+305 % to +315 %", "20.0 %")
    assert (rate.reference, rate.present, rate.change) == ("508 req/s", "461 req/s", "-9.3 %")
    assert rate.interval == "-14.3 % to -4.3 %"
    assert (lost.present, lost.change, lost.interval) == ("never", "never", "")


def test_a_row_of_a_mean_is_named_so() -> None:
    (row,) = comparison_rows(result(verdicts=(MEAN,)))
    assert (row.label, row.reference, row.present) == ("mean latency", "4.00 ms", "4.03 ms")


def test_the_change_of_a_growth_is_a_difference_without_an_interval_of_a_ratio() -> None:
    (row,) = comparison_rows(result(verdicts=(GROWN,)))
    assert (row.label, row.reference, row.present) == ("memory growth per request", "0 B", "4.09 KiB")
    assert (row.change, row.interval, row.outcome) == ("+4.09 KiB", "", "FAIL")


def test_comparisons_that_do_not_fail_are_counted_in_one_line_of_a_failure() -> None:
    calm = replace(GROWN, outcome=Outcome.PASS, present_value=0.0)
    rate = compared("throughput", 0.09, outcome=Outcome.INCONCLUSIVE)
    limit = Verdict("error_rate", "limit", Outcome.INCONCLUSIVE, "")
    lines = failure_text([TAIL], result(verdicts=(limit, TAIL, MEAN, calm, rate))).splitlines()
    assert "  also      undecided limit: error rate" in lines
    assert "            1 other metric undecided, 2 other metrics within tolerance" in lines
    assert not any("metrics   " in line for line in lines)  # whose values stand in the report


def test_further_metrics_beyond_their_tolerance_have_a_short_line_each() -> None:
    failing = [TAIL, LATER, *(replace(LATER, metric=name) for name in ("p95", "cold_start", "cpu_per_request"))]
    text = failure_text(failing, result(verdicts=tuple(failing)))
    assert "\n  also      median latency 4.00 ms → 6.00 ms: +50.0 %\n" in text
    assert "\n            and 1 more metric beyond tolerance\n" in text
    assert "cpu_per_request" not in text


@pytest.mark.parametrize(("failing", "does"), [(GROWN, "leaks"), (ERRORS, "fails requests")], ids=["leak", "errors"])
@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("revision", "find the change that {}; if it is intended,"),
        ("baseline", "find the change that {}; if it is intended, record it:"),
        ("limit", "find what {}; if the limit is too tight, change it:"),
    ],
)
def test_the_next_step_after_a_leak_and_after_failed_requests_is_no_slowness(
    failing: Verdict, does: str, against: Literal["revision", "baseline", "limit"], said: str
) -> None:
    judged = replace(failing, against=against, reason="it is worse")
    assert said.format(does) in failure_text([judged], result(verdicts=(judged,)))


@pytest.mark.parametrize(
    ("metric", "does"), [("goodput(2)", "lets the goodput fall"), ("recovery", "delays the recovery")]
)
def test_the_next_step_after_an_overload_is_no_slowness(metric: str, does: str) -> None:
    judged = Verdict(metric, "limit", Outcome.FAIL, "it is worse", asserted_at="test_perf.py:12")
    assert next_step([judged], result(verdicts=(judged,))) == [
        f"find what {does}; if the limit is too tight, change it:",
        "test_perf.py:12",
    ]


def test_the_last_verdict_on_a_metric_counts() -> None:
    first, last = compared("rtm", 0.5, outcome=Outcome.INCONCLUSIVE), compared("rtm", 0.0)
    assert [row.change for row in comparison_rows(result(verdicts=(first, last)))] == ["+0.0 %"]


def test_a_percentile_among_failed_requests_survives_a_file_without_infinity() -> None:
    data = result(verdicts=(LOST,)).to_json()
    assert data["verdicts"][0]["present_value"] is None
    (row,) = comparison_rows(TestResult.from_json(data))
    assert row.present == "never"


def test_what_could_not_be_compared_is_one_line() -> None:
    tails = 'at 4.0 answers a second p95 latency needs 23.0 s and p99 latency needs 115 s (duration="22s")'
    why = LeftOut(tails, is_sentence=True)
    left_out = {"p95 latency": why, "p99 latency": why, "peak memory": LeftOut("not recorded yet")}
    shown = result(verdicts=(RTM, compared("throughput", 0), ERRORS), not_compared=left_out)
    assert compared_line(shown) == f"3 of 6 metrics compared; {tails}; peak memory not recorded yet"
    assert compared_line(shown) in [text_of(one).strip() for one in summary_lines([shown], 200)]
    assert compared_line(result(verdicts=(RTM,))) == ""
    own = LeftOut("p99 latency needs 459 requests", is_sentence=True)
    named = result(verdicts=(RTM,), not_compared={"p99 latency": own})
    assert compared_line(named) == "1 of 2 metrics compared; p99 latency needs 459 requests"


def test_failures_tail_and_memory_of_both_sides_are_in_a_verbose_summary() -> None:
    shown = result(passed=False, verdicts=(TAIL, ERRORS, MEMORY))
    verbose = "\n".join(map(text_of, summary_lines([shown], 200, verbose=True)))
    for sentence in compared_sentences(shown):
        assert f"compared  {sentence}" in verbose


def test_a_verdict_without_a_figure_is_no_comparison_and_its_reason_is_shown() -> None:
    reason = "no verdict: the load generator was the limit"
    unknown = Verdict("rtm", "revision", Outcome.INCONCLUSIVE, reason)
    shown = result(verdicts=(unknown, MEMORY), reference=counterpart(kind="revision"))
    verbose = "\n".join(map(text_of, summary_lines([shown], 200, verbose=True)))
    assert "– → –" not in verbose
    assert [row.label for row in comparison_rows(shown)] == ["peak memory"]
    assert reason in " ".join(map(str, undecided_lines(shown, 200)))


def test_the_table_shows_the_measurement_that_the_change_is_of() -> None:
    beside = counterpart(kind="revision")
    judged = replace(RTM, against="revision")
    assert cells_of(result(reference=beside))["median"] == "4.20 ms"  # interleaved, not the 4.12 ms measured alone
    assert cells_of(result(reference=beside, verdicts=(judged,)))["median"] == "4.03 ms"  # 0.66 % more than 4.00 ms
    mean = replace(judged, judged_by="latency_mean")
    assert cells_of(result(reference=beside, verdicts=(mean,)))["median"] == "4.20 ms"  # a median, which was not judged
    assert cells_of(result(reference=counterpart(), verdicts=(RTM,)))["median"] == "4.12 ms"


def test_an_undecided_change_is_shown_before_one_that_passes() -> None:
    undecided = compared("throughput", 0.567, tolerance=0.608, outcome=Outcome.INCONCLUSIVE)
    worst = worst_comparison(result(verdicts=(compared("p95", 0.199, tolerance=0.2), undecided)))
    assert worst.metric == "throughput"


@pytest.mark.parametrize("tail", [TAIL, LOST])
def test_requests_that_fail_come_before_the_tail_that_they_make(tail: Verdict) -> None:
    assert worst_comparison(result(verdicts=(RTM, tail, ERRORS))).metric == "error_rate"


def test_a_growth_that_passes_is_no_change_to_see_first() -> None:
    growth = compared("memory_growth", 2.75, tolerance=0.5)
    for verdicts in ((RTM, growth), (growth, RTM)):
        worst = worst_comparison(result(verdicts=verdicts))
        assert worst.metric == "rtm"
    failed = worst_comparison(result(verdicts=(RTM, replace(growth, outcome=Outcome.FAIL))))
    assert failed.metric == "memory_growth"


def test_the_worst_of_nothing_is_nothing() -> None:
    assert worst_comparison(result()) is None
    assert (
        named_change(Verdict("sharpness", "baseline", Outcome.PASS, "", Estimate(0.1, 0, 0.2))) == "sharpness +10.0 %"
    )
