"""The HTML report's table of what changed in the environment since the reference. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.html.fragments import breakable, scrolling
from pytest_mlpatterns.reports.html.markup import Markup, tag

if TYPE_CHECKING:
    from pytest_mlpatterns.records.environment_facts import FactChange
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["environment_table"]


def environment_table(result: TestResult) -> Markup | None:
    """Every fact that differs, before and now; None if nothing does, or if one side is not known."""
    if not result.facts_changed:
        return None
    head = [tag("th", text, scope="col") for text in ("Changed in the environment", "Before", "Now")]
    rows = map(_row, result.facts_changed)
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="figures comparison")
    return scrolling(table, "Changes in the environment")


def _row(change: FactChange) -> Markup:
    before, now = change.values
    return tag(
        "tr",
        tag("td", breakable(change.label)),
        tag("td", breakable(before), class_="less"),
        tag("td", breakable(now)),
    )
