"""HTML as values, the frame of a page, and what its parts share: a verdict, a change, a test id, a table. Pure.

Text from users (test ids, errors, names of models) reaches a page only through :func:`tag`, which escapes it, so it
cannot inject markup. The content security policy of a page allows the one style sheet, no script and no download.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from urllib.parse import quote

from pytest_mlpatterns.records.result import State, TestResult
from pytest_mlpatterns.records.verdict import Kind, Outcome, Verdict
from pytest_mlpatterns.reports.text.comparison import explained
from pytest_mlpatterns.reports.text.undecided import PROBABLY_SLOWER
from pytest_mlpatterns.wording import spelled


def page_of(title: str, header: Markup, parts: Iterable[Content], *, description: str) -> str:
    """The text of a page. ``parts``: its sections; None leaves one out."""
    style = Markup(files("pytest_mlpatterns.reports.html").joinpath("report.css").read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # this style sheet alone: no script, no picture, no download, no form
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="description", content=description),
        tag("title", title),
        tag("style", style),
    )
    shown = [part for part in parts if part is not None]
    skip = tag("a", "Skip to the tests", href="#tests", class_="skip")
    words = explained(" ".join(shown))
    foot = tag("footer", tag("p", f"Written by pytest-mlpatterns {version('pytest-mlpatterns')}."))
    legend = tag("p", words, class_="muted") if words else None
    body = tag("body", skip if shown else None, header, tag("main", legend, *shown), foot)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def facts_list(facts: Mapping[str, Content]) -> Markup:
    """Names with their values; those without a value are left out."""
    items = [part for name, text in facts.items() if text for part in (tag("dt", name), tag("dd", text))]
    return tag("dl", *items, class_="facts")


def when(date: str) -> str:
    """A date of ISO 8601 for people; another text as it is."""
    try:
        return datetime.datetime.fromisoformat(date).strftime("%-d %B %Y, %H:%M %Z").strip(", ")
    except ValueError:
        return date


class Markup(str):
    """Text that is HTML already, made by the functions here or read from a file of the package."""

    __slots__ = ()


Content = str | None  # Content of an element: :class:`Markup` stays as it is, other text is escaped, None is left out

_VOID = frozenset({"meta", "wbr"})
_LEFT_OPEN = frozenset({"dd", "dt", "li", "tbody", "td", "th", "thead", "tr"})
"""Elements that the next one, or the end of what they are in, ends."""
_SHAPES = frozenset({"line", "path", "rect"})  # Elements of a drawing, which close themselves if they are empty


def tag(element: str, /, *children: Content, **attributes: str | int | bool | None) -> Markup:
    """An element.

    ``children``: its content in order; text that is not :class:`Markup` is escaped. ``attributes``: an underscore
    stands for a dash, a last one for nothing (``class_``, ``aria_label``). True gives the name alone; None and False
    leave it out.
    """
    start = "".join(_attribute(name, value) for name, value in attributes.items())
    if element in _VOID:
        return Markup(f"<{element}{start}>")
    if element in _SHAPES and not children:
        return Markup(f"<{element}{start}/>")
    inside = "".join(
        child if isinstance(child, Markup) else escape(spelled(child)) for child in children if child is not None
    )
    return Markup(f"<{element}{start}>{inside}" if element in _LEFT_OPEN else f"<{element}{start}>{inside}</{element}>")


def _attribute(name: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    shown = name.rstrip("_").replace("_", "-")
    return f" {shown}" if value is True else f' {shown}="{escape(spelled(str(value)))}"'


STATES = ("failed", "probable", "undecided", "interrupted", "passed", "measured")
"""The outcomes of a test, the most urgent first; ``measured``: no verdict was asked for; ``probable``: undecided, and
probably slower."""
NO_VERDICT = "the test failed for a reason other than a verdict"  # Of a test that failed and says no more
_URGENT = {"failed": 0, "probable": 1, "undecided": 2}
_IN_FRAGMENT = "/?:@!$&'()*+,;=[]|"
"""Characters of test ids that browsers leave as they are behind the ``#`` of an address."""


def state_of(result: TestResult) -> str:
    """One of :data:`STATES`."""
    if result.kind is Kind.PROBABLY_SLOWER and result.outcome is State.UNDECIDED:
        return "probable"
    return "measured" if result.outcome is State.PASSED and not result.verdicts else str(result.outcome)


def most_urgent_first(results: Sequence[TestResult]) -> list[TestResult]:
    """The failed tests, the undecided ones, and then the others in the order in which they ran."""
    return sorted(results, key=lambda result: _URGENT.get(state_of(result), len(_URGENT)))


def state_mark(state: str, text: str | None = None) -> Markup:
    """A verdict as a sign, a word and a colour."""
    return tag("span", text or (PROBABLY_SLOWER if state == "probable" else state), class_=f"state {state}")


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


def anchors_of(tests: Iterable[str]) -> list[str]:
    """The place of each test in the page: its id, so that a link to it can be written by hand and holds in every run.

    Spaces become underscores. A name that could be another place's, such as ``tests``, gets two colons, and what is
    there twice a number. ``tests``: their ids.
    """
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
