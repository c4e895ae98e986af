"""A history as JSON for programs."""

import json

from support.histories import CHANGES, SERIES, series_from

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
