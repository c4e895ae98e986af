"""The session of Locust's plugin asks what a test has deployed; Locust patches threads and sockets of this process."""

import pytest


def test_session(session, perf_deploy):
    with perf_deploy("single") as deployment:
        url = f"{deployment.url}{deployment.path}"
        assert session.post(url, json={"instances": [4]}).json() == {"predictions": [8]}
        assert deployment.predict(5) == 10


@pytest.mark.perf(duration="200ms", warmup="0s", launches=1)
def test_load_after_it(perf):
    assert perf.predict(4) == 8
    perf.assert_rtm_below("60s")
    perf.assert_error_rate_below("1%")
