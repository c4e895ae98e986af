"""What one request of a smoke run records, and what the result of a user's check comes to."""

from typing import Any

import httpx
import numpy as np
import pytest
from support.each_row import each_row
from support.synthetic import S

from pytest_mlpatterns import Deployment, DeploymentError, InvalidResultError, SettingError
from pytest_mlpatterns.measurement.answer_check import check_answers, check_outputs, send_one
from pytest_mlpatterns.measurement.load_source import CallLoop
from pytest_mlpatterns.measurement.system_under_test import checked_setup, checked_target, is_alone
from pytest_mlpatterns.patterns import Cached, Single
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.serving.targets import App, Url
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

BODY = b'{"predictions": [7]}'


def deployment(response: httpx.Response | None = None) -> Deployment:
    """One whose server answers so; None: it cannot be reached."""

    def answer(_: httpx.Request) -> httpx.Response:
        if response is None:
            raise httpx.ConnectError("refused")
        return response

    found = Deployment(Endpoint((("127.0.0.1", 1),), "/v1/models/m:predict", "m"), ForeignProcesses())
    found._clients = [httpx.Client(transport=httpx.MockTransport(answer), base_url="http://service")]
    return found


def plan(check: Any = None) -> LoadPlan:
    return LoadPlan(read_payload([[5]]), ClosedLoop(1), S, 0, S, check)


@each_row(("status", "failure"), (200, None), (503, "perf_payload item 0 -> out of memory"))
def test_a_smoke_run_records_one_request_and_its_failure(status: int, failure: str | None) -> None:
    body = BODY if status == 200 else b'{"error": "out of memory"}'
    found = send_one(deployment(httpx.Response(status, content=body)), plan())
    assert found.samples.outcome.tolist() == [status]
    assert found.samples.received_bytes.tolist() == [len(body)]
    assert found.request_bytes.tolist() == [len(b'{"instances":[[5]]}')]
    assert found.samples.due_in(found.window).tolist() == [True]
    assert found.samples.done_ns[0] < found.window.end_ns
    assert (found.open_loop, found.generator.completed, found.generator.connections) == (False, 1, 1)
    assert (found.generator.cpu_ns, found.warmup.duration_ns, found.warmup.requests) == (0, 0, 0)
    assert (found.first_failure and str(found.first_failure)) == failure


def test_a_smoke_run_checks_its_answer() -> None:
    seen: list[Any] = []
    send_one(deployment(httpx.Response(200, content=BODY)), plan(lambda *both: seen.append(both)))
    assert seen == [([[5]], [7])]
    with pytest.raises(InvalidResultError, match="check= has no successful answer to check"):
        send_one(deployment(httpx.Response(503, content=BODY)), plan(bool))
    with pytest.raises(DeploymentError, match=r"http://127\.0\.0\.1:1.*refused"):
        send_one(deployment(), plan())


def test_answers_that_are_all_too_long_to_keep_are_not_called_failures() -> None:
    with pytest.raises(InvalidResultError, match=r"check= keeps at most .* every answer is longer"):
        check_answers(deployment(), plan(bool), [], are_cut=True)


async def later() -> bool:
    raise AssertionError


@each_row(
    ("verdict", "error", "words"),
    (None, None, ""),
    (True, None, ""),
    (np.array([True, True]), None, ""),
    (False, AssertionError, "returned False for 2 answers from under load"),
    ([True, False], AssertionError, "returned"),
    (1, SettingError, "returned 1, expected None, True, False or an array"),
    ([[True], [True, False]], SettingError, "expected None, True"),
    (later, SettingError, "check= returned an unfinished coroutine"),
)
def test_a_check_passes_or_says_what_it_returned(verdict: Any, error: type[Exception] | None, words: str) -> None:
    def check(_inputs: Any, _outputs: Any) -> Any:
        return verdict() if verdict is later else verdict

    if error is None:
        check_outputs(check, [1, 2], [3, 4])
        return
    with pytest.raises(error, match=words):
        check_outputs(check, [1, 2], [3, 4])


def test_what_a_test_names_as_service_and_set_up_is_checked() -> None:
    app = App("service:app")
    assert [checked_target(None, "perf_target"), checked_target(app, "perf_target")] == [None, app]
    with pytest.raises(SettingError, match="perf_target is 5, expected App"):
        checked_target(5, "perf_target")
    assert [checked_setup(None), checked_setup(len)] == [None, len]
    for value, words in ((5, "perf_setup is 5, expected a function"), (later, "perf_setup is later, an async")):
        with pytest.raises(SettingError, match=words):
            checked_setup(value)
    url = Url("http://127.0.0.1:1/predict")
    alone = [is_alone(Single(), *given) for given in ((None, None), ("model", None), (None, url))]
    assert [*alone, is_alone(Cached(), None, None)] == [True, False, False, False]


@each_row(("error", "words"), (None, ""), (TimeoutError, r"a call has not returned after 1.00 s, the time-out; raise"))
def test_calls_are_awaited_for_their_load_a_time_out_and_a_little_more(error: Any, words: str) -> None:
    class Calls:
        def loop(self, _job: Any, wait_s: float, on_poll: Any) -> str:
            assert wait_s == pytest.approx(3 + 1 + 5)
            on_poll()
            if error is not None:
                raise error
            return "done"

    job: Any = type("Job", (), {"most_ns": 3 * S, "timeout_ns": S})
    events: list[Any] = []
    loop = CallLoop(Calls())  # type: ignore[arg-type]
    if error is None:
        assert loop.run(job, poll_s=1.0, on_poll=events.append) == "done"
    else:
        with pytest.raises(DeploymentError, match=words):
            loop.run(job, poll_s=1.0, on_poll=events.append)
    assert (events[0].start_ns > 0, events[1:], loop.pids) == (True, [None], ())
