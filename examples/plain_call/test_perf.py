"""What a server costs: it answers at least a third as often as the library that it serves can be called."""

import pytest
from model import DIGITS, PlainCall

from pytest_mlpatterns import App


@pytest.fixture
def perf_target():
    return App("service:app", path="/classify")


@pytest.fixture
def perf_payload():
    pictures = DIGITS.data.tolist()
    return [pictures[first : first + 32] for first in range(0, 320, 32)]  # each input is a batch of 32


def right(batches, answers):
    """Answers from under load are those of the library."""
    assert answers == PlainCall()(batches)


@pytest.mark.perf(duration="1s", request=lambda pictures: {"json": pictures}, check=right)
def test_cost_of_the_server(perf):
    perf.assert_not_slower_than(reference=PlainCall, on="throughput", by=3.0)
