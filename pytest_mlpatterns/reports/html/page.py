"""The HTML report: one self-contained page. Takes results, returns text.

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

from pytest_mlpatterns.records.setup import CLUSTER
from pytest_mlpatterns.reports.html.evaluation import evaluation_section
from pytest_mlpatterns.reports.html.fragments import most_urgent_first
from pytest_mlpatterns.reports.html.markup import Markup, tag
from pytest_mlpatterns.reports.html.overview import (
    failures_section,
    goodput_section,
    groups_section,
    overview_section,
    ranking_section,
    tally,
)
from pytest_mlpatterns.reports.html.test_page import details_section
from pytest_mlpatterns.wording import count, listed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_mlpatterns.reports.files.result_file import Results

__all__ = ["FLAME_LIBRARY", "LIBRARIES", "html_report"]

LIBRARIES = {"D3 7.9.2": "d3-7.9.2.min.js", "Observable Plot 0.6.17": "plot-0.6.17.umd.min.js"}
"""The charting libraries, as published on npm; their licences are in the same folder."""
FLAME_LIBRARY = {"d3-flame-graph 5.0.0": "d3-flamegraph-5.0.0.umd.min.js"}
"""What lays out flame graphs; only pages with a profile have it."""
_LICENCES = ("LICENSE-d3.txt", "LICENSE-plot.txt")
_FLAME_LICENCES = ("LICENSE-d3-flamegraph.txt",)
_SCRIPTS = ("units.js", "charts.js", "report.js")
_FLAME_SCRIPTS = ("flame.js",)
_THEMES = ("auto", "light", "dark")


def html_report(results: Results) -> str:
    """The page's text.

    Args:
        results: results of one run.
    """
    has_flames = any(result.causes.profile is not None and result.causes.profile.nodes for result in results.results)
    libraries = {**LIBRARIES, **FLAME_LIBRARY} if has_flames else LIBRARIES
    own = (*_SCRIPTS, *_FLAME_SCRIPTS) if has_flames else _SCRIPTS
    scripts = [_file(f"vendor/{name}") for name in libraries.values()] + [_file(name) for name in own]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="description", content=f"How {count(len(results.results), 'performance test')} went"),
        tag("title", f"Performance report, {_when(results.date)}"),
        tag("style", _file("report.css")),
    )
    ordered = most_urgent_first(results.results)
    parts = [
        failures_section(ordered, results.unmeasured),
        overview_section(ordered),
        ranking_section(results.ranking, results.results),
        evaluation_section(results.results, results.ranking),
        groups_section(results.results),
        goodput_section(results.results),
        details_section(ordered),
    ]
    body = tag(
        "body",
        tag("a", "Skip to the tests", href="#tests", class_="skip") if results.results else None,
        _header(results),
        tag("main", tag("noscript", tag("p", "The charts need JavaScript, which is turned off here.")), *parts),
        _footer(libraries, (*_LICENCES, *_FLAME_LICENCES) if has_flames else _LICENCES),
        *(tag("script", text) for text in scripts),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _header(results: Results) -> Markup:
    environment, mode = results.environment, results.baseline.get("mode")
    references = (result.reference for result in results.results)
    revisions = dict.fromkeys(one.name for one in references if one is not None and one.kind == "revision")
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    facts = {
        "Measured": _when(results.date),
        "Commit": results.commit or "",
        "Machine": environment.machine,
        CLUSTER: "; ".join(
            dict.fromkeys(result.conditions.cluster for result in results.results if result.conditions.cluster)
        ),
        "Compared with": ", ".join(revisions),
        "Baseline": f"--perf-baseline {mode}" if mode and not revisions else "",
        "Versions": versions,
    }
    switch = tag(
        "fieldset",
        tag("legend", "Colours", class_="visually-hidden"),
        *(
            tag("label", tag("input", type="radio", name="theme", value=theme, checked=theme == "auto"), theme)
            for theme in _THEMES
        ),
        id="theme",
        hidden=True,
    )
    items = [part for name, text in facts.items() if text for part in (tag("dt", name), tag("dd", text))]
    return tag(
        "header",
        tag("div", tag("h1", "Performance report"), switch, class_="top"),
        tally(results),
        tag("dl", *items, class_="facts"),
        class_="page",
    )


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


def _when(date: str) -> str:
    try:
        return datetime.datetime.fromisoformat(date).strftime("%-d %B %Y, %H:%M %Z").strip(", ")
    except ValueError:
        return date


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
