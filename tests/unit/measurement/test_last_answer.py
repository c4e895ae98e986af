"""Whether a deployment still answers after a load: only one that gives no further answer is dead."""

import json
import os
from typing import Any

import httpx
import numpy as np
import pytest
from support.each_row import each_row
from support.synthetic import MS, START_NS, S, samples

from pytest_mlpatterns import Deployment, DeploymentError, InvalidResultError
from pytest_mlpatterns.measurement import last_answer
from pytest_mlpatterns.measurement.last_answer import require_answer, require_every_answer, why_silent
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, Schedule

WINDOW = Window(START_NS, START_NS + 3 * S)
TIMEOUT_NS = 10 * S


class Processes(ForeignProcesses):
    """Processes of which one has ended, if they are dead."""

    def __init__(self, pids: tuple[int, ...], *, dead: bool) -> None:
        super().__init__(pids)
        self._dead = dead

    def stats(self) -> PatternStats:
        if self._dead:
            raise DeploymentError("process 7 ended with signal SIGKILL")
        return PatternStats()


class Service(Deployment):
    """A deployment at two addresses that answers with a status, or with what goes wrong; remembers what was asked."""

    def __init__(self, *answers: int | Exception, dead: bool = False) -> None:
        addresses = (("127.0.0.1", 1), ("127.0.0.1", 2))
        super().__init__(Endpoint(addresses, "/v1/models/m:predict", "m"), Processes((os.getpid(),), dead=dead))
        self.asked: list[tuple[str, bytes]] = []
        self._answers = list(answers)
        self._clients = [
            httpx.Client(transport=httpx.MockTransport(self._answer), base_url=f"http://{number}")
            for number in range(2)
        ]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.host, request.read()))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer)


