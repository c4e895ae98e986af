"""A history as JSON for programs, and as the Markdown body of an issue."""

from __future__ import annotations

import json
import re

from markdown_it import MarkdownIt
from msgspec.structs import replace
from support.golden import check_golden
from support.histories import CHANGES, SERIES, change_of, series_from

from pytest_mlpatterns.reports.files.history_issue import issue_text
from pytest_mlpatterns.reports.files.history_json import FORMAT, VERSION, history_json


def test_the_json_has_each_course_with_its_levels_and_its_changes() -> None:
    data = json.loads(history_json(SERIES, CHANGES))

    assert (data["format"], data["version"]) == (FORMAT, VERSION)
    rtm = data["series"][0]
    assert (rtm["metric"], rtm["unit"], rtm["better"], rtm["course"]) == ("rtm", "ns", "lower", "values")
    assert len(rtm["points"]) == 45
    assert 3.8e6 < rtm["points"][0]["value"] < 4.2e6
    assert [(one["start"], one["stop"]) for one in rtm["levels"]] == [(0, 18), (18, 30), (30, 45)]
    assert rtm["segments"] == [
        {"start": 0, "stop": 18, "reason": None},
        {"start": 18, "stop": 45, "reason": "environment"},
    ]
    value, low, high = rtm["now"]
    assert low < value < high
    assert data["changes"] == [change.to_json() for change in CHANGES]


def test_the_json_of_a_metric_of_a_later_version_has_no_unit() -> None:
    series = series_from("of_a_later_version", [1.0, 1e300], error=0.0)

    (found,) = json.loads(history_json([series], CHANGES))["series"]

    assert (found["unit"], found["better"], found["now"][1:]) == (None, None, [None, None])


def test_the_body_of_an_issue() -> None:
    check_golden("history-issue.md", issue_text(CHANGES, SERIES))


def test_no_change_is_no_issue() -> None:
    assert issue_text((), SERIES) == ""


def test_the_runs_around_a_change_stand_in_a_table() -> None:
    html = MarkdownIt("commonmark").enable("table").render(issue_text(CHANGES[:1], SERIES))
    rows = re.findall(r"<tr>\s*<td>(.*?)</td>\s*<td>(.*?)</td>", html, re.DOTALL)
    assert len(rows) == 8
    assert html.count("<strong>4.") == 4


def test_text_of_users_stays_text() -> None:
    series = series_from("rtm", [1.0, 1.0, 2.0], test="t.py::x[```|<img src=x>\x1b[2J]", machine="a|b `c` <script>")

    text = issue_text([change_of(series, 2, (2, 1.9, 2.1))], [series])

    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<img" not in html
    assert "<script" not in html
    assert "\x1b" not in text
    assert html.count("<pre>") == 1
    assert "bisect 't.py::x[```|" in text


def test_a_change_without_its_course_has_no_table() -> None:
    series = series_from("rtm", [1.0, 1.0, 2.0])
    change = change_of(series, 2, (2, 1.9, 2.1))

    assert "| run |" in issue_text([change], [series])
    assert "| run |" not in issue_text([change], [])
    assert "| run |" not in issue_text([replace(change, new=replace(change.new, commit="f" * 40))], [series])


def test_of_many_changes_the_rest_is_counted() -> None:
    series = series_from("rtm", [1.0 + place // 2 for place in range(80)])
    changes = [change_of(series, place, (2, 1.9, 2.1)) for place in range(2, 80, 2)]

    text = issue_text(changes, [series])

    assert len(text) < 65_536
    assert text.endswith("And 9 more changes.\n")
