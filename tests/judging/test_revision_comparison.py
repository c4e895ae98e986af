"""A comparison with a revision: loads that it cannot repeat within the budget are refused before it begins."""

from __future__ import annotations

import pytest

from pytest_mlpatterns import ClosedLoop, Stages
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.revision_comparison import check_length, least_ns


def test_a_load_whose_repetitions_exceed_the_budget_is_refused_with_the_time_that_they_take() -> None:
    load = Stages([("5s", 10)])
    with pytest.raises(SettingError) as caught:
        check_length(load, 30_000_000_000, "main (a6d79f5)")
    assert "takes 5.00 s, and a comparison with main (a6d79f5) sends it 12 times (3 launches of A B B A)" in str(
        caught.value
    )
    assert "60.0 s in all; expected at most the budget of 30.0 s: shorten the load, or give" in str(caught.value)
    assert 'give budget="60s"' in str(caught.value)
    check_length(load, 60_000_000_000, "main")


def test_a_load_without_a_length_fits_every_budget() -> None:
    check_length(ClosedLoop(1), 1, "main")
    assert least_ns(ClosedLoop(1)) == 0