def load(callers: int, *, silent: int, answered: int = 500, outcome: int = Failure.TIMEOUT) -> Samples:
    """Answers in the first two seconds, then ``silent`` callers without one; the others are answered to the end."""
    due = START_NS + np.arange(answered) * (2 * S // answered)
    last = np.full(silent, START_NS + 2 * S)
    others = np.full(callers - silent, WINDOW.end_ns - MS)
    return samples(
        [*due, *last, *others],
        [*([MS] * answered), *([TIMEOUT_NS] * silent), *([2 * MS] * (callers - silent))],
        outcome=[*([200] * answered), *([outcome] * silent), *([200] * (callers - silent))],
        request=[*(np.arange(answered) % 2), *([1] * silent), *([0] * (callers - silent))],
    )


def why(service: Service, of: Samples, schedule: Schedule | None = None, **how: Any) -> str:
    plan = LoadPlan(read_payload([[0], [10]]), schedule or ClosedLoop(4), 3 * S, None, TIMEOUT_NS, None)
    return why_silent(service, plan, of, window=WINDOW, **how)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between two requests, and few of them."""
    monkeypatch.setattr(last_answer, "_PAUSE_S", 0.0)
    monkeypatch.setattr(last_answer, "_RETRY_S", 0.01)


def test_where_every_caller_timed_out_no_more_is_asked() -> None:
    service = Service(200)
    assert why(service, load(4, silent=4)) == (
        "no answer since 2.00 s of the window: all 4 callers timed out after 10.0 s"
    )
    assert service.asked == []


@each_row("status", [200, 404, 503])
@each_row("callers", [1, 4])
def test_a_service_that_answers_one_more_request_lost_one_and_lives(callers: int, status: int) -> None:
    service = Service(status)
    assert why(service, load(callers, silent=1), ClosedLoop(callers)) == ""
    ((host, body),) = service.asked
    assert host == "0"
    assert json.loads(body)["instances"] == ([[0]] if callers == 4 else [[10]])  # what was answered last


@pytest.mark.parametrize(
    ("callers", "said"),
    [
        (1, "no answer since 2.00 s of the window: the only caller timed out after 10.0 s"),
        (4, "the service no longer answers: 1 last request without an answer (time-out: 1)"),
    ],
)
def test_a_service_that_does_not_answer_one_more_request_is_dead(callers: int, said: str) -> None:
    service = Service(httpx.ReadTimeout("no answer"))
    assert why(service, load(callers, silent=1), ClosedLoop(callers)) == (
        f"{said}; one more request got no answer within 10.0 s"
    )


def test_a_service_that_refuses_connections_for_a_moment_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_answer, "_RETRY_S", 60.0)  # so that a slow first attempt does not end them
    service = Service(httpx.ConnectError("refused"), 200)
    assert why(service, load(2, silent=2, outcome=Failure.CONNECT), ClosedLoop(2)) == ""
    assert len(service.asked) == 2


def test_an_open_loop_is_asked_too() -> None:
    assert why(Service(200), load(8, silent=8), ConstantRate(200)) == ""
    assert "no longer answers: 8 last requests" in why(
        Service(httpx.ReadTimeout("no answer")), load(8, silent=8), ConstantRate(200)
    )


@pytest.mark.parametrize(
    ("of", "schedule"),
    [(load(8, silent=8, answered=50), ConstantRate(200)), (load(4, silent=0), ClosedLoop(4))],
    ids=["many failed", "answered to the end"],
)
def test_a_service_whose_state_is_known_is_not_asked(of: Samples, schedule: Schedule) -> None:
    service = Service(httpx.ReadTimeout("no answer"))
    assert why(service, of, schedule) == ""
    assert service.asked == []


@pytest.mark.parametrize(("answer", "dead"), [(200, False), (httpx.ReadTimeout("no answer"), True)])
def test_after_a_search_only_one_more_request_tells(answer: int | Exception, dead: bool) -> None:
    found = why(Service(answer), load(4, silent=4), owed_s=10.0)
    assert bool(found) is dead
    assert not dead or found.endswith("one more request got no answer within 20.0 s")


def test_a_process_that_is_stopped_or_gone_is_named_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeploymentError, match="process 7 ended with signal SIGKILL"):
        why(Service(200, dead=True), load(4, silent=1))
    monkeypatch.setattr(last_answer, "describe_stopped", lambda roots: f"process {roots[0]} is stopped")
    service = Service(200)
    with pytest.raises(DeploymentError, match=rf"1 last request .*; process {os.getpid()} is stopped"):
        why(service, load(4, silent=1))
    assert service.asked == []
    assert why(Service(200), load(4, silent=0)) == ""


@pytest.mark.parametrize(("owed_s", "waited"), [(0.0, "20.0 s"), (18.0, "28.0 s")])
def test_a_load_beyond_the_capacity_waits_for_the_backlog_before_a_service_is_dead(owed_s: float, waited: str) -> None:
    plan = LoadPlan(read_payload([[0], [10]]), ConstantRate(200), 3 * S, None, TIMEOUT_NS, None)
    dead, alive = Service(httpx.ReadTimeout("no answer")), Service(503)
    of = load(8, silent=8, answered=8)  # so many failed that a load that is meant to be sustained asks no more
    require_answer(alive, plan, of, window=WINDOW, when="after a peak", owed_s=owed_s)
    with pytest.raises(InvalidResultError, match=f"after a peak the service no longer answers: .* within {waited}"):
        require_answer(dead, plan, of, window=WINDOW, when="after a peak", owed_s=owed_s)
    assert len(alive.asked) == 1


def test_every_address_is_asked_after_a_scale_out() -> None:
    plan = LoadPlan(read_payload([[0], [10]]), ClosedLoop(4), 3 * S, None, TIMEOUT_NS, None)
    alive = Service(200)
    require_every_answer(alive, plan, when="after it")
    assert [host for host, _ in alive.asked] == ["0", "1"]
    with pytest.raises(InvalidResultError, match=r"after it the service no longer answers: one more request got no"):
        require_every_answer(Service(200, httpx.ConnectError("refused")), plan, when="after it")
