"""How long an open comparison would take to be decided: more for a closer change, never for a baseline too coarse."""

import pytest
from support.each_row import each_row

from pytest_mlpatterns.analysis.verdicts.verdicts import seconds_to_decide
from pytest_mlpatterns.records.launch import Estimate


def test_half_the_width_takes_four_times_as_long() -> None:
    open_change = Estimate(0.20, 0.02, 0.40)  # twice as wide as its distance of the tolerance
    found = seconds_to_decide(open_change, 0.10, 10.0, launches=5)
    assert found == pytest.approx(1.2 * 10 * 3.3, rel=0.2)
    closer = seconds_to_decide(Estimate(0.15, -0.03, 0.35), 0.10, 10.0, launches=5)
    assert closer > 3 * found


def test_a_baseline_of_few_launches_bounds_what_more_launches_can_show() -> None:
    assert seconds_to_decide(Estimate(0.20, -0.10, 0.60), 0.10, 10.0, launches=5, recorded=3) is None
    assert seconds_to_decide(Estimate(0.20, 0.08, 0.33), 0.10, 10.0, launches=3, recorded=6) is not None


@each_row(
    ("change", "is_known"),
    (Estimate(0.10, -0.1, 0.3), False),  # at it
    (Estimate(0.12, -0.1, 0.3), False),  # 1.8 % away
    (Estimate(0.13, -0.1, 0.3), True),  # 2.7 % away
    (Estimate(0.2, 0.2, 0.2), False),  # no width
)
def test_a_change_at_the_tolerance_or_without_an_interval_has_no_time(change: Estimate, is_known: bool) -> None:
    assert (seconds_to_decide(change, 0.10, 10.0, launches=5) is not None) is is_known


def test_an_interval_that_is_narrow_already_asks_for_one_launch_more_and_not_for_what_was_spent() -> None:
    assert seconds_to_decide(Estimate(0.2, 0.19, 0.21), 0.10, 10.0, launches=5) == 12.0
