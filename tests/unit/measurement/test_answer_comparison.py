"""Answers of two sides: what counts as equal, what is reported, and the user's check on the other side."""

import gzip
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from support.each_row import each_row

from pytest_mlpatterns import DeploymentError, InvalidResultError
from pytest_mlpatterns.measurement.answer_check import AnswerComparison, Side, are_alike, output_in
from pytest_mlpatterns.records.addressing import Answer
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.request_builder import RequestBuilder
from pytest_mlpatterns.workload.schedule import ClosedLoop


class Answers(Deployment):
    """Answers by a function of the input, without a server."""

    def __init__(self, answer: Callable[[int], Any], status: int = 200) -> None:
        super().__init__(Endpoint((("127.0.0.1", 1),), "/v1/models/m:predict"), ForeignProcesses())
        self._answer = answer
        self._status = status
        self.asked: list[int] = []

    def ask(self, client: httpx.Client, request: dict[str, Any], timeout_s: float) -> httpx.Response:
        import json

        (value,) = json.loads(request["content"])["instances"]
        self.asked.append(value)
        body = {"predictions": [self._answer(value)]}
        found = httpx.Request("POST", "http://127.0.0.1:1/")
        return httpx.Response(self._status, json=body, request=found)


class Silent(Answers):
    """Gives no answer."""

    def ask(self, client: httpx.Client, request: dict[str, Any], timeout_s: float) -> httpx.Response:
        raise httpx.ConnectError("refused")


def plan(check: Callable[[Sequence[Any], Sequence[Any]], object] | None = None, inputs: object = None) -> LoadPlan:
    payload = read_payload([1, 2, 3] if inputs is None else inputs)
    return LoadPlan(payload, ClosedLoop(1), 10**9, 0, 10**9, check)


def comparison(check: Callable[[Sequence[Any], Sequence[Any]], object] | None = None) -> AnswerComparison:
    return AnswerComparison(Side("cached", plan(check)), Side("App('b:app')", plan(check)))


def difference(first: Answers, second: Answers) -> str:
    found = comparison()
    found.look(first, second)
    return found.difference


@each_row(
    ("first", "second", "alike"),
    (1, 1.0, True),
    (0.1 + 0.2, 0.3, True),
    (float(np.float32(0.1)), 0.1, True),
    (1.0, 1.001, False),
    (float("nan"), float("nan"), True),
    (float("nan"), 1.0, False),
    (1, True, False),
    ("a", "a", True),
    ("1", 1, False),
    (None, None, True),
    ([1, 2], (1, 2), True),
    ([1, 2], [1, 2, 3], False),
    (np.ones(2), [1.0, 1.0], True),
    ({"a": [1], "b": 0}, {"b": 0, "a": [1.0]}, True),
    ({"a": 1}, {"b": 1}, False),
    ({"a": 1}, [1], False),
)
def test_answers_are_alike_but_for_the_last_digits(first: object, second: object, alike: bool) -> None:
    assert are_alike(first, second) is alike
    assert are_alike(second, first) is alike


def test_equal_answers_are_not_reported() -> None:
    assert difference(Answers(lambda value: value * 2), Answers(lambda value: value * 2.0)) == ""


def test_the_first_answers_that_differ_name_the_input_and_both_sides() -> None:
    assert (
        difference(Answers(lambda value: value), Answers(lambda value: value if value < 2 else -value))
        == "the answers differ: to perf_payload item 1 cached gave 2, App('b:app') -2"
    )


def test_a_side_that_refuses_an_input_answers_differently() -> None:
    assert difference(Answers(lambda value: value), Answers(lambda value: value, status=422)).endswith(
        "cached gave 1, App('b:app') status 422"
    )


def test_long_answers_are_cut_in_the_report() -> None:
    assert len(difference(Answers(lambda _: "x" * 1000), Answers(lambda _: "y" * 1000))) < 300


def test_few_inputs_are_asked_of_many() -> None:
    sides = Side("a", plan(inputs=list(range(1000)))), Side("b", plan(inputs=list(range(1000))))
    first, second = Answers(lambda value: value), Answers(lambda value: value)
    AnswerComparison(*sides).look(first, second)
    assert first.asked == second.asked == list(range(8))


def test_a_check_sees_the_answers_of_the_other_side_and_replaces_the_comparison() -> None:
    seen: list[tuple[Sequence[Any], Sequence[Any]]] = []
    found = comparison(lambda inputs, outputs: seen.append((inputs, outputs)))
    found.look(Answers(lambda value: value), Answers(lambda value: -value))
    assert seen == [([1, 2, 3], [-1, -2, -3])]
    assert found.difference == ""


def test_a_failing_check_has_a_note_that_names_the_other_side() -> None:
    def check(_inputs: object, outputs: Sequence[Any]) -> None:
        assert min(outputs) > 0

    with pytest.raises(AssertionError) as raised:
        comparison(check).look(Answers(lambda value: value), Answers(lambda value: -value))
    assert raised.value.__notes__ == ["these are answers of App('b:app')"]


def test_a_check_that_cannot_read_an_answer_names_the_side() -> None:
    class Broken(Answers):
        def ask(self, client: httpx.Client, request: dict[str, Any], timeout_s: float) -> httpx.Response:
            return httpx.Response(200, content=b"{", request=httpx.Request("POST", "http://127.0.0.1:1/"))

    with pytest.raises(InvalidResultError, match=r"App\('b:app'\): check= could not read an answer"):
        comparison(lambda _inputs, _outputs: None).look(Answers(lambda value: value), Broken(lambda value: value))


def test_a_side_without_an_answer_is_named() -> None:
    with pytest.raises(DeploymentError, match=r"App\('b:app'\): "):
        comparison().look(Answers(lambda value: value), Silent(lambda value: value))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity"])
def test_a_check_sees_a_compressed_answer_as_the_service_wrote_it(coding: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[coding]
    deployment = Deployment(Endpoint((("127.0.0.1", 1),), "/predict", "m"), ForeignProcesses())
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: {coding}".encode()
    builder = RequestBuilder(lambda text: {"json": text}, "/predict")
    payloads = (read_payload(["a"]), read_payload(["a"], builder=builder), read_payload([builder("a")]))
    body = b'{"predictions": [7]}'
    answered = Answer(0, pack(body), head)
    found = [output_in(answered, deployment, payload) for payload in payloads]
    assert found == [7, {"predictions": [7]}, body]
    if coding != "identity":
        with pytest.raises(ValueError, match=f"the body is not {coding}"):
            output_in(Answer(0, b"no", head), deployment, payloads[1])
