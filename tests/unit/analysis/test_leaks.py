"""Growths against a limit: the outcome, and what a reader is told."""

import pytest

from pytest_mlpatterns.analysis.causes.growth import judge_leak
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.samples import Growth
from pytest_mlpatterns.records.verdict import OpenBy, Outcome

MEMORY, DESCRIPTORS = METRICS["memory_growth"], METRICS["descriptor_growth"]
LEAK = Growth(12_400, Estimate(1945, 1740, 2150), Estimate(1945, 1500, 2400), gained=12e6, levels_off=False)


def slowing(low: float, high: float, recent: tuple[float, float] | None = None) -> Growth:
    both = [Estimate((start + end) / 2, start, end) for start, end in ((low, high), recent or (low, high))]
    return Growth(1000, both[0], both[1], gained=1e9, levels_off=True)


def test_a_growth_that_goes_on_fails_and_is_said_with_its_interval() -> None:
    verdict = judge_leak(MEMORY, LEAK, 100, is_whole=True)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason == (
        "resident memory grows by 1.90 KiB (±205 B) per request over 12,400 requests, not levelling off in the second "
        "half; the limit is 100 B"
    )


def test_before_the_load_is_whole_nothing_is_called_a_leak() -> None:
    assert judge_leak(MEMORY, LEAK, 100, is_whole=False).outcome is Outcome.INCONCLUSIVE


def test_descriptors_are_counted_per_thousand_requests() -> None:
    growth = Growth(2000, Estimate(0.5, 0.4, 0.6), Estimate(0.5, 0.4, 0.6), gained=500, levels_off=False)
    verdict = judge_leak(DESCRIPTORS, growth, 1.0, is_whole=True)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason.startswith("open descriptors grow by 500 (±100) per 1,000 requests over 2,000 requests, not")
    assert verdict.reason.endswith("; the limit is 1.00")


def test_what_is_surely_below_the_limit_passes() -> None:
    verdict = judge_leak(MEMORY, slowing(-20, 40), 100, is_whole=False)
    assert verdict.outcome is Outcome.PASS
    assert (
        verdict.reason
        == "resident memory grows by 10.0 B (±30.0 B) per request over 1,000 requests; the limit is 100 B"
    )


def test_what_has_stopped_growing_passes_by_its_last_quarter() -> None:
    verdict = judge_leak(MEMORY, slowing(200, 400, (-10, 10)), 100, is_whole=True)
    assert verdict.outcome is Outcome.PASS
    assert "in their last quarter; the limit is 100 B" in verdict.reason


def test_a_growth_that_levels_off_stays_open() -> None:
    verdict = judge_leak(MEMORY, slowing(200, 400), 100, is_whole=True)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "levelling off; the limit is 100 B, and that is open" in verdict.reason


def test_an_open_verdict_names_the_requests_that_would_decide() -> None:
    verdict = judge_leak(MEMORY, slowing(-100, 240), 100, is_whole=True)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason.endswith("and that is open; about 6,800 requests would decide")
    assert verdict.why_open.by is OpenBy.REQUESTS


def test_on_the_limit_no_number_is_named() -> None:
    assert judge_leak(MEMORY, slowing(0, 200), 100, is_whole=True).reason.endswith("and that is open")


@pytest.mark.parametrize("value", [0.0, 0.01, -0.01])
def test_nothing_prints_as_nothing(value: float) -> None:
    growth = Growth(10, Estimate(value, value, value), Estimate(value, value, value), gained=0, levels_off=True)
    assert "grows by 0 B (±0 B) per request" in judge_leak(MEMORY, growth, 100, is_whole=True).reason
