"""The same model behind two servers: the engine is one word of the marker, the rest is as with any other."""

import pytest
from model import double


@pytest.fixture
def perf_model():
    return double


@pytest.fixture
def perf_payload():
    return list(range(100))


def right(numbers, doubles):
    assert doubles == [2 * number for number in numbers]


@pytest.mark.perf(engine="http_server", concurrency=2, check=right)
def test_behind_the_server_of_pythons_library(perf):
    perf.assert_error_rate_below("5%")
    perf.assert_rtm_below("500ms")


@pytest.mark.perf(concurrency=2, check=right)
def test_behind_the_local_engine(perf):
    perf.assert_error_rate_below("5%")
    perf.assert_rtm_below("500ms")
