"""Checks of single fields: what passes comes back plain, what does not is named with what is expected."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from pytest_mlpatterns import fields
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import MAX_CONCURRENCY, MAX_RATE_RPS


@dataclass(frozen=True)
class Box:
    """A frozen value with one field."""

    size: Any


@pytest.mark.parametrize(
    ("value", "plain"),
    [(3, 3), (2.5, 2.5), (np.int32(4), 4), (np.float32(1.5), 1.5), (True, None), (np.True_, None), ("3", None)],
)
def test_plain_numbers_are_pythons_own(value: object, plain: object) -> None:
    found = fields.plain_number(value)
    assert (found, type(found)) == (plain, type(plain))


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"least": 1, "most": 2_000}, "a whole number from 1 to 2,000"),
        ({"least": 0}, "a whole number that is not negative"),
        ({}, "a whole number"),
        ({"least": 1, "expected": "a process"}, "a process"),
    ],
)
@pytest.mark.parametrize("value", [1.0, "one", True, None, math.nan])
def test_the_message_of_a_whole_number_names_what_was_found_and_expected(
    value: object, bounds: Any, expected: str
) -> None:
    with pytest.raises(SettingError) as caught:
        fields.whole_number(value, f"x is {value!r}", **bounds)
    assert str(caught.value) == f"x is {value!r}, expected {expected}"


@pytest.mark.parametrize(
    ("value", "advice"),
    [("1", "; write 1, without quotes"), ("64", "; write 64, without quotes"), ("0", ""), ("65", ""), ("9" * 5000, "")],
)
def test_an_allowed_number_in_quotes_is_to_be_written_without_them(value: str, advice: str) -> None:
    with pytest.raises(SettingError) as caught:
        fields.whole_number(value, "x is text", least=1, most=64)
    assert str(caught.value) == f"x is text, expected a whole number from 1 to 64{advice}"


@pytest.mark.parametrize(("value", "fits"), [(1, False), (2, True), (np.uint8(5), True), (6, False)])
def test_a_field_is_within_its_bounds_and_plain(value: object, fits: bool) -> None:
    box = Box(value)
    if not fits:
        with pytest.raises(SettingError, match=rf"^Box\(size={value}\), expected a whole number from 2 to 5$"):
            fields.set_whole(box, "size", least=2, most=5)
    else:
        fields.set_whole(box, "size", least=2, most=5)
        assert type(box.size) is int


def test_limits_of_load_are_allowed_themselves() -> None:
    assert fields.concurrency(1, "x") == 1
    assert fields.concurrency(MAX_CONCURRENCY, "x") == MAX_CONCURRENCY
    assert fields.rate_rps(MAX_RATE_RPS, "x") == MAX_RATE_RPS
    assert fields.rate_rps(np.float64(0.1), "x") == 0.1
