"""How a perf test failed, from pytest's reports and its exceptions: the kind, the reason in a few lines, and where.

A traceback begins at the definition of the test and ends at the user's line. pytest quotes the arguments of a user's
check, which are answers of the service, and the values that an assertion compares: their characters are spelled out.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from msgspec import Struct

from pytest_mlpatterns.errors import MlpatternsError, PerfFailure
from pytest_mlpatterns.plugin.collection import PerfItem, parameter_names
from pytest_mlpatterns.records.result import FailedTest, TestResult, group_of
from pytest_mlpatterns.records.result_parts import Location
from pytest_mlpatterns.records.verdict import OPEN_KINDS, Gate, Kind, Unjudged, failure_kind
from pytest_mlpatterns.wording import first_line, visible

_STRICT = "[XPASS(strict)] "  # Begins pytest's text of a test that was expected to fail and did not
_SHOWN_BY_VERDICTS = (Kind.REGRESSION, Kind.LIMIT, *OPEN_KINDS)
"""Kinds of failure that a verdict in the result shows."""
_MOST_DECORATOR_LINES = 50  # Lines below the first decorator in which ``def`` is looked for
_BELOW_THE_USER = ("pytest_mlpatterns", "contextlib")
"""Packages whose frames at the end of a traceback show nothing of a user's mistake."""
_PYTEST = ("_pytest", "pluggy")


class Failures(Struct, frozen=True):
    """The failures of one phase of a test."""

    # the exceptions that failed it; None for a failure without one, such as a strict xfail that passed
    errors: Sequence[BaseException | None]
    advised: Sequence[PerfFailure]
    reason: str

    @classmethod
    def of(cls, state: PerfItem, report: pytest.TestReport, error: BaseException | None) -> Failures:
        """Read them from a phase. ``error``: its exception; None without one."""
        advised: Sequence[PerfFailure] = ()
        if state.perf is not None and report.when != "setup":
            advised = state.perf.advised[state.advised :]
            state.advised += len(advised)
        if report.failed:
            return cls([error], advised, visible(_reason(report, error)))
        if report.when == "call" and state.subtest_errors:
            return cls(state.subtest_errors, advised, "a subtest failed")
        return cls((), advised, visible("\n".join(map(_verdict_lines, advised))))

    @property
    def unjudged(self) -> Unjudged | None:
        """Why the test failed, if no verdict of it shows that; None if one does, or if it passed."""
        kinds = [failure_kind(one) for one in self.errors or self.advised]
        apart = [kind for kind in kinds if kind not in _SHOWN_BY_VERDICTS]
        if not apart or (not self.errors and len(apart) < len(kinds)):
            return None
        return Unjudged(apart[0], first_line(self.reason))

    def test(self, item: pytest.Item, state: PerfItem, result: TestResult | None) -> FailedTest | None:
        """The failure as a value for the reports; None without one.

        ``result``: what the test measured; None if nothing, or if this phase is not its body.
        """
        if not self.errors and not self.advised:
            return None
        return FailedTest(
            item.nodeid,
            self.reason,
            location_of(item),
            kind=failure_kind((*self.errors, *self.advised)[0]) if result is None else result.kind,
            gate=Gate.FAIL if self.errors else Gate.WARN,
            group=group_of(item.nodeid, parameter_names(item)),
            pattern=str(state.settings.pattern),
            text="\n".join([*map(str, self.advised[:1]), *(one.reasons[0] for one in self.advised[1:])]),
        )


def death_of(item: pytest.Item, state: PerfItem) -> FailedTest:
    """The failure of a test that ends the process in which it runs."""
    reason = "the process that ran this test died before it could report"
    group, pattern = group_of(item.nodeid, parameter_names(item)), str(state.settings.pattern)
    return FailedTest(item.nodeid, reason, location_of(item), group=group, pattern=pattern)


def fail_as_expected(report: pytest.TestReport, text: str) -> None:
    """Let an ``xfail`` fail that passed because its gate let the verdict pass, as the test expects a failure."""
    expected = getattr(report, "wasxfail", None)
    if report.failed and isinstance(report.longrepr, str) and report.longrepr.startswith(_STRICT):
        expected = report.longrepr.removeprefix(_STRICT)
    if expected is not None:
        report.outcome, report.longrepr = "skipped", text
        report.wasxfail = expected


def _reason(report: pytest.TestReport, error: BaseException | None) -> str:
    """Why a test failed: a line for each verdict, or the first line of another error."""
    if isinstance(error, PerfFailure):
        return _verdict_lines(error)
    crash = getattr(report.longrepr, "reprcrash", None)
    message: str = report.longreprtext if crash is None else crash.message
    return first_line(message)


def _verdict_lines(failure: PerfFailure) -> str:
    return f"{type(failure).__name__}: " + "\n".join(failure.reasons)


def location_of(item: pytest.Item) -> Location | None:
    """The file and line of a test's ``def``; None for a test that is not a Python function."""
    if (code := _code(item)) is None:
        return None
    file, root = Path(code.co_filename), item.config.rootpath
    inside = file.relative_to(root) if file.is_relative_to(root) else Path(item.nodeid.partition("::")[0])
    return Location(inside.as_posix(), _definition_line(code))


def raise_at_definition(item: pytest.Item, failure: BaseException, *, keep: bool = False) -> None:
    """Raise from the line that defines the test, so that reports point there and not into this package.

    A statement compiled under the test's own file name and line gives a traceback entry that is exactly that. The
    entries of a failed check follow it, and with ``keep`` any error's; our own errors' do not.
    """
    __tracebackhide__ = True
    if (code := _code(item)) is None:
        raise failure
    name = {"co_name": code.co_name, "co_qualname": code.co_qualname}
    if not keep and isinstance(failure, PerfFailure | MlpatternsError | Warning):
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


def spell_report_text(text: Any, spell: Callable[[str], str]) -> None:
    """Spell the lines, arguments and local variables of each entry of a traceback in place.

    ``text``: ``longrepr`` of a report; what is no traceback stays as it is.
    """
    for traceback, *_ in getattr(text, "chain", ()):
        for entry in traceback.reprentries:
            entry.lines = [spell(line) for line in entry.lines]
            if (arguments := getattr(entry, "reprfuncargs", None)) is not None:
                arguments.args = [(name, spell(value)) for name, value in arguments.args]
            if (local := getattr(entry, "reprlocals", None)) is not None:
                local.lines = [spell(line) for line in local.lines]
