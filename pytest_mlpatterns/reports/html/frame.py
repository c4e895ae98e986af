"""The frame of a self-contained HTML page: its head, its scripts with their policy, the switch of colours, its foot.

Text and tables are plain HTML; a script draws each chart when it comes into view. The style sheet, the scripts and the
charting library are files under ``assets`` that are copied into the page. Its content security policy allows these
scripts only, and no download.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.reports.html.markup import Markup, tag
from pytest_mlpatterns.wording import listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_mlpatterns.reports.html.markup import Content

__all__ = ["FLAME_LIBRARY", "LIBRARIES", "Frame", "facts_list", "theme_switch", "when"]

LIBRARIES = {"D3 7.9.2": "d3-7.9.2.min.js", "Observable Plot 0.6.17": "plot-0.6.17.umd.min.js"}
"""The charting libraries, as published on npm; their licences are in the same folder."""
FLAME_LIBRARY = {"d3-flame-graph 5.0.0": "d3-flamegraph-5.0.0.umd.min.js"}
"""What lays out flame graphs; only pages with a profile have it."""
_LICENCES = ("LICENSE-d3.txt", "LICENSE-plot.txt")
_FLAME_LICENCES = ("LICENSE-d3-flamegraph.txt",)
_SCRIPTS = ("units.js", "charts.js", "report.js")
_FLAME_SCRIPTS = ("flame.js",)
_THEMES = ("auto", "light", "dark")


class Frame(Struct, frozen=True):
    """What stands around the parts of a page.

    Attributes:
        title: of the window.
        description: one line about the page.
        skip: the link that leads keyboards past the header; None if there is nothing to skip to.
        has_flames: whether a part is a flame graph.
    """

    title: str
    description: str
    skip: Markup | None = None
    has_flames: bool = False

    def page(self, header: Markup, parts: Iterable[Content]) -> str:
        """The text of the page.

        Args:
            header: what the page is about.
            parts: its sections; None leaves one out.
        """
        libraries = {**LIBRARIES, **FLAME_LIBRARY} if self.has_flames else LIBRARIES
        own = (*_SCRIPTS, *_FLAME_SCRIPTS) if self.has_flames else _SCRIPTS
        scripts = [_file(f"vendor/{name}") for name in libraries.values()] + [_file(name) for name in own]
        head = tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="description", content=self.description),
            tag("title", self.title),
            tag("style", _file("report.css")),
        )
        body = tag(
            "body",
            self.skip,
            header,
            tag("main", tag("noscript", tag("p", "The charts need JavaScript, which is turned off here.")), *parts),
            _footer(libraries, (*_LICENCES, *_FLAME_LICENCES) if self.has_flames else _LICENCES),
            *(tag("script", text) for text in scripts),
        )
        return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def theme_switch() -> Markup:
    """The choice between light, dark and what the system has; a script shows it."""
    return tag(
        "fieldset",
        tag("legend", "Colours", class_="visually-hidden"),
        *(
            tag("label", tag("input", type="radio", name="theme", value=theme, checked=theme == "auto"), theme)
            for theme in _THEMES
        ),
        id="theme",
        hidden=True,
    )


def facts_list(facts: Mapping[str, str]) -> Markup:
    """Names with their values; those without a value are left out."""
    items = [part for name, text in facts.items() if text for part in (tag("dt", name), tag("dd", text))]
    return tag("dl", *items, class_="facts")


def when(date: str) -> str:
    """A date of ISO 8601 for people; another text as it is."""
    try:
        return datetime.datetime.fromisoformat(date).strftime("%-d %B %Y, %H:%M %Z").strip(", ")
    except ValueError:
        return date


def _footer(libraries: Iterable[str], licences: Iterable[str]) -> Markup:
    text = "\n".join(_file(f"vendor/{name}") for name in licences)
    return tag(
        "footer",
        tag(
            "p",
            f"Written by pytest-mlpatterns {version('pytest-mlpatterns')}. Charts by {listed(list(libraries))}.",
        ),
        tag("details", tag("summary", "Licences of the charting libraries"), tag("pre", str(text))),
    )


def _policy(scripts: list[Markup]) -> str:
    """Only these scripts may run, and nothing may be downloaded."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    run = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {run}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> Markup:
    """The text of a file under ``assets``."""
    return Markup(files("pytest_mlpatterns.reports.html").joinpath("assets", name).read_text(encoding="utf-8"))
