"""Rules of one metric: what a look lacks, how many launches a comparison waits for, and how sure one of the tail is."""

import re
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, even_launch, make_setup

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.verdicts.count_comparison import STORED_TAIL_ALPHA, TAIL_ALPHA, judge_tail
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.errors import InvalidResultError, PerfFailure
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric, compared_metrics, marked_accepted
from pytest_mlpatterns.judging.look import Look, Pairs
from pytest_mlpatterns.judging.loop import Ruling
from pytest_mlpatterns.judging.metric_rules import (
    judge_guarded,
    judge_metrics,
    launches_for_tail,
    require_requested,
    why_not_compared,
)
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.verdict import Acceptance, LeftOut, Outcome


@each_row(
    ("needed", "found", "launches", "expected"),
    [
        (459, 230, 1, 2),
        (459, 155, 1, 3),
        (459, 100, 1, 1),  # four further launches are too many
        (459, 396, 3, 4),
        (459, 500, 1, 1),
        (0, 230, 1, 1),
        (459, 0, 1, 1),
    ],
)
def test_a_comparison_waits_up_to_two_launches_for_the_tail(
    needed: int, found: int, launches: int, expected: int
) -> None:
    assert launches_for_tail(needed, found, launches) == expected


def launches_with(slow: int) -> list[RequestCounts]:
    """Six launches in each of which some requests take five times as long as the others."""
    return [RequestCounts(500, 0, {4 * MS: 500 - slow, 20 * MS: slow} if slow else {4 * MS: 500})] * 6


def fewest_slow(against: Literal["baseline", "revision"]) -> int:
    """The fewest slow requests of a launch with which the tail fails, beside two of the reference."""
    compared = ComparedMetric(METRICS["p99"], 0.2, TAIL_ALPHA, is_guard=True, requested=False)
    before = SimpleNamespace(counts=launches_with(2))

    def outcome(slow: int) -> Outcome:
        now: Any = SimpleNamespace(counts=launches_with(slow))
        return judge_guarded(compared, before, now, against=against, in_flight=None).outcome  # type: ignore[arg-type]

    return next(slow for slow in range(2, 20) if outcome(slow) is Outcome.FAIL)


def test_a_tail_fails_at_the_level_of_its_reference() -> None:
    """Launches of a stored baseline met other pauses of the machine, so a failure beside them is surer."""
    for against, alpha in (("baseline", STORED_TAIL_ALPHA), ("revision", TAIL_ALPHA)):
        fewest = fewest_slow(against)  # type: ignore[arg-type]
        found = [
            judge_tail(launches_with(2), launches_with(slow), metric=METRICS["p99"], tolerance=0.2, alpha=alpha).outcome
            for slow in (fewest - 1, fewest)
        ]
        assert found == [Outcome.INCONCLUSIVE, Outcome.FAIL], against


def test_a_guard_names_what_it_is_compared_with() -> None:
    (size,) = compared_metrics([METRICS["response_bytes"]], Tolerances(), 0.005, requested=False)
    side = Metrics((even_launch(),) * 3)
    for against in ("baseline", "revision"):
        assert judge_guarded(size, side, side, against=against, in_flight=None).against == against  # type: ignore[arg-type]


@pytest.mark.parametrize(("ceiling", "outcome"), [(0.3, Outcome.FAIL), (4.0, Outcome.PASS)])
def test_a_tail_that_an_acceptance_lets_pass_names_it_although_p99_is_as_it_was(
    ceiling: float, outcome: Outcome
) -> None:
    agreed = Acceptance("p99", ceiling, "larger model")
    compared = ComparedMetric(
        METRICS["p99"], ceiling, TAIL_ALPHA, is_guard=True, requested=False, accepted=agreed, usual=0.2
    )
    before, now = (SimpleNamespace(counts=launches_with(slow)) for slow in (0, 4))
    found = judge_guarded(compared, before, now, against="revision", in_flight=None)  # type: ignore[arg-type]
    assert (found.outcome, found.needed_ceiling) == (outcome, 4.0)
    assert found.change.value == 0
    assert bool(marked_accepted(found, compared).accepted) is (outcome is Outcome.PASS)


PRESENT, PLAN = Metrics((even_launch(),)), SequentialPlan(first=1, last=8)
BARE = Metrics((replace(even_launch(), usage=None, cold_start_ns=None),))
PAIRS = Pairs(("main", "the working tree"), (), (), 1.0, 1, PRESENT, PRESENT)
BESIDE_NOTHING = Look(PRESENT, Entry(make_setup(), {}, {}, None, "2026-01-31"), PLAN, pattern="single")


@each_row(
    ("look", "name", "requested", "why"),
    [
        (BESIDE_NOTHING, "rtm", False, "is not recorded yet; record it: --perf-baseline update"),
        (BESIDE_NOTHING, "peak_memory", False, "is not recorded yet"),
        (replace(BESIDE_NOTHING, present=BARE, reference=PRESENT), "cold_start", False, ""),
        (replace(BESIDE_NOTHING, present=BARE, reference=PRESENT), "cold_start", True, "is not known"),
        (Look.at_pairs(PAIRS, PLAN), "rtm", False, "is not known of both sides"),
        (Look.at_pairs(replace(PAIRS, first=BARE), PLAN), "cold_start", False, "is not known of both sides"),
    ],
)
def test_a_metric_that_one_side_lacks_is_left_out_and_why(look: Look, name: str, requested: bool, why: str) -> None:
    (one,) = compared_metrics([METRICS[name]], Tolerances(), 0.01, requested=False)
    ruling, settings = judge_metrics([one], look), read_settings({"compare": name} if requested else {}, {}, {})
    found = why_not_compared(ruling.left_out, [one], look, settings=settings)
    assert (ruling.verdicts, found) == ([], {one.metric.label: LeftOut(why)} if why else {})
    require_requested(ruling, [one], beside="the baseline")
    with pytest.raises(
        PerfFailure, match=f"cannot judge {re.escape(one.metric.label)} against the baseline: it is not"
    ):
        require_requested(ruling, [replace(one, requested=True)], beside="the baseline")


def test_a_requested_metric_that_is_invalid_fails_beside_an_entry_too() -> None:
    (one,) = compared_metrics([METRICS["rtm"]], Tolerances(), 0.01, requested=True)
    ruling = Ruling(left_out={"rtm": InvalidResultError("the slowest known request failed")})
    with pytest.raises(
        PerfFailure, match="cannot judge median latency against the baseline: the slowest known request failed"
    ):
        require_requested(ruling, [one], beside="the baseline")
