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
