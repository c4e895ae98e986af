"""How many launches a comparison waits for, so that the tail has enough requests."""

from __future__ import annotations

import pytest

from pytest_mlpatterns.judging.guards import launches_for_tail


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
