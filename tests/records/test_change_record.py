"""A change as JSON and back."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY

from pytest_mlpatterns.records.change import Change, ChangeForm, Course
from pytest_mlpatterns.records.history import CommitPosition

NUMBERS = st.floats(1e-6, 1e6)
COMMITS = st.builds(CommitPosition, st.text("0123456789abcdef", max_size=40), st.integers(0, 10**6))
CHANGES = st.builds(
    Change,
    test=st.text(),
    metric=st.text(),
    machine=st.text(),
    course=st.sampled_from(Course),
    form=st.sampled_from(ChangeForm),
    factor=st.tuples(NUMBERS, NUMBERS, NUMBERS),
    is_worse=st.booleans(),
    old=COMMITS,
    new=COMMITS,
    date=st.text(),
    is_confirmed=st.booleans(),
    p_value=st.floats(0, 1),
)


@PROPERTY
@given(CHANGES)
def test_a_change_comes_back_from_json_as_it_was(change: Change) -> None:
    assert Change.from_json(json.loads(json.dumps(change.to_json()))) == change


def test_a_change_is_plain_values_in_json() -> None:
    change = Change(
        test="t.py::test",
        metric="rtm",
        machine="",
        course=Course.RATIOS,
        form=ChangeForm.STEP,
        factor=(1.042, 1.031, 1.053),
        is_worse=True,
        old=CommitPosition("a1b2c3", 7),
        new=CommitPosition("d4e5f6", 8),
        date="2026-10-03T12:00:00Z",
        is_confirmed=False,
        p_value=1e-5,
    )
    plain = change.to_json()
    assert (plain["course"], plain["form"], plain["factor"]) == ("ratios", "step", [1.042, 1.031, 1.053])
    assert plain["old"] == {"commit": "a1b2c3", "position": 7}
    assert Change.from_json(plain) == change
