"""The place of a test's definition, which reports, annotations and our failures point to."""

from __future__ import annotations

import linecache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import MlpatternsError, PerfFailure
from pytest_mlpatterns.records.result import Location

if TYPE_CHECKING:
    import pytest

__all__ = ["end_at_the_users_line", "location_of", "raise_at_definition"]

_MOST_DECORATOR_LINES = 50
_BELOW_THE_USER = ("pytest_mlpatterns", "contextlib")
"""Packages whose frames at the end of a traceback say nothing about a user's mistake."""
_PYTEST = ("_pytest", "pluggy")


def location_of(item: pytest.Item) -> Location | None:
    """The file and line of a test's ``def``; None for a test that is not a Python function."""
    if (code := _code(item)) is None:
        return None
    file, root = Path(code.co_filename), item.config.rootpath
    inside = file.relative_to(root) if file.is_relative_to(root) else Path(item.nodeid.partition("::")[0])
    return Location(inside.as_posix(), _definition_line(code))


def raise_at_definition(item: pytest.Item, failure: BaseException) -> None:
    """Raise from the line that defines the test, so that reports point there and not into this package.

    A statement compiled under the test's own file name and line gives a traceback entry that is exactly that. The
    entries of a failed check follow it, those of our own errors do not.
    """
    __tracebackhide__ = True
    if (code := _code(item)) is None:
        raise failure
    name = {"co_name": code.co_name, "co_qualname": code.co_qualname}
    if isinstance(failure, PerfFailure | MlpatternsError | Warning):
        failure = failure.with_traceback(None)
    statement = compile("raise failure from None", code.co_filename, "exec")
    statement = statement.replace(co_firstlineno=_definition_line(code), **name)
    exec(statement, {"failure": failure})  # noqa: S102 - fixed text, see above


def end_at_the_users_line(raised: pytest.ExceptionInfo[BaseException]) -> None:
    """Leave the frames of this package out of the end of a traceback, such as those that check an argument.

    They stay if only pytest's own are before them.
    """
    entries: list[TracebackType] = []
    one: TracebackType | None = raised.tb
    while one is not None:
        entries.append(one)
        one = one.tb_next
    while entries and _package_of(entries[-1]) in _BELOW_THE_USER:
        entries.pop()
    kept: TracebackType | None = None
    for entry in reversed(entries):
        kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    if kept is not None and _package_of(entries[-1]) not in _PYTEST:
        raised.traceback = type(raised.traceback)(kept)


def _package_of(entry: TracebackType) -> str:
    return str(entry.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _code(item: pytest.Item) -> Any:
    function = getattr(item, "function", None)
    return getattr(getattr(function, "__wrapped__", None) or function, "__code__", None)


def _definition_line(code: Any) -> int:
    """The line of ``def``, below the decorators."""
    line: int = code.co_firstlineno
    for number in range(line, line + _MOST_DECORATOR_LINES):
        if linecache.getline(code.co_filename, number).lstrip().startswith(("def ", "async def ")):
            return number
    return line
