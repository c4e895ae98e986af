"""Guards: how many launches a comparison waits for, and how sure a verdict on the tail is."""

from types import SimpleNamespace
from typing import Any, Literal

import pytest
from support.synthetic import MS

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.verdicts.count_comparison import STORED_TAIL_ALPHA, TAIL_ALPHA, judge_tail
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric, marked_accepted
from pytest_mlpatterns.judging.metric_rules import judge_guarded, launches_for_tail
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.verdict import Acceptance, Outcome


@pytest.mark.parametrize(
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
    before = SimpleNamespace(counts_for=lambda _metric: launches_with(2))

    def outcome(slow: int) -> Outcome:
        now: Any = SimpleNamespace(counts_for=lambda _metric, slow=slow: launches_with(slow))
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


@pytest.mark.parametrize(("ceiling", "outcome"), [(0.3, Outcome.FAIL), (4.0, Outcome.PASS)])
def test_a_tail_that_an_acceptance_lets_pass_names_it_although_p99_is_as_it_was(
    ceiling: float, outcome: Outcome
) -> None:
    agreed = Acceptance("p99", ceiling, "larger model")
    compared = ComparedMetric(
        METRICS["p99"], ceiling, TAIL_ALPHA, is_guard=True, requested=False, accepted=agreed, usual=0.2
    )
    before, now = (SimpleNamespace(counts_for=lambda _metric, slow=slow: launches_with(slow)) for slow in (0, 4))
    found = judge_guarded(compared, before, now, against="revision", in_flight=None)  # type: ignore[arg-type]
    assert (found.outcome, found.needed_ceiling) == (outcome, 4.0)
    assert found.change is not None
    assert found.change.value == 0
    assert bool(marked_accepted(found, compared).accepted) is (outcome is Outcome.PASS)
