"""Batches whose model fails, and callers who disconnect: which requests get an error."""

import asyncio
import gc
import math
import pickle
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batching import (
    NEVER,
    Model,
    Recording,
    ask_each,
    batching,
    call_once,
    complaints,
    counters,
    doubled,
    jumping,
    now_ns,
    outcomes,
)
from support.caching import caching
from support.each_row import each_row
from support.scenarios import Panic, run, settle
from support.synthetic import MS, PROPERTY

from pytest_mlpatterns.patterns.batched import BatchLayer
from pytest_mlpatterns.patterns.layer import DecodedInputs, LostError, RequestError
from pytest_mlpatterns.serving.http.app import ModelApp
from pytest_mlpatterns.serving.http.model_caller import ModelCaller
from pytest_mlpatterns.wire import Wire, codec_of, decode_answer, encode_request

# --- who fails


def refuse(bad: frozenset[int]) -> Callable[[list[Any]], None]:
    def check(inputs: list[Any]) -> None:
        if found := bad.intersection(inputs):
            raise ValueError(f"cannot take {min(found)}")

    return check


@PROPERTY
@given(st.integers(2, 40), st.sets(st.integers(0, 39), max_size=4))
def test_only_the_bad_inputs_of_a_batch_fail_and_they_are_found_by_halving(count: int, drawn: set[int]) -> None:
    bad = frozenset(number for number in drawn if number < count)

    async def scenario() -> None:
        model = Recording(refuse(bad))
        layer, tally = batching(model, size=64)
        found = await outcomes(ask_each(layer, range(count)))
        for number, outcome in enumerate(found):
            if number in bad:
                assert isinstance(outcome, ValueError)
                assert str(outcome) == f"cannot take {number}"
            else:
                assert outcome == [2 * number]
        assert len(model.given) <= 1 + 2 * len(bad) * math.ceil(math.log2(count))
        stats = tally.snapshot()
        assert stats.counters["calls"] == len(model.given)
        assert stats.counters.get("failed_alone", 0) == (len(bad) if len(bad) < count else 0)
        assert sum(value * times for value, times in stats.histograms["size"].items()) == stats.counters["items"]

    run(scenario())


async def test_a_bad_input_fails_alone_in_a_plain_model_and_all_of_its_request_with_it() -> None:
    def model(inputs: list[int]) -> list[int]:
        refuse(frozenset({13}))(inputs)
        return doubled(inputs)

    layer, tally = batching(model)
    good, bad, other = await outcomes([layer([1, 2]), layer([12, 13]), layer([3])])
    assert (good, other) == ([2, 4], [6])
    assert isinstance(bad, ValueError)
    assert counters(tally)["failed_alone"] == 2


def scaled_in_place(inputs: list[list[float]]) -> list[float]:
    """A model with preprocessing that writes into its inputs; a negative input fails after that."""
    for one in inputs:
        one[:] = [10 * value for value in one]
    if any(one[0] < 0 for one in inputs):
        raise ValueError("a negative input")
    return [one[0] for one in inputs]


async def test_model_that_changes_its_inputs_in_place_answers_every_healthy_caller_rightly() -> None:
    """A stage has no bytes to decode again; what a server does: the next test."""
    caller = ModelCaller(batching(scaled_in_place)[0])
    assert caller.retries
    calls = [caller(inputs, None) for inputs in ([[1.0]], [[2.0], [3.0]], [[-1.0]], [[4.0]])]
    one, two, bad, four = await asyncio.gather(*calls, return_exceptions=True)
    assert [one, two, four] == [[10], [20, 30], [40]]
    assert isinstance(bad, RequestError)


