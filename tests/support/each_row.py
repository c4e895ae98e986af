"""A test by a table: one test for all rows, which names each row that fails."""

import functools
import inspect
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from support.scenarios import run


def each_row(names: str | Sequence[str], *rows: Any) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Call the test with each row, as ``pytest.mark.parametrize`` would, but as one test; one argument has all rows.

    For enumerations: values of a format, damaged texts, boundaries. The rows share the fixtures of the test. Each row
    runs, also after one that failed; the test fails with the error of the first, and a note has the others.
    """
    columns = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    table = [_values(row, is_one=len(columns) == 1) for row in (rows[0] if len(rows) == 1 else rows)]
    assert table, "a table without rows, expected at least one"

    def decorate(test: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(test)
        def testing(*arguments: Any, **fixtures: Any) -> None:
            failed: list[tuple[str, BaseException]] = []
            for values in table:
                row = dict(zip(columns, values, strict=True))
                try:
                    outcome = test(*arguments, **fixtures, **row)
                    if inspect.iscoroutine(outcome):
                        run(outcome)
                except (Exception, pytest.fail.Exception) as error:
                    failed.append((reprlib.repr(row), error))
            if failed:
                failed[0][1].add_note(
                    f"{len(failed)} of {len(table)} rows fail:" + "".join(f"\n{row}" for row, _ in failed)
                )
                raise failed[0][1]

        signature = inspect.signature(test)
        own = [parameter for name, parameter in signature.parameters.items() if name not in columns]
        testing.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
        return testing

    return decorate


def _values(row: Any, *, is_one: bool) -> Sequence[Any]:
    if isinstance(row, type(pytest.param())):
        assert not row.marks, "a row with a mark, expected a case of pytest.mark.parametrize"
        return tuple(row.values)
    return (row,) if is_one else tuple(row)
