"""The HTML report: one self-contained page. Takes results, returns text.

It names the parts of the page and their order. :mod:`pytest_mlpatterns.reports.html.frame` has what stands around them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.records.setup import CLUSTER
from pytest_mlpatterns.reports.html.evaluation import patterns_section
from pytest_mlpatterns.reports.html.fragments import most_urgent_first
from pytest_mlpatterns.reports.html.frame import facts_list, page_of, when
from pytest_mlpatterns.reports.html.markup import Markup, tag
from pytest_mlpatterns.reports.html.overview import broken_section, history_section, overview_section, tally
from pytest_mlpatterns.reports.html.test_page import details_section
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from pytest_mlpatterns.reports.files.result_file import Results

__all__ = ["HISTORY_PAGE", "html_report"]

HISTORY_PAGE = "perf-history.html"
"""Name of a page of the history that the page of a run links to if both are in one directory."""


def html_report(results: Results, history_page: str = "") -> str:
    """The page's text.

    Args:
        results: results of one run.
        history_page: name of a page of the history in the directory of this one, to link to; empty without one.
    """
    ordered = most_urgent_first(results.results)
    return page_of(
        f"Performance report, {when(results.date)}",
        _header(results),
        [
            broken_section(results.unmeasured),
            history_section(results.history, ordered, history_page if results.history else ""),
            overview_section(ordered) if len(ordered) > 1 else None,
            patterns_section(results.results, results.ranking),
            details_section(ordered),
        ],
        description=f"How {count(len(results.results), 'performance test')} went",
    )


def _header(results: Results) -> Markup:
    environment, mode = results.environment, results.baseline.get("mode")
    references = (result.reference for result in results.results)
    revisions = dict.fromkeys(one.name for one in references if one is not None and one.kind == "revision")
    clusters = (result.conditions.cluster for result in results.results if result.conditions.cluster)
    facts = {
        "Measured": when(results.date),
        "Commit": results.commit or "",
        "Machine": environment.machine,
        CLUSTER: "; ".join(dict.fromkeys(clusters)),
        "Compared with": ", ".join(revisions),
        "Baseline": f"--perf-baseline {mode}" if mode and not revisions else "",
        "Versions": ", ".join(f"{name} {version}" for name, version in environment.versions.items()),
    }
    return tag("header", tag("h1", "Performance report"), tally(results), facts_list(facts))
