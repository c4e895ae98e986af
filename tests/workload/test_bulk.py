"""Bulk loads: chunks of the inputs as requests, once each and in their order; what cannot be sent so is refused."""

from __future__ import annotations

import json
import pickle
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import FEW

from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.experiment import load_plan, read_inputs, setup_of
from pytest_mlpatterns.measurement.answer_check import of_inputs
from pytest_mlpatterns.wire import REST_JSON, Wire
from pytest_mlpatterns.workload.input_order import InOrder, Uniform, Zipf
from pytest_mlpatterns.workload.payload import Payload, read_chunks
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.request_builder import RequestBuilder
from pytest_mlpatterns.workload.schedule import Bulk, ClosedLoop
from pytest_mlpatterns.workload.window_plan import RequestWindow

MS = 1_000_000


def sent(payload: Payload) -> list[Any]:
    """The inputs of each request, as its body has them."""
    return [json.loads(message.partition(b"\r\n\r\n")[2])["instances"] for message in payload.messages("h", 80, "/p")]


def test_a_bulk_load_is_a_value_that_prints_what_it_sends() -> None:
    bulk = Bulk(chunk=100)
    assert str(bulk) == "bulk(chunk=100, concurrency=2)"
    assert pickle.loads(pickle.dumps(bulk)) == bulk == Bulk(100, 2)
    assert hash(bulk) == hash(Bulk(100))
    assert (bulk.closed, bulk.length_ns, bulk.callers) == (True, None, ClosedLoop(2))


@pytest.mark.parametrize(
    ("make", "found", "expected"),
    [
        (lambda: Bulk(0), "Bulk(chunk=0)", "a whole number from 1 to 1,000,000"),
        (lambda: Bulk("5"), "Bulk(chunk='5')", "write 5, without quotes"),
        (lambda: Bulk(10, concurrency=0), "Bulk(concurrency=...) is 0", "requests in flight"),
    ],
)
def test_an_impossible_bulk_load_is_named_with_what_is_possible(make: Any, found: str, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value).startswith(found)
    assert expected in str(caught.value)


@FEW
@given(inputs=st.lists(st.integers(), min_size=1, max_size=40), chunk=st.integers(1, 45))
def test_chunks_have_every_input_once_in_its_order(inputs: list[int], chunk: int) -> None:
    payload = read_chunks(inputs, Bulk(chunk))
    assert [one for part in sent(payload) for one in part] == inputs
    assert {len(part) for part in sent(payload)[:-1]} <= {chunk}
    assert payload.sizes == tuple(map(len, sent(payload)))
    assert payload.order() == b""
    assert payload.bare().sizes == payload.sizes
    assert sent(payload.at("")) == sent(payload)


def test_a_request_of_the_user_gets_the_inputs_of_a_chunk() -> None:
    builder = RequestBuilder(lambda rows: {"json": {"rows": rows}}, "/score")
    payload = read_chunks(InOrder([1, 2, 3]), Bulk(2), path="/score", builder=builder)
    bodies = [json.loads(message.partition(b"\r\n\r\n")[2]) for message in payload.messages("h", 80, "/score")]
    assert bodies == [{"rows": [1, 2]}, {"rows": [3]}]
    again = payload.at("/other", RequestBuilder(lambda rows: {"json": rows}, "/other"))
    assert again.messages("h", 80, "/other")[1].endswith(b"[3]")


def test_a_chunk_is_named_by_its_inputs() -> None:
    payload = read_chunks(range(5), Bulk(2))
    assert [payload.name_of(number) for number in range(3)] == [
        "perf_payload items 0 to 1",
        "perf_payload items 2 to 3",
        "perf_payload items 4 to 4",
    ]


@pytest.mark.parametrize(
    ("inputs", "wire", "expected"),
    [
        ([], REST_JSON, "perf_payload is empty"),
        (
            Uniform([1, 2]),
            REST_JSON,
            "perf_payload is Uniform(...) under bulk(chunk=2, concurrency=2), which sends",
        ),
        (Zipf([1, 2]), REST_JSON, "perf_payload is Zipf(...) under bulk("),
        (["a"], Wire("openai", "json"), "whose requests carry one input each"),
        ([httpx.Request("POST", "/x")], REST_JSON, "contains httpx.Request objects under bulk("),
        ([1, 2, object()], REST_JSON, "perf_payload items 2 to 2 is object, which cannot be sent over"),
        ([1, object()], REST_JSON, "perf_payload items 0 to 1 cannot be sent in one request over"),
        ([1.0, float("nan")], REST_JSON, "perf_payload items 0 to 1 "),
    ],
)
def test_inputs_that_cannot_be_sent_once_in_chunks_are_refused(inputs: Any, wire: Wire, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_chunks(inputs, Bulk(2), wire)
    assert expected in str(caught.value)


def test_the_window_of_a_bulk_load_has_every_request_and_time_for_each() -> None:
    payload = read_chunks(range(1000), Bulk(10))
    plan = LoadPlan(payload, ClosedLoop(2), 700 * MS, 0, 10_000 * MS, None, once=True)
    assert plan.window_plan(0, 100) == RequestWindow(100, 0, 1_000_000 * MS)


def test_a_check_sees_inputs_and_outputs_of_chunks_one_by_one() -> None:
    payload = read_chunks(["a", "b", "c"], Bulk(2))
    assert of_inputs(payload, [1, 0], [["C"], ["A", "B"]]) == (["c", "a", "b"], ["C", "A", "B"])
    with pytest.raises(ValueError, match="perf_payload items 0 to 1 got 1 outputs, expected 2"):
        of_inputs(payload, [0], [["A"]])
    built = read_chunks([1, 2, 3], Bulk(2), builder=RequestBuilder(lambda rows: {"json": rows}, "/"))
    assert of_inputs(built, [1], [{"sum": 3}]) == ([[3]], [{"sum": 3}])


def test_a_class_that_is_a_bulk_load_is_sent_as_chunks_and_a_plain_one_is_not() -> None:
    bulk = read_settings({"load": Bulk(2)}, {}, {})
    payload = read_inputs(bulk, [1, 2, 3], None)
    plan = load_plan(bulk, payload)
    assert (plan.schedule, plan.once, plan.warmup_ns, payload.sizes) == (ClosedLoop(2), True, 0, (2, 1))
    setup = setup_of(bulk, payload, None, model="")
    assert (str(setup.load), setup.duration) == ("bulk(chunk=2, concurrency=2)", "")
    alone = read_settings({"concurrency": 3}, {}, {})
    assert (load_plan(alone, read_inputs(alone, [1], None)).once, read_inputs(alone, [1], None).sizes) == (False, ())
