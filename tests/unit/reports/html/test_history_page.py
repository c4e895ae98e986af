"""The page of a history as text: its parts, its order, and that what users wrote stays text.

How its charts are drawn is tested in a browser, in test_history_drawn.py.
"""

import re

import pytest
from msgspec.structs import replace
from support.histories import CHANGES, SERIES, change_of, series_from
from support.reported import HOSTILE, Reader

from pytest_mlpatterns.records.history import Course
from pytest_mlpatterns.reports.html.chart import ChangeMark
from pytest_mlpatterns.reports.html.history_page import MOST_RUNS, course_chart, history_page

RTM, THROUGHPUT, P95, RATIO, MEMORY, UNKNOWN = SERIES


def test_the_page_has_the_changes_the_tests_and_a_chart_of_each_course() -> None:
    page = Reader(history_page(SERIES, CHANGES, "perf-history.jsonl"))
    assert [attributes.get("class") for tag, attributes in page.tags if tag == "figure"] == ["history"] * len(SERIES)
    for words in ("Performance history", "perf-history.jsonl", "2 worse", "1 steady", "45, 2026-09-01 to 2026-10-15"):
        assert words in page.text
    assert page.text.count("p95 latency +12.0 % (+6.0 to +18.0 %)") == 1
    assert page.text.count("median latency +6.1 % (+5.7 to +6.5 %)") == 1
    assert page.text.count("median latency +6.0 % (+5.0 to +7.0 %)") == 1
    assert page.text.index("2026-10-13, p95 latency +12.0 %") < page.text.index(
        "median latency +6.1 % (+5.7 to +6.5 %)"
    )


def test_tests_that_got_worse_come_first_and_those_without_a_recent_change_are_steady() -> None:
    old = series_from("rtm", [1.0] * 5 + [2.0] * 40, test="t.py::old")
    better, new = (series_from("rtm", [1.0] * 6, test=f"t.py::{name}") for name in ("better", "new"))
    changes = [
        *CHANGES,
        change_of(old, 5, (2, 1.9, 2.1)),
        change_of(better, 3, (0.5, 0.4, 0.6), is_worse=False),
        change_of(new, 4, (1.5, 1.4, 1.6), is_confirmed=False),
    ]
    page = Reader(history_page([old, better, new, MEMORY], changes))
    tests = [name for tag, attributes in page.tags if tag == "div" and (name := attributes.get("id"))]
    assert tests == ["test_perf.py::test_slow", "t.py::new", "t.py::better", "t.py::old"]


def test_the_ratios_of_a_metric_stand_behind_its_values() -> None:
    titles = re.findall(r"<figcaption><b>(.*?)</b>", history_page([RTM, P95, RATIO], CHANGES))
    assert titles == ["Median latency", "Median latency as a ratio", "p95 latency"]
    other = replace(RTM, machine="another machine")
    titles = re.findall(r"<figcaption><b>(.*?)</b>", history_page([RTM, P95, other, RATIO], ()))
    assert titles == ["Median latency", "Median latency", "Median latency as a ratio", "p95 latency"]


def test_a_chart_has_the_run_its_interval_its_level_and_what_is_new() -> None:
    chart = course_chart(RTM, CHANGES)
    assert [column.name for column in chart.columns] == [
        "run",
        "commit",
        "date",
        "median latency",
        "from",
        "to",
        "level",
        "what is new",
    ]
    run, commit, date, value, low, high, level, new = chart.rows[30]
    assert (run, commit, date, new) == (31, RTM.points[30].at.commit[:10], "2026-10-01", "+6.0 %")
    assert low < value < high  # type: ignore[operator]
    assert level == pytest.approx(4.08e6, rel=0.005)
    assert chart.rows[18][7] == "environment"
    assert chart.borders == ((19, "environment"),)
    assert chart.changes == (ChangeMark(31, "+6.0 %", "worse"),)


def test_a_doubtful_change_is_open() -> None:
    doubtful = course_chart(P95, CHANGES)
    assert (doubtful.changes[0].tone, doubtful.changes[0].label) == ("open", "+12.0 % ?")
    assert doubtful.rows[42][7] == "+12.0 % (new, unconfirmed)"


def test_ratios_are_changes_against_the_first_reference() -> None:
    chart = course_chart(RATIO, CHANGES)
    assert chart.title == "Median latency as a ratio"
    assert {column.unit for column in chart.columns[3:7]} == {"change"}
    assert abs(chart.rows[0][3]) < 0.02  # type: ignore[arg-type]


def test_the_title_of_a_rate_has_its_unit_and_unknown_metrics_have_their_name() -> None:
    assert course_chart(THROUGHPUT, ()).title == "Throughput in req/s"
    assert course_chart(MEMORY, ()).title == "Peak memory"
    assert course_chart(series_from("of_a_later_version", [1.0, 2.0]), ()).title == "of_a_later_version"


def test_of_a_long_course_the_last_runs_are_drawn_with_their_own_numbers() -> None:
    series = series_from("rtm", [1.0] * (MOST_RUNS + 50))
    chart = course_chart(series, ())
    assert len(chart.rows) == MOST_RUNS
    assert (chart.rows[0][0], chart.rows[-1][0]) == (51, MOST_RUNS + 50)
    assert f"the last {MOST_RUNS} of {MOST_RUNS + 50} runs" in chart.summary


def test_the_machine_is_named_where_a_test_ran_on_several() -> None:
    one, two = (series_from("rtm", [1.0, 1.0, 1.2], machine=name) for name in ("runner A", "runner B"))
    page = Reader(history_page([one, two], [change_of(two, 2, (1.2, 1.1, 1.3))]))
    assert page.text.count("on runner B") == 1
    assert "on runner A" not in page.text
    assert "runner B; 3 runs" in page.text


def test_text_of_users_stays_text_and_nothing_is_loaded() -> None:
    hostile = replace(UNKNOWN, test=HOSTILE, machine=HOSTILE, metric=HOSTILE)
    text = history_page([hostile], (), HOSTILE)
    page = Reader(text)
    assert page.text.count("alert(1)") >= 3
    assert not {"script", "img", "link", "iframe", "form"} & {tag for tag, _ in page.tags}
    assert all((attributes.get("href") or "#").startswith("#") for _, attributes in page.tags)
    assert 'content="default-src ' in text


def test_an_empty_history_is_a_page() -> None:
    page = Reader(history_page((), (), "perf-history.jsonl"))
    assert "The history has no runs yet." in page.text
    assert "svg" not in {tag for tag, _ in page.tags}


def test_a_course_of_ratios_alone_is_shown() -> None:
    page = Reader(history_page([replace(RATIO, course=Course.RATIOS)], CHANGES))
    assert "now +6.0 % ±" in page.text
