"""The first failed input of a launch and its error: from the model's traceback, or from a second attempt."""

from typing import Any

import httpx
import numpy as np
from support.each_row import each_row
from support.synthetic import MS, START_NS, samples

from pytest_mlpatterns import Deployment
from pytest_mlpatterns.measurement.last_answer import describe_first_failure
from pytest_mlpatterns.records.outcomes import FailedAnswer, Failure, FirstFailure
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload

TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in model\nZeroDivisionError: division by zero'
OTHER = 'Traceback (most recent call last):\n  File "a.py", line 1, in model\nKeyError: 3'


class Answering(Deployment):
    """A deployment whose server answers so, and remembers what was asked."""

    def __init__(self, response: httpx.Response | None = None) -> None:
        super().__init__(Endpoint((("127.0.0.1", 1),), "/v1/models/m:predict", "m"), ForeignProcesses())
        self.asked: list[bytes] = []

        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(request.read())
            if response is None:
                raise httpx.ReadTimeout("no answer")
            return response

        self._clients = [httpx.Client(transport=httpx.MockTransport(answer), base_url="http://service")]


def first_failure(
    deployment: Deployment, outcome: Any = (500, 200, 503, 500), *tracebacks: str, **answers: FailedAnswer
) -> FirstFailure | None:
    """Requests of items 3, 2, 1, 0, of which the first was due before the window; ``answers`` by their failure."""
    due = START_NS + np.arange(-1, 3) * MS
    found = samples(due, MS, outcome=outcome, request=[3, 2, 1, 0])
    payload = read_payload([[0], [10], [20], [30]])
    return describe_first_failure(
        deployment,
        payload,
        found,
        window=Window(START_NS, START_NS + 4 * MS),
        stats=PatternStats(tracebacks=tuple(tracebacks)),
        answers={Failure[name]: answer for name, answer in answers.items()},
    )


def test_model_with_one_error_is_not_asked_again() -> None:
    deployment = Answering()
    found = first_failure(deployment, (500, 200, 500, 500), TRACEBACK)
    assert str(found) == "perf_payload item 1 -> ZeroDivisionError: division by zero"
    assert deployment.asked == []


MISSING = {
    "detail": [
        {"loc": ["body", "pixels"], "msg": "Field required", "input": [0] * 1000},
        {"loc": ["body", "user"], "msg": "an int"},
    ]
}


@each_row(
    ("response", "error"),
    (httpx.Response(500, json={"error": "the model raised KeyError: 3"}), "KeyError: 3"),
    (httpx.Response(422, json={"detail": [{"msg": "a number"}]}), "a number"),
    (httpx.Response(422, json=MISSING), "body.pixels: Field required; body.user: an int"),
    (httpx.Response(400, text="no\nsuch thing"), "no such thing"),
    (httpx.Response(500, json=[1]), "[1]"),
    (httpx.Response(500), "500"),
    (httpx.Response(200, json={"predictions": [1]}), "503"),
    (None, "503"),
)
@each_row("tracebacks", [(), (TRACEBACK, OTHER)])
def test_request_is_sent_again(response: httpx.Response | None, error: str, tracebacks: tuple[str, ...]) -> None:
    deployment = Answering(response)
    assert str(first_failure(deployment, (500, 200, 503, 500), *tracebacks)) == f"perf_payload item 1 -> {error}"
    assert deployment.asked == [b'{"instances":[[10]]}']


def test_time_out_is_not_waited_for_again() -> None:
    deployment = Answering()
    assert first_failure(deployment, (200, 200, -1, 500), TRACEBACK) == FirstFailure("perf_payload item 1", "time-out")
    assert deployment.asked == []


def test_what_the_answer_under_load_said_is_not_asked_for_again() -> None:
    deployment = Answering()
    outcome, said = (200, 200, Failure.NO_STREAM, 500), FailedAnswer(2, "text/html: <html>")
    assert str(first_failure(deployment, outcome, NO_STREAM=said)) == "perf_payload item 2 -> text/html: <html>"
    assert str(first_failure(deployment, outcome, TRACEBACK, NO_STREAM=said)).endswith("division by zero")
    assert deployment.asked == []


@each_row("failure", [failure for failure in Failure if failure.is_answer])
def test_an_answer_that_does_not_count_is_asked_for_again_if_it_said_nothing(failure: Failure) -> None:
    assert str(first_failure(Answering(), (200, 200, failure, 500))) == f"perf_payload item 1 -> {failure.label}"


def test_nothing_failed_in_the_window() -> None:
    assert first_failure(Answering(), (500, 200, 200, 200)) is None
