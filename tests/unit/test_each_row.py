"""The decorator that makes a table one test."""

import pytest
from support.each_row import each_row


def test_each_row_runs_and_each_that_fails_is_named() -> None:
    seen = []

    @each_row(("given", "is_right"), [(1, True), (2, False), (3, True), (4, False)])
    def table(given: int, is_right: bool) -> None:
        seen.append(given)
        assert is_right

    with pytest.raises(AssertionError) as caught:
        table()
    assert seen == [1, 2, 3, 4]
    assert caught.value.__notes__ == [
        "2 of 4 rows fail:\n{'given': 2, 'is_right': False}\n{'given': 4, 'is_right': False}"
    ]


def test_a_coroutine_function_is_awaited_for_each_row() -> None:
    @each_row("given", [1])
    async def table(given: int) -> None:
        assert given == 2

    with pytest.raises(AssertionError):
        table()


def test_a_table_without_rows_is_none() -> None:
    with pytest.raises(AssertionError, match="expected at least one"):
        each_row("given", [])
