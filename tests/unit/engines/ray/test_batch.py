"""The layer of ``Batched`` on Ray Serve: outputs go to their own requests, failures to the inputs that fail."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.each_row import each_row
from support.fake_serve import fake_serve
from support.scenarios import Panic, run

from pytest_mlpatterns import Batched
from pytest_mlpatterns.engines.ray.remote.replica import ServeBatchLayer
from pytest_mlpatterns.patterns.layer import DecodedInputs, RequestError
from pytest_mlpatterns.patterns.tally import Tally


@pytest.fixture(autouse=True)
def _serve(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_serve(monkeypatch)


def double(batch: list[int]) -> list[int]:
    return [2 * value for value in batch]


async def double_later(batch: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return double(batch)


def returns_awaitable(batch: list[int]) -> Any:
    return double_later(batch)


def outcomes_of(model: Callable[[list[Any]], Any], *requests: list[Any]) -> tuple[list[Any], Tally]:
    """What concurrent requests get: outputs or errors."""
    tally = Tally(0, "batched")

    async def scenario() -> list[Any]:
        layer = ServeBatchLayer(Batched(8), model, tally)
        return await asyncio.gather(*map(layer, requests), return_exceptions=True)

    return run(scenario()), tally


@pytest.mark.parametrize("model", [double, double_later, returns_awaitable])
def test_each_request_gets_its_own_outputs(model: Callable[[list[Any]], Any]) -> None:
    found, tally = outcomes_of(model, [1], [2, 3], [4])
    assert found == [[2], [4, 6], [8]]
    stats = tally.snapshot()
    assert stats.counters["items"] == 4
    assert sum(size * times for size, times in stats.histograms["size"].items()) == 4
    assert sum(stats.histograms["wait_ns"].values()) == 3


def test_a_plain_model_is_called_in_one_thread_beside_the_event_loop() -> None:
    threads: set[str] = set()

    def model(batch: list[int]) -> list[int]:
        threads.add(threading.current_thread().name)
        return batch

    outcomes_of(model, *([number] for number in range(20)))
    assert threads == {"batched model"}


def test_only_the_inputs_that_fail_on_their_own_get_an_error() -> None:
    def model(batch: list[int]) -> list[int]:
        if 13 in batch:
            raise ValueError(f"unlucky {13}")
        return batch

    found, tally = outcomes_of(model, [1], [13], [2])
    assert (found[0], found[2]) == ([1], [2])
    assert str(found[1]) == "unlucky 13"
    assert tally.snapshot().counters["failed_alone"] == 1


def test_a_request_with_an_input_that_fails_fails() -> None:
    def model(batch: list[int]) -> list[int]:
        if 13 in batch:
            raise RequestError(422, "unlucky")
        return batch

    found, _ = outcomes_of(model, [1, 13, 13], [2])
    assert isinstance(found[0], RequestError)
    assert found[0].status == 422
    assert found[1] == [2]


def test_a_retry_gets_inputs_that_the_first_call_has_not_changed() -> None:
    calls: Iterator[int] = iter(range(100))

    def model(batch: list[list[int]]) -> list[int]:
        if next(calls) == 0:
            batch[0].append(99)
            raise ValueError("the first call fails after it has changed an input")
        return [sum(value) for value in batch]

    decoded = DecodedInputs([[1], [2]], lambda: [[1], [2]])
    found, _ = outcomes_of(model, decoded)
    assert found == [[1, 2]]


def test_inputs_that_cannot_be_copied_are_not_retried() -> None:
    calls: list[int] = []

    def model(batch: list[Any]) -> list[Any]:
        calls.append(len(batch))
        raise ValueError("no")

    found, _ = outcomes_of(model, [threading.Lock(), threading.Lock()])
    assert str(found[0]) == "no"
    assert calls == [2]


def test_a_service_behind_that_is_overloaded_is_not_asked_again() -> None:
    calls: list[int] = []

    async def model(batch: list[int]) -> list[int]:
        calls.append(len(batch))
        raise RequestError(503, "full", 1)

    found, _ = outcomes_of(model, [1, 2], [3])
    assert all(isinstance(one, RequestError) and one.retry_after_s == 1 for one in found)
    assert found[0] is not found[1]
    assert sum(calls) == 3


@each_row(
    ("outputs", "words"),
    [([1], "1 output for 2 inputs"), (3, "int, which has no length"), ({"a": 1, "b": 2}, "returned dict")],
)
def test_outputs_that_are_not_one_for_each_input_are_an_error(outputs: Any, words: str) -> None:
    def model(batch: list[int]) -> Any:
        return outputs if len(batch) == 2 else [0, 0, 0]

    found, _ = outcomes_of(model, [1, 2])
    assert words in str(found[0]) or "3 outputs for 1 input" in str(found[0])


def test_a_model_that_streams_is_refused_with_what_to_write() -> None:
    def model(batch: list[int]) -> Iterator[int]:
        yield from batch

    found, _ = outcomes_of(model, [1])
    assert found[0].status == 501
    assert "write Continuous(max_batch_size=8)" in str(found[0])


def test_a_model_that_exits_fails_its_request() -> None:
    def model(batch: list[int]) -> list[int]:
        raise SystemExit(3)

    with pytest.raises(SystemExit):  # the server makes it an error of the request
        outcomes_of(model, [1])


def test_a_panic_of_a_library_is_an_error_of_its_request_and_of_no_other() -> None:
    async def model(batch: list[int]) -> list[int]:
        if 0 in batch:
            raise Panic("index out of bounds")
        return double(batch)

    (panicked, answered), _ = outcomes_of(model, [0], [1])
    assert str(panicked) == "it raised Panic: index out of bounds"
    assert answered == [2]
