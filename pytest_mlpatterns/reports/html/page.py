"""The HTML report: one self-contained page. Takes results, returns text.

It names the parts of the page and their order. :mod:`pytest_mlpatterns.reports.html.frame` has what stands around them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.records.setup import CLUSTER
from pytest_mlpatterns.reports.html.evaluation import evaluation_section
from pytest_mlpatterns.reports.html.fragments import most_urgent_first
from pytest_mlpatterns.reports.html.frame import FLAME_LIBRARY, LIBRARIES, Frame, facts_list, theme_switch, when
from pytest_mlpatterns.reports.html.markup import Markup, tag
from pytest_mlpatterns.reports.html.overview import (
    failures_section,
    goodput_section,
    groups_section,
    history_section,
    overview_section,
    ranking_section,
    tally,
)
from pytest_mlpatterns.reports.html.test_page import details_section
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from pytest_mlpatterns.reports.files.result_file import Results

__all__ = ["FLAME_LIBRARY", "HISTORY_PAGE", "LIBRARIES", "html_report"]

HISTORY_PAGE = "perf-history.html"
"""Name of a page of the history that the page of a run links to if both are in one directory."""


def html_report(results: Results, history_page: str = "") -> str:
    """The page's text.

    Args:
        results: results of one run.
        history_page: name of a page of the history in the directory of this one, to link to; empty without one.
    """
    frame = Frame(
        title=f"Performance report, {when(results.date)}",
        description=f"How {count(len(results.results), 'performance test')} went",
        skip=tag("a", "Skip to the tests", href="#tests", class_="skip") if results.results else None,
        has_flames=any(result.causes.profile is not None and result.causes.profile.nodes for result in results.results),
    )
    ordered = most_urgent_first(results.results)
    parts = [
        failures_section(ordered, results.unmeasured),
        history_section(results.history, ordered, history_page if results.history else ""),
        overview_section(ordered),
        ranking_section(results.ranking, results.results),
        evaluation_section(results.results, results.ranking),
        groups_section(results.results),
        goodput_section(results.results),
        details_section(ordered),
    ]
    return frame.page(_header(results), parts)


def _header(results: Results) -> Markup:
    environment, mode = results.environment, results.baseline.get("mode")
    references = (result.reference for result in results.results)
    revisions = dict.fromkeys(one.name for one in references if one is not None and one.kind == "revision")
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    facts = {
        "Measured": when(results.date),
        "Commit": results.commit or "",
        "Machine": environment.machine,
        CLUSTER: "; ".join(
            dict.fromkeys(result.conditions.cluster for result in results.results if result.conditions.cluster)
        ),
        "Compared with": ", ".join(revisions),
        "Baseline": f"--perf-baseline {mode}" if mode and not revisions else "",
        "Versions": versions,
    }
    return tag(
        "header",
        tag("div", tag("h1", "Performance report"), theme_switch(), class_="top"),
        tally(results),
        facts_list(facts),
        class_="page",
    )
