"""Elements that several parts of the HTML report share: a verdict, a change, a test id, a table. Pure."""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.html.markup import Content, Markup, tag
from pytest_mlpatterns.wording import spelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = [
    "NO_VERDICT",
    "STATES",
    "anchors_for",
    "anchors_of",
    "breakable",
    "group_of",
    "labels_of",
    "link_to",
    "most_urgent_first",
    "row_of",
    "scrolling",
    "section",
    "state_mark",
    "state_of",
    "table_of",
    "tone_of",
]

STATES = ("failed", "undecided", "interrupted", "passed", "measured")
"""The outcomes of a test, the most urgent first; ``measured``: no verdict was asked for."""
NO_VERDICT = "the test failed for a reason other than a verdict"
"""Of a test that failed and says no more."""
_URGENT = {"failed": 0, "undecided": 1}
_IN_FRAGMENT = "/?:@!$&'()*+,;=[]|"
"""Characters of test ids that browsers leave as they are behind the ``#`` of an address."""


def state_of(result: TestResult) -> str:
    """One of :data:`STATES`."""
    return "measured" if result.outcome == "passed" and not result.verdicts else str(result.outcome)


def most_urgent_first(results: Sequence[TestResult]) -> list[TestResult]:
    """The failed tests, the undecided ones, and then the others in the order in which they ran."""
    return sorted(results, key=lambda result: _URGENT.get(state_of(result), len(_URGENT)))


def state_mark(state: str, text: str | None = None) -> Markup:
    """A verdict as a sign, a word and a colour."""
    return tag("span", text or state, class_=f"state {state}")


def tone_of(verdict: Verdict, tolerance: float) -> str | None:
    """The colour class of a change: worse if it fails or is suspected, better if it exceeds the tolerance."""
    if verdict.outcome is Outcome.FAIL:
        return "worse"
    if verdict.suspected:
        return "suspected"
    own = tolerance if verdict.tolerance is None else verdict.tolerance
    return "better" if verdict.change is not None and verdict.change.high < -own else None


def breakable(test: str) -> Markup:
    """A test id with places where a browser may break the line."""
    pieces = re.split(r"(?<=[:\[|,(/_])(?=[^:])", spelled(test))
    return Markup(tag("wbr").join(escape(piece) for piece in pieces))


def anchors_of(results: Sequence[TestResult]) -> list[str]:
    """The place of each test in the page: its id, so that a link to it can be written by hand and holds in every run.

    Spaces become underscores. A name that could be that of another place, such as ``tests``, gets two colons, and
    what is there twice a number.
    """
    return anchors_for([result.test for result in results])


def anchors_for(tests: Sequence[str]) -> list[str]:
    """As :func:`anchors_of`, of the ids of tests."""
    names = [re.sub(r"\s+", "_", spelled(test)) for test in tests]
    names = [name if "::" in name else f"::{name}" for name in names]
    seen: Counter[str] = Counter()
    anchors = []
    for name in names:
        seen[name] += 1
        anchors.append(name if seen[name] == 1 else f"{name}~{seen[name]}")
    return anchors


def link_to(anchor: str, *content: Content) -> Markup:
    """A link to a test on this page, or with the page's address in front of it from anywhere."""
    return tag("a", *content, href=f"#{quote(anchor, safe=_IN_FRAGMENT)}", class_="id")


def scrolling(table: Markup, name: str) -> Markup:
    """A table that scrolls sideways if it is wider than its place, a stop of the keyboard."""
    return tag("div", table, class_="scroll", role="group", tabindex=0, aria_label=name)


def row_of(*cells: Content) -> Markup:
    """A row of a table."""
    return tag("tr", *(tag("td", cell) for cell in cells))


def group_of(title: str, width: int) -> Markup:
    """A row that heads those below it."""
    return tag("tr", tag("th", title, scope="rowgroup", colspan=width))


def table_of(heads: Sequence[str], rows: Iterable[Content], *, name: str, class_: str = "figures") -> Markup:
    """A table with a heading for each column, in a place that scrolls."""
    head = tag("tr", *(tag("th", text) for text in heads))
    return scrolling(tag("table", tag("thead", head), tag("tbody", *rows), class_=class_), name)


def section(name: str, title: str, *parts: Content) -> Markup:
    """A part of the page with its heading, which is a place to link to."""
    return tag("section", tag("h2", title, id=name, tabindex=-1), *parts, aria_labelledby=name)


def labels_of(members: Sequence[TestResult]) -> list[str]:
    """Names that distinguish the tests of a group: the pattern, if necessary with wire and load; or the test ids."""
    for parts in (("pattern",), ("pattern", "wire"), ("pattern", "wire", "load")):
        labels = [", ".join(str(getattr(member.setup, part)) for part in parts) for member in members]
        if len({*labels}) == len(labels):
            return labels
    return [member.test for member in members]
