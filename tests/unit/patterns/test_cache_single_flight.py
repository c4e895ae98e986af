"""Concurrent misses share one model call; failures of the model and of the store.

A server is a dictionary here that can be switched off; tests/live/serving/redis has real ones.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

import numpy as np
import pytest
from support.caching import REST_NS, Clock, Model, Server, SlowModel, answer_of, caching, counted, in_a_moment, timed
from support.each_row import each_row
from support.scenarios import settle

from pytest_mlpatterns.patterns.cache_layer import CacheLayer
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.serving.http.model_caller import ModelCaller


class TestSingleFlight:
    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    async def test_those_who_miss_the_same_wait_for_one_call(self, store: bool) -> None:
        model = SlowModel()
        layer, tally = caching(model, store=Server() if store else None)
        first = asyncio.create_task(answer_of(layer([1, 2])))
        await model.asked.wait()
        others = [asyncio.create_task(answer_of(layer(request))) for request in ([2], [1, 2, 1])]
        model.asked.clear()
        last = asyncio.create_task(answer_of(layer([2, 3])))
        await model.asked.wait()
        model.go.set()
        assert await asyncio.gather(first, *others, last) == [[[1], [2]], [[2]], [[1], [2], [1]], [[2], [3]]]
        assert model.calls == [[1, 2], [3]]
        assert await answer_of(layer([3, 1])) == [[3], [1]]
        assert counted(tally) == {"misses": 3, "coalesced": 5, "hits": 2}
        assert timed(tally) == {"miss_ns": 4, "hit_ns": 1}
        await settle()
        assert not layer._tasks
        assert not layer._pending

    @each_row("store", [False, True])
    @each_row("failure", [ValueError("no"), SystemExit(3), RequestError(503, "full", 1)])
    async def test_failed_call_fails_all_requests_that_wait_and_is_not_remembered(
        self, store: bool, failure: BaseException
    ) -> None:
        model = SlowModel(failure)
        layer, tally = caching(model, store=Server() if store else None)
        waiting = [asyncio.create_task(_failure_of(layer([1])))]
        await model.asked.wait()
        waiting += [asyncio.create_task(_failure_of(layer([1, 2]))) for _ in range(2)]
        await settle()
        model.go.set()
        assert await asyncio.gather(*waiting) == [failure] * 3
        model.failure = None
        assert await answer_of(layer([1])) == [[1]]
        assert model.calls == [[1], [2], [1]]
        assert counted(tally) == {"misses": 1}

    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    async def test_a_first_caller_that_goes_away_takes_nothing_from_the_others(self, store: bool) -> None:
        model = SlowModel()
        layer, _ = caching(model, store=Server() if store else None)
        first = asyncio.create_task(answer_of(layer([1])))
        await model.asked.wait()
        second, third = (asyncio.create_task(answer_of(layer([1]))) for _ in range(2))
        await settle()
        first.cancel()
        third.cancel()
        await asyncio.wait([first, third])
        assert first.cancelled()
        assert third.cancelled()
        model.go.set()
        assert await second == [[1]]
        assert model.calls == [[1]]

    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    def test_successful_call_is_remembered_after_all_callers_have_gone(self, store: bool) -> None:
        async def scenario(failure: BaseException | None) -> list[list[Any]]:
            model = SlowModel(failure)
            layer, _ = caching(model, store=Server() if store else None)
            only = asyncio.create_task(answer_of(layer([1])))
            await model.asked.wait()
            only.cancel()
            await asyncio.wait([only])
            model.go.set()
            await settle()
            model.failure = None
            assert await answer_of(layer([1])) == [[1]]
            return model.calls

        assert asyncio.run(scenario(None)) == [[1]]
        assert asyncio.run(scenario(ValueError("no"))) == [[1], [1]]

    async def test_answer_that_is_never_awaited_delays_no_other_request(self) -> None:
        layer, _ = caching(in_a_moment)
        never = layer([1])
        assert await answer_of(layer([1])) == [[1]]
        never.close()  # type: ignore[union-attr]

    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    def test_the_end_of_the_loop_ends_what_is_under_way(self, store: bool) -> None:
        ends: list[BaseException] = []

        async def wait(layer: CacheLayer) -> None:
            try:
                await answer_of(layer([1]))
            except asyncio.CancelledError as error:
                ends.append(error)
                raise

        async def scenario() -> None:
            model = SlowModel()
            layer, _ = caching(model, store=Server() if store else None)
            tasks = [asyncio.create_task(wait(layer)) for _ in range(2)]
            await model.asked.wait()
            await settle()
            assert not any(task.done() for task in tasks)

        asyncio.run(scenario())
        assert len(ends) == 2

    async def test_a_model_that_is_itself_cancelled_cancels_those_who_wait(self) -> None:
        async def cancelled(_batch: list[Any]) -> list[Any]:
            raise asyncio.CancelledError

        layer, _ = caching(cancelled)
        with pytest.raises(asyncio.CancelledError):
            await layer([1])  # type: ignore[misc]
        with pytest.raises(asyncio.CancelledError):
            await layer([1])  # type: ignore[misc]


async def _failure_of(answer: Awaitable[Any]) -> BaseException:
    try:
        await answer
    except (Exception, SystemExit) as error:
        return error
    raise AssertionError("it did not fail")


class TestFailures:
    @each_row("kind", ["plain", "async", "store"])
    @each_row(
        ("outputs", "text"),
        ([1], "the model returned 1 output for 2 inputs; it must return one for each"),
        (np.zeros((3, 2)), "the model returned 3 outputs for 2 inputs; it must return one for each"),
    )
    def test_wrong_outputs_have_the_message_of_a_plain_service(self, kind: str, outputs: Any, text: str) -> None:
        async def later(_batch: list[Any]) -> Any:
            return outputs

        layer, tally = caching(
            later if kind == "async" else lambda _batch: outputs, store=Server() if kind == "store" else None
        )

        async def ask() -> Any:
            return await answer_of(layer([1, 2, 1]))

        with pytest.raises(RequestError) as caught:
            asyncio.run(ask())
        assert (caught.value.status, str(caught.value)) == (500, text)
        assert counted(tally) == {}

    @each_row("store", [False, True])
    @each_row("failure", [ValueError, StopIteration, SystemExit])
    def test_error_of_a_plain_model_reaches_the_caller_and_nothing_is_remembered(
        self, store: bool, failure: type[BaseException]
    ) -> None:
        answers = [[1], None]

        def model(_batch: list[Any]) -> Any:
            answer = answers.pop()
            if answer is None:
                raise failure
            return answer

        layer, _ = caching(model, store=Server() if store else None)

        async def ask() -> Any:
            return await answer_of(layer([5]))

        async def fail() -> BaseException:
            return await _failure_of(ask())

        error = asyncio.run(fail())
        assert isinstance(error.__cause__ if failure is StopIteration else error, failure)
        assert asyncio.run(ask()) == [1]

    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    async def test_traceback_of_a_model_reaches_each_waiting_request_without_our_frames(self, store: bool) -> None:
        model = SlowModel(ValueError("no"))
        layer, _ = caching(model, store=Server() if store else None)
        services = [ModelCaller(layer) for _ in range(2)]
        asked = [asyncio.create_task(_failure_of(service([1]))) for service in services]
        await model.asked.wait()
        model.go.set()
        for failure in await asyncio.gather(*asked):
            assert str(failure) == "the model raised ValueError: no"
        for service in services:
            (text,) = service.tracebacks
            assert text.splitlines()[0] == "Traceback (most recent call last):"
            assert "raise self.failure" in text
            assert "patterns/cached.py" not in text

    def test_an_output_that_a_store_cannot_keep_is_refused_with_what_to_do(self) -> None:
        layer, _ = caching(lambda batch: [object() for _ in batch], store=Server())
        with pytest.raises(
            RequestError, match=r"that cannot be written to a store: .*use Cached\(store='memory://'\)"
        ) as caught:
            asyncio.run(answer_of(layer([1])))
        assert caught.value.status == 500


class TestStores:
    def test_outputs_are_what_json_makes_of_them_the_first_time_and_every_time(self) -> None:
        layer, _ = caching(lambda batch: np.array(batch, dtype=np.float32) / 10, store=Server())
        for _ in range(2):
            assert repr(asyncio.run(answer_of(layer([1, 7])))) == "[0.1, 0.7]"

    def test_another_process_finds_what_this_one_kept(self) -> None:
        server, models = Server(), (Model(), Model())
        for model, request in zip(models, ([1, 2], [2, 3, 1]), strict=True):
            layer, tally = caching(model, store=server)
            assert asyncio.run(answer_of(layer(request))) == [[one] for one in request]
        assert models[1].calls == [[3]]
        assert counted(tally) == {"hits": 2, "misses": 1}
        assert {len(key) for key in server.kept} == {32}
        assert len(server.kept) == 3

    async def test_an_input_that_the_store_has_does_not_wait_for_another_that_it_has_not(self) -> None:
        server, model = Server(), SlowModel()
        model.go.set()
        layer, tally = caching(model, store=server)
        await answer_of(layer([1]))
        model.go.clear()
        model.asked.clear()
        both = asyncio.create_task(answer_of(layer([1, 2])))
        await model.asked.wait()
        assert await answer_of(layer([1])) == [[1]]
        assert not both.done()
        model.go.set()
        assert await both == [[1], [2]]
        assert counted(tally) == {"misses": 2, "hits": 2}

    async def test_those_who_look_up_the_same_at_once_share_the_look_up_and_all_hit(self) -> None:
        server = Server()
        layer, tally = caching(Model(), store=server)
        await answer_of(layer([1]))
        server.reading = asyncio.Event()
        waiting = [asyncio.create_task(answer_of(layer([1, 1]))) for _ in range(3)]
        await settle()
        server.reading.set()
        assert await asyncio.gather(*waiting) == [[[1], [1]]] * 3
        assert server.asked == ["get", "put", "get"]
        assert counted(tally) == {"misses": 1, "hits": 6}
        assert timed(tally) == {"miss_ns": 1, "hit_ns": 3}

    async def test_a_store_that_is_away_is_left_alone_for_a_while_and_counted_once_a_request(self) -> None:
        clock, server, model = Clock(), Server(), Model()
        layer, tally = caching(model, store=server, clock_ns=clock)

        async def ask() -> None:
            assert await answer_of(layer([1, 2])) == [[1], [2]]

        await ask()
        server.away = "get and put"
        await ask()
        assert server.asked == ["get", "put", "get"]
        clock.now_ns += REST_NS - 1
        await ask()
        assert server.asked == ["get", "put", "get"]
        assert counted(tally) == {"misses": 6, "store_errors": 2}
        clock.now_ns += 1
        await ask()
        assert server.asked == ["get", "put", "get", "get"]
        server.away = ""
        clock.now_ns += REST_NS
        await ask()
        assert counted(tally) == {"misses": 8, "store_errors": 3, "hits": 2}
        assert len(model.calls) == 4

    async def test_store_that_fails_before_the_put_costs_one_miss(self) -> None:
        clock, server = Clock(), Server()
        layer, tally = caching(Model(), store=server, clock_ns=clock)
        server.away = "put"
        assert await answer_of(layer([1])) == [[1]]
        assert counted(tally) == {"misses": 1, "store_errors": 1}
        server.away = ""
        clock.now_ns += REST_NS
        assert await answer_of(layer([1])) == [[1]]
        assert server.kept
        assert counted(tally) == {"misses": 2, "store_errors": 1}

    @pytest.mark.parametrize("value", [b"", b"garbage", bytes(8) + b"[]", b"\xff" * 40])
    async def test_a_value_that_another_program_wrote_is_a_miss_and_is_replaced(self, value: bytes) -> None:
        server, model = Server(), Model()
        layer, tally = caching(model, store=server)
        assert await answer_of(layer([1])) == [[1]]
        (key,) = server.kept
        server.kept[key] = value
        assert await answer_of(layer([1])) == [[1]]
        assert await answer_of(layer([1])) == [[1]]
        assert counted(tally) == {"misses": 2, "store_errors": 1, "hits": 1}
        assert len(model.calls) == 2

    async def test_those_who_miss_the_same_wait_for_one_call_while_the_store_is_away_too(self) -> None:
        server, model = Server(), SlowModel()
        server.away = "get"
        layer, tally = caching(model, store=server)
        waiting = [asyncio.create_task(answer_of(layer([1]))) for _ in range(3)]
        await model.asked.wait()
        model.go.set()
        assert await asyncio.gather(*waiting) == [[[1]]] * 3
        assert counted(tally) == {"misses": 1, "coalesced": 2, "store_errors": 1}
