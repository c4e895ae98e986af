"""The frame of a self-contained HTML page: its head with its policy, and its foot.

The page has no script: its content security policy allows the one style sheet, and no script and no download.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.html.fragments import Content, Markup, tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def page_of(title: str, header: Markup, parts: Iterable[Content], *, description: str) -> str:
    """The text of a page. ``parts``: its sections; None leaves one out."""
    style = _style()
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="description", content=description),
        tag("title", title),
        tag("style", style),
    )
    skip = tag("a", "Skip to the tests", href="#tests", class_="skip")
    foot = tag("footer", tag("p", f"Written by pytest-mlpatterns {version('pytest-mlpatterns')}."))
    shown = [part for part in parts if part is not None]
    body = tag("body", skip if shown else None, header, tag("main", *shown), foot)
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


def _policy(style: str) -> str:
    """This style sheet alone: no script, no picture, no download, no form."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _style() -> Markup:
    return Markup(files("pytest_mlpatterns.reports.html").joinpath("report.css").read_text(encoding="utf-8"))
