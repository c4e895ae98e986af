"""The load generator over the selectors of other systems: macOS has kqueue and no timer descriptors."""

import selectors
import sys
import threading

import numpy as np
import pytest
from support.services.jobs import MS, a_job, message
from support.services.scripted import Hold, Request, ScriptedServer, Send, Step, answer, refused_port

from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.records.samples import Samples
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate


class KqueueLike(selectors.SelectSelector):
    """Reports as kqueue does: what can be written and what can be read as two events, though of one socket."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(timeout)
        kinds = (selectors.EVENT_WRITE, selectors.EVENT_READ)
        return [(key, mask & kind) for key, mask in found for kind in kinds if mask & kind]


@pytest.fixture(autouse=True, params=[selectors.SelectSelector, selectors.PollSelector, KqueueLike])
def _other_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", request.param)
    monkeypatch.setattr(sys, "platform", "darwin")


def drive(job: LoadJob) -> Samples:
    return samples_of(LoadLoop(job, lambda _: None).run())


def test_a_closed_loop_has_as_many_requests_in_flight_as_callers() -> None:
    everybody = threading.Event()

    def script(request: Request) -> list[Step]:
        if request.number == 3:
            everybody.set()
        return [Hold(everybody), Send(answer())]

    with ScriptedServer(script) as server:
        samples = drive(a_job([server.address], ClosedLoop(4)))
    assert server.peak_in_flight == 4
    assert set(samples.outcome.tolist()) == {200}
    assert len(samples.due_ns) == len(server.requests)


def test_an_open_loop_sends_each_request_once_and_none_before_it_is_due() -> None:
    with ScriptedServer() as server:
        samples = drive(a_job([server.address], ConstantRate(50), duration_ns=200 * MS))
    assert np.diff(np.sort(samples.due_ns)).tolist() == [20 * MS] * (len(server.requests) - 1)
    assert len(samples.due_ns) == len(server.requests) >= 10
    assert (samples.sent_ns >= samples.due_ns).all()


def test_a_request_longer_than_a_socket_takes_at_once_arrives_whole() -> None:
    long = message(b"x" * 8_000_000)
    with ScriptedServer() as server:
        samples = drive(a_job([server.address], ClosedLoop(1), messages=(long,)))
    assert set(samples.outcome.tolist()) == {200}
    assert {len(request.body) for request in server.requests} == {8_000_000}


def test_a_connection_that_is_refused_is_a_failure() -> None:
    samples = drive(a_job([("127.0.0.1", refused_port())], ClosedLoop(1)))
    assert len(samples.outcome) > 0
    assert (samples.outcome < 0).all()
