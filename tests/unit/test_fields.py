"""Checks of single fields: what passes comes back plain, what does not is named with what is expected."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from support.each_row import each_row

from pytest_mlpatterns import fields
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import MAX_CONCURRENCY, MAX_RATE_RPS


@dataclass(frozen=True)
class Box:
    """A frozen value with one field."""

    size: Any


@each_row(
    ("value", "plain"),
    [(3, 3), (2.5, 2.5), (np.int32(4), 4), (np.float32(1.5), 1.5), (True, None), (np.True_, None), ("3", None)],
)
def test_plain_numbers_are_pythons_own(value: object, plain: object) -> None:
    found = fields.plain_number(value)
    assert (found, type(found)) == (plain, type(plain))


@each_row(
    ("bounds", "expected"),
    ({"least": 1, "most": 2_000}, "a whole number from 1 to 2,000"),
    ({"least": 0}, "a whole number that is not negative"),
    ({}, "a whole number"),
    ({"least": 1, "expected": "a process"}, "a process"),
)
@each_row("value", [1.0, "one", True, None, math.nan])
def test_the_message_of_a_whole_number_names_found_and_expected(value: object, bounds: Any, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        fields.whole_number(value, f"x is {value!r}", **bounds)
    assert str(caught.value) == f"x is {value!r}, expected {expected}"


@each_row(
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


async def waits() -> None:
    raise AssertionError


def yields() -> Iterator[None]:
    yield


async def streams() -> AsyncIterator[None]:
    yield


class Waits:
    async def __call__(self) -> None:
        raise AssertionError


class Yields:
    def method(self) -> Iterator[None]:
        yield


@each_row(
    ("function", "words"),
    (waits, "is waits, an async function, and calling it runs nothing"),
    (partial(waits), "is waits, an async function"),
    (Waits(), "is Waits, an async function"),
    (partial(partial(Waits())), "is Waits, an async function"),
    (yields, "is yields, a generator function"),
    (Yields().method, "is method, a generator function"),
    (streams, "is streams, an asynchronous generator function"),
)
def test_a_function_of_which_a_call_runs_nothing_is_named(function: Callable[..., Any], words: str) -> None:
    found = fields.unrun_function(function)
    assert found.startswith(words)
    assert found.endswith("; expected one without async and yield")


@each_row("function", [len, Waits, partial(print, 1), lambda: [waits()], Box])
def test_a_function_that_a_call_runs_is_taken(function: Callable[..., Any]) -> None:
    assert fields.unrun_function(function) == ""


@pytest.mark.parametrize(
    ("make", "kind"),
    [(waits, "coroutine"), (yields, "generator"), (streams, "async_generator"), (asyncio.new_event_loop, "")],
)
def test_an_answer_that_nothing_has_worked_for_is_named(make: Any, kind: str) -> None:
    answer = make()
    words = "expected a function that does its work when it is called"
    assert fields.unrun_answer(answer) == (f"returned an unfinished {kind}, {words}" if kind else "")
    if not kind:
        answer.close()


@each_row("answer", [None, True, [1], "text", iter([1]), np.ones(2)])
def test_an_answer_of_work_that_is_done_is_taken(answer: object) -> None:
    assert fields.unrun_answer(answer) == ""
