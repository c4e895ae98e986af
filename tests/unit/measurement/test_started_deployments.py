"""Deployments that start side by side: one that fails waits for no other, which ends itself once it has started."""

import threading
from typing import Any

import pytest

from pytest_mlpatterns import DeploymentError, LeftoverWarning
from pytest_mlpatterns.measurement.variant import Variant, started_deployments

PLAN: Any = "what is sent"


class Late:
    """A deployment that is ready once another start has failed; ``end``: what its closing raises, if anything."""

    def __init__(self, end: Exception | None) -> None:
        self.given_up = threading.Event()
        self.is_closed = False
        self._end = end

    def start(self) -> Any:
        assert self.given_up.wait(30)
        return self

    def close(self) -> None:
        self.is_closed = True
        if self._end is not None:
            raise self._end


@pytest.mark.parametrize("end", [None, DeploymentError("gone"), LeftoverWarning("a process was killed")])
def test_a_deployment_that_nobody_waits_for_is_closed_in_silence(
    end: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Any:
        raise DeploymentError("no port")

    late = Late(end)
    sides = [Variant("before", fail, PLAN), Variant("now", late.start, PLAN)]
    with pytest.raises(DeploymentError, match="before: no port"), started_deployments(sides):
        raise AssertionError("one has not started")
    (thread,) = (one for one in threading.enumerate() if one.name == "start of now")
    late.given_up.set()
    thread.join(30)
    assert late.is_closed
    assert not caplog.records