@each_row("wire", ["rest+json", "rest+json/infer", "rest+binary", "rest+msgpack", "rest+msgpack+gzip"])
@each_row("is_cached", [False, True])
async def test_server_decodes_each_wire_again_for_a_retry(wire: str, is_cached: bool) -> None:
    name, _, is_v2 = wire.partition("/")
    spoken, path = Wire.parse(name), "/v2/models/m/infer" if is_v2 else ""
    path = path or codec_of(spoken).path("m")

    def rewritten(inputs: list[Any]) -> list[float]:
        """A model that puts another list in the place of each input."""
        for number, one in enumerate(inputs):
            values = one if isinstance(one, list) else np.array(one)
            for place, value in enumerate(values):
                values[place] = 10 * value
            inputs[number] = values
        if any(one[0] < 0 for one in inputs):
            raise ValueError("a negative input")
        return [float(one[0]) for one in inputs]

    layer: Any = batching(rewritten, size=4, wait=NEVER)[0]  # one batch of all
    app = ModelApp(ModelCaller(caching(layer)[0] if is_cached else layer), "m", 10_000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:

        async def ask(value: float) -> Any:
            body = encode_request(spoken, [[value]], path)
            response = await client.post(path, content=body.joined(), headers=dict(body.headers))
            if response.status_code != 200:
                return response.status_code
            headers = {key: text for key, text in response.headers.items() if key != "content-encoding"}
            return float(decode_answer(spoken, response.content, headers, path=path)[0])

        assert await asyncio.gather(*map(ask, [1.0, 2.0, -1.0, 4.0])) == [10, 20, 500, 40]


async def test_requests_whose_inputs_cannot_be_decoded_again_or_copied_fail_together() -> None:
    layer, tally = batching(Recording(lambda inputs: refuse(frozenset({1}))([next(one) for one in inputs])))
    found = await outcomes(ask_each(layer, [iter([1]), (one for one in [2])]))
    assert [type(one) for one in found] == [ValueError, ValueError]
    assert counters(tally)["calls"] == 1


def test_decoded_inputs_reach_other_processes_as_a_plain_list() -> None:
    assert type(pickle.loads(pickle.dumps(DecodedInputs([1], lambda: [1])))) is list


@pytest.mark.parametrize("returns", [lambda inputs: inputs[1:], lambda inputs: [*inputs, 0], lambda _: np.array(3)])
async def test_wrong_outputs_fail_only_the_requests_that_show_it(returns: Callable[[list[Any]], Any]) -> None:
    async def model(inputs: list[int]) -> Any:
        return returns(inputs) if 7 in inputs else inputs

    layer, tally = batching(model)
    good, bad = await outcomes(ask_each(layer, [1, 7]))
    assert good == [1]
    assert isinstance(bad, RequestError)
    assert (bad.status, str(bad).startswith("the model returned ")) == (500, True)
    assert counters(tally)["failed_alone"] == 1


@each_row(
    "error",
    RequestError(503, "the queue is full", retry_after_s=2),
    RequestError(429, "slower"),
    RequestError(504, "too late"),
    LostError("the process is gone"),
)
async def test_overloaded_or_unavailable_service_behind_is_not_retried(error: RequestError) -> None:
    def unavailable(_: list[Any]) -> None:
        raise error

    model = Recording(unavailable)
    layer, tally = batching(model)
    found = await outcomes(ask_each(layer, [1, 2, 3]))
    assert model.given == [[1, 2, 3]]
    assert len(set(map(id, found))) == 3, "each can be raised without the others"
    for one in found:
        assert type(one) is type(error)
        assert (one.status, str(one), one.retry_after_s) == (error.status, str(error), error.retry_after_s)
        assert one.__cause__ is error
    assert counters(tally) == {"calls": 1, "items": 3}


async def test_error_of_a_model_in_another_process_is_traced_to_its_request() -> None:
    def check(inputs: list[Any]) -> None:
        if 2 in inputs:
            raise RequestError(500, "the model raised ValueError: 2")

    layer, _ = batching(Recording(check))
    good, bad, other = await outcomes(ask_each(layer, [1, 2, 3]))
    assert (good, other) == ([2], [6])
    assert bad.status == 500


def raises_below(inputs: list[int]) -> list[int]:
    raise ZeroDivisionError(f"for {len(inputs)}")  # the traceback shows this line


async def raises_awaited(inputs: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return raises_below(inputs)


@pytest.mark.parametrize("model", [raises_below, raises_awaited])
async def test_an_error_of_the_model_keeps_the_users_frames_and_shows_none_of_ours(model: Any) -> None:
    caller = ModelCaller(batching(model)[0])
    found = await asyncio.gather(caller([1]), caller([2]), return_exceptions=True)
    assert [str(one) for one in found] == ["the model raised ZeroDivisionError: for 1"] * 2
    (text,) = caller.tracebacks
    assert "# the traceback shows this line" in text
    assert "batch_layer.py" not in text
    assert "asyncio" not in text.replace("asyncio.sleep(0)", "")


def _exits(_: list[Any]) -> list[Any]:
    raise SystemExit(3)


def _stops(_: list[Any]) -> list[Any]:
    return [next(iter([]))]


async def _exits_awaited(_: list[Any]) -> list[Any]:
    raise SystemExit(3)


@pytest.mark.parametrize("model", [_exits, _exits_awaited])
async def test_a_model_that_wants_to_exit_fails_its_requests_and_nothing_else(model: Any) -> None:
    layer, _ = batching(model)
    for _ in range(2):
        with pytest.raises(SystemExit):
            await layer([1])


def _panics(inputs: list[int]) -> list[int]:
    if 0 in inputs:
        raise Panic("index out of bounds")
    return doubled(inputs)


async def _panics_awaited(inputs: list[int]) -> list[int]:
    return _panics(inputs)


@pytest.mark.parametrize("model", [_panics, _panics_awaited])
async def test_a_panic_is_an_error_of_its_request_and_the_next_one_is_answered(model: Any) -> None:
    layer, _ = batching(model)
    with pytest.raises(RuntimeError, match=r"^it raised Panic: index out of bounds$") as caught:
        await layer([0])
    assert isinstance(caught.value.__cause__, Panic)
    assert await layer([1]) == [2]


async def test_an_iteration_that_stops_in_a_plain_model_reaches_its_caller() -> None:
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        await call_once(_stops, [1])
    assert isinstance(caught.value.__cause__, StopIteration)


# --- who goes away


@jumping
async def test_callers_who_go_away_while_they_wait_are_left_out() -> None:
    model = Recording()
    layer, tally = batching(model, wait="5ms")
    asked = ask_each(layer, [1, 2, 3, 4])
    asked[0].cancel()
    asked[2].cancel()
    assert await asked[1] == [4]
    assert await asked[3] == [8]
    assert model.given == [[2, 4]]
    assert counters(tally) == {"calls": 1, "items": 2}


@jumping
async def test_batch_without_callers_is_not_called_and_the_next_request_waits_in_full() -> None:
    model = Recording()
    layer, _ = batching(model, wait="5ms")
    for one in ask_each(layer, [1, 2]):
        one.cancel()
    await asyncio.sleep(0.003)
    last = ask_each(layer, [3])
    await asyncio.sleep(0.004)
    assert model.given == []
    assert await last[0] == [6]
    assert now_ns() == pytest.approx(8 * MS, rel=0.01)
    ask_each(layer, [4])[0].cancel()
    await asyncio.sleep(1)
    assert model.given == [[3]]


async def test_callers_who_go_away_during_the_call_do_not_disturb_the_others() -> None:
    model = Model()
    layer, _ = batching(model)
    said = complaints()
    asked = ask_each(layer, [1, 2, 3])
    await settle()
    asked[1].cancel()
    await model.answer()
    assert await asked[0] == [2]
    assert await asked[2] == [6]
    gone = ask_each(layer, [4])
    await settle()
    gone[0].cancel()
    await model.fail(ValueError("for nobody"))
    assert await _with(model, layer) == [10]
    gc.collect()
    assert said == []


async def _with(model: Model, layer: BatchLayer) -> Any:
    asked = ask_each(layer, [5])
    await settle()
    await model.answer()
    return await asked[0]


async def test_a_call_that_is_cancelled_from_inside_ends_its_batch_and_the_next_goes() -> None:
    model = Model()
    layer, _ = batching(model)
    asked = ask_each(layer, [1])
    await settle()
    model._open.popleft().cancel()
    with pytest.raises(RuntimeError, match="it raised CancelledError"):
        await asked[0]
    assert await _with(model, layer) == [10]


def test_a_loop_that_ends_takes_the_batches_under_way_with_it_and_begins_no_other() -> None:
    model = Model()

    async def scenario() -> None:
        ask_each(batching(model, size=2)[0], [1, 2, 3])
        await settle()

    run(scenario())
    assert model.given == [[1, 2]]
