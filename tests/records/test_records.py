"""Records: values that travel keep what they carry, and say what differs."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
from support.synthetic import ENVIRONMENT, SETUP

from pytest_mlpatterns.records.launch import Step
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.records.setup import Environment, Setup
from pytest_mlpatterns.records.verdict import Outcome


def test_records_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SETUP.pattern = "single"  # type: ignore[misc]


def test_equal_set_ups_have_no_differences() -> None:
    assert SETUP.differences(replace(SETUP)) == ()


@pytest.mark.parametrize("name", ["pattern", "load", "wire", "payload"])
def test_a_set_up_names_what_differs_from_the_other_to_this(name: str) -> None:
    other = replace(SETUP, **{name: "before"})
    assert SETUP.differences(other) == (f"{name}: before → {getattr(SETUP, name)}",)


def test_a_set_up_names_every_difference_in_the_order_of_its_fields() -> None:
    other = Setup("single", "closed(16)", "grpc", "sha256:0")
    assert [text.partition(":")[0] for text in SETUP.differences(other)] == ["pattern", "load", "wire", "payload"]


def test_a_machine_is_identified_by_what_stays_the_same() -> None:
    assert ENVIRONMENT.machine == "Test Processor 3000, 2 cores, x86_64, Python 3.11"
    newer = replace(ENVIRONMENT, versions={"numpy": "3.0.0"})
    assert newer.machine == ENVIRONMENT.machine
    assert Environment("Other", 2, "x86_64", "3.11").machine != ENVIRONMENT.machine


def test_a_window_knows_its_length() -> None:
    assert Window(100, 350).duration_ns == 250


def test_an_outcome_is_its_own_text() -> None:
    assert [str(outcome) for outcome in Outcome] == ["pass", "fail", "inconclusive"]


@pytest.mark.parametrize(("rates", "rate"), [((100.0, 400.0, 110.0), 110.0), ((100.0, 120.0), 110.0), ((), 0.0)])
def test_a_step_of_a_capacity_search_is_worth_the_median_of_its_windows(rates: tuple[float, ...], rate: float) -> None:
    assert Step(4, rates, 10.0, 0.0, None).rate_rps == rate
