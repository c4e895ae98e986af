"""A change as JSON."""

import json

from pytest_mlpatterns.records.history import Change, CommitPosition, Course


def test_a_change_is_plain_values_in_json() -> None:
    change = Change(
        test="t.py::test",
        metric="rtm",
        machine="",
        course=Course.RATIOS,
        factor=(1.042, 1.031, 1.053),
        is_worse=True,
        old=CommitPosition("a1b2c3", 7),
        new=CommitPosition("d4e5f6", 8),
        date="2026-10-03T12:00:00Z",
        is_confirmed=False,
        p_value=1e-5,
    )
    plain = change.to_json()
    assert (plain["course"], plain["factor"]) == ("ratios", [1.042, 1.031, 1.053])
    assert plain["old"] == {"commit": "a1b2c3", "position": 7}
    assert json.loads(json.dumps(plain)) == plain
