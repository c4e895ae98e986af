"""Properties of a model beside its load."""

import pytest
from hypothesis import given
from hypothesis import strategies as st


def doubled(batch):
    return [2 * value for value in batch]


@given(st.lists(st.integers()))
def test_property(values):
    assert sum(doubled(values)) == 2 * sum(values)


@pytest.mark.perf(duration="200ms", warmup="0s", launches=1)
def test_load(perf):
    perf.assert_rtm_below("60s")
