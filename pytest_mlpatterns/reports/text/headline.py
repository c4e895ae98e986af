"""The headline of a run: how many tests are of each kind, the most urgent first. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_mlpatterns import wording
from pytest_mlpatterns.records.kind import Gate, Kind
from pytest_mlpatterns.reports.text.styled_text import Style

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_mlpatterns.records.failed_test import FailedTest
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["counted", "headline", "headline_style", "kind_word", "kinds_of", "let_pass"]

_WORDS: Mapping[Kind, tuple[str, str]] = {
    Kind.REGRESSION: ("regression", "regressions"),
    Kind.LIMIT: ("missed limit", "missed limits"),
    Kind.TEST_ERROR: ("broken test", "broken tests"),
    Kind.INVALID: ("invalid test", "invalid tests"),
    Kind.UNDECIDED: ("undecided", "undecided"),
    Kind.NOT_COMPARED: ("not compared", "not compared"),
    Kind.ACCEPTED: ("accepted", "accepted"),
    Kind.PASSED: ("passed", "passed"),
}
"""Kinds in the order of the headline, each as one test has it and as several have it."""
_OPEN = (Kind.UNDECIDED, Kind.NOT_COMPARED)
_CALM = (Kind.PASSED, Kind.ACCEPTED)


def kind_word(kind: Kind) -> str:
    """A kind in words: ``missed limit``."""
    return _WORDS[kind][0]


def kinds_of(results: Iterable[TestResult], failures: Iterable[FailedTest]) -> dict[str, Kind]:
    """The kind of each test, by its id.

    Args:
        results: of the tests that were measured.
        failures: of the tests that failed; those without a result count too.
    """
    return {one.test: one.kind for one in failures} | {one.test: one.kind for one in results}


def counted(kinds: Iterable[Kind]) -> dict[Kind, str]:
    """How many tests are of each kind, in words: ``{Kind.PASSED: "12 passed"}``; the most urgent first."""
    counts = Counter(kinds)
    return {kind: wording.count(counts[kind], *words) for kind, words in _WORDS.items() if counts[kind]}


def headline(kinds: Iterable[Kind]) -> str:
    """How many tests are of each kind: ``1 regression, 1 broken test, 12 passed``."""
    return ", ".join(counted(kinds).values()) or "no perf test"


def headline_style(kinds: Iterable[Kind]) -> Style:
    """The colour of the headline: that of the most urgent kind."""
    found = {*kinds}
    if found <= {*_CALM}:
        return Style.GOOD
    return Style.OPEN if found <= {*_CALM, *_OPEN} else Style.BAD


def let_pass(failures: Sequence[FailedTest]) -> str:
    """That tests passed although their verdicts failed; empty without such a test."""
    found = [one for one in failures if one.gate is Gate.WARN]
    if not found:
        return ""
    return f"{wording.count(len(found), 'test')} would fail with --perf-gate fail"
