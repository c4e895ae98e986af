"""Percentiles that so few answers cannot give: the sentence that is shared, and when it is announced."""

import numpy as np
import pytest
from msgspec.structs import replace
from support.synthetic import MS, START_NS, S, launch, samples

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.verdicts.few_samples import (
    describe_too_few,
    foreseen_tails,
    tails_left_out,
    with_needed_budget,
)
from pytest_mlpatterns.errors import TooFewSamplesError
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.verdict import LeftOut

COMPARED = [METRICS[name] for name in ("rtm", "p99", "p95", "error_rate")]


def slow_launch(requests: int = 24) -> Launch:
    """Four answers a second for six seconds."""
    return launch(samples(START_NS + np.arange(requests) * S // 4, 190 * MS), seconds=6.0)


def test_percentiles_of_too_few_requests_share_one_sentence() -> None:
    found = tails_left_out(COMPARED, Metrics((slow_launch(), slow_launch())))
    why = 'at 4.00 answers a second p95 latency needs 23.0 s and p99 latency needs 115 s (duration="64s")'
    assert found == dict.fromkeys(["p95 latency", "p99 latency"], LeftOut(why, is_sentence=True))
    given = tails_left_out(COMPARED, Metrics((replace(slow_launch(), requests=24),)))
    assert str(given["p99 latency"]).endswith("p99 latency needs 115 s (requests=459)")


def test_percentiles_of_enough_requests_and_of_none_have_none() -> None:
    assert tails_left_out(COMPARED, Metrics((slow_launch(),) * 20)) == {}
    assert tails_left_out(COMPARED, Metrics((slow_launch(0),))) == {}


JUDGED = "judged are median latency, error rate"
BOTH = f"at 4.00 answers a second p95 latency needs 23.0 s and p99 latency needs 115 s; {JUDGED}"
ONE = f"at 4.00 answers a second p99 latency needs 115 s; {JUDGED}"


@pytest.mark.parametrize(
    ("reachable", "note"), [(2, BOTH), (8, ONE), (20, "")], ids=["short budget", "longer budget", "long budget"]
)
def test_what_no_launch_of_the_budget_reaches_is_announced(reachable: int, note: str) -> None:
    assert foreseen_tails(COMPARED, Metrics((slow_launch(),)), reachable) == note


def test_a_reference_with_too_few_requests_has_the_count_and_the_window() -> None:
    error = TooFewSamplesError("p99 latency needs 459 requests", needed=459, found=300)
    assert describe_too_few(error, 3 * S) == LeftOut('needs 459 requests, there were 300 (duration="6s")')
    assert describe_too_few(error, None) == LeftOut("needs 459 requests, there were 300 (requests=459)")
    assert describe_too_few(TooFewSamplesError("too few"), 3 * S) == LeftOut("too few", is_sentence=True)


def test_a_request_longer_than_its_window_needs_a_budget_that_is_named() -> None:
    error, one = TooFewSamplesError("TTFT of 2 samples", needed=7, found=2), slow_launch(2)
    lengthened = replace(one, given_window_ns=100 * MS)
    found = with_needed_budget(error, [lengthened], 20 * S)
    assert str(found) == 'TTFT of 2 samples; a request takes up to 190 ms, so give budget="77s"'
    assert (found.needed, found.found) == (7, 2)
    assert with_needed_budget(error, [one], 20 * S) is error
    assert with_needed_budget(error, [], 20 * S) is error
    assert with_needed_budget(TooFewSamplesError("none"), [lengthened], 20 * S).args == ("none",)
