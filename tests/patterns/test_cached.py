"""Cached: the pattern, and its layer: right answers whatever comes, one model call for each input, and what it counts.

A server is here a dictionary that can be switched off; real ones are in test_store.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.cache_layer import CacheLayer, StoreUnavailable
from pytest_mlpatterns.patterns.cached import Cached
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.http.app import ModelCaller
from pytest_mlpatterns.wire.kserve_v1 import encode_predictions
from pytest_mlpatterns.workload.input_order import Zipf, zipf_probabilities

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

MS = 1_000_000
REST_NS = 500 * MS


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 7_000 * MS

    def __call__(self) -> int:
        return self.now_ns


class Model:
    """Answers every input with itself in a list, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []

    def __call__(self, batch: list[Any]) -> list[Any]:
        self.calls.append(batch)
        return [[value] for value in batch]

    @property
    def inputs(self) -> list[Any]:
        """Everything it was asked, in order."""
        return [value for batch in self.calls for value in batch]


class SlowModel(Model):
    """Answers when it is let go, and says when it was asked."""

    def __init__(self, failure: BaseException | None = None) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.failure = failure

    async def __call__(self, batch: list[Any]) -> list[Any]:  # type: ignore[override]
        outputs = super().__call__(batch)
        self.asked.set()
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return outputs


class Server:
    """A store in this process: it can be away for reading or for writing, and counts what it is asked."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.away = ""
        self.asked: list[str] = []
        self.reading: asyncio.Event | None = None

    async def get(self, keys: list[bytes]) -> list[bytes | None]:
        self.asked.append("get")
        if self.reading is not None:
            await self.reading.wait()
        if "get" in self.away:
            raise StoreUnavailable("gone")
        return [self.kept.get(key) for key in keys]

    async def put(self, items: Mapping[bytes, bytes]) -> None:
        self.asked.append("put")
        if "put" in self.away:
            raise StoreUnavailable("gone")
        self.kept.update(items)


def counted(tally: Tally) -> dict[str, int]:
    """Its counters that are not zero."""
    return {name: count for name, count in tally.snapshot().counters.items() if count}


def timed(tally: Tally) -> dict[str, int]:
    """How many times it saw, by name."""
    return {name: sum(spread.values()) for name, spread in tally.snapshot().histograms.items()}


def caching(
    inner: Callable[[list[Any]], Any], pattern: Cached | None = None, store: Server | None = None, **more: Any
) -> tuple[CacheLayer, Tally]:
    tally = Tally(0, "cached")
    return CacheLayer(pattern or Cached(), inner, tally, store=store, **more), tally


async def answer_of(outputs: Any) -> Any:
    return await outputs if asyncio.iscoroutine(outputs) else outputs


async def in_a_moment(batch: list[Any]) -> list[Any]:
    """A model that gives way to others once."""
    await asyncio.sleep(0)
    return [[value] for value in batch]


class TestThePattern:
    @pytest.mark.parametrize(
        ("pattern", "text"),
        [
            (Cached(), "cached"),
            (Cached(max_entries=5, ttl="30s"), "cached(max_entries=5,ttl=30s)"),
            (Cached(store="redis://user:secret@host:1/0"), "cached(store=redis://host:1/0)"),
        ],
    )
    def test_cached_prints_as_it_is_written_without_a_password(self, pattern: Cached, text: str) -> None:
        assert str(pattern) == text

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"max_entries": 0}, "max_entries=0"),
            ({"max_entries": 2.0}, "whole number"),
            ({"ttl": "10us"}, "at least 1ms"),
            ({"ttl": "30"}, "a time with its unit"),
            ({"store": "memcached://host"}, "redis://127.0.0.1:6379/0"),
            ({"store": None}, "expected 'memory://'"),
        ],
    )
    def test_cached_refuses_impossible_arguments_with_the_expected_ones(
        self, arguments: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(SettingError) as caught:
            Cached(**arguments)
        assert words in str(caught.value)


INPUTS = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, "", "a", "null"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=3,
)
REQUESTS = st.lists(st.lists(INPUTS, min_size=1, max_size=4), max_size=8)


class TestAnswers:
    @PROPERTY
    @given(REQUESTS, st.integers(1, 6), st.sampled_from(["plain", "async", "store", "async store"]), st.booleans())
    def test_outputs_are_those_of_the_bare_model_for_any_requests(
        self, requests: list[list[Any]], max_entries: int, kind: str, at_once: bool
    ) -> None:
        layer, tally = caching(
            in_a_moment if "async" in kind else Model(),
            Cached(max_entries=max_entries),
            Server() if "store" in kind else None,
        )

        async def ask() -> list[Any]:
            if at_once:
                return await asyncio.gather(*[answer_of(layer(request)) for request in requests])
            return [await answer_of(layer(request)) for request in requests]

        answers = asyncio.run(ask())
        assert encode_predictions(answers) == encode_predictions([[[one] for one in request] for request in requests])
        counters = tally.snapshot().counters
        answered = sum(counters.get(name, 0) for name in ("hits", "misses", "coalesced"))
        assert answered == sum(map(len, requests))
        assert sum(timed(tally).values()) == len(requests)

    @PROPERTY
    @given(REQUESTS, st.sampled_from(["plain", "async", "store", "async store"]), st.booleans())
    def test_the_model_is_asked_once_for_every_distinct_input_while_there_is_room(
        self, requests: list[list[Any]], kind: str, at_once: bool
    ) -> None:
        model = Model()

        async def slowly(batch: list[Any]) -> list[Any]:
            await asyncio.sleep(0)
            return model(batch)

        layer, tally = caching(slowly if "async" in kind else model, store=Server() if "store" in kind else None)

        async def ask() -> None:
            if at_once:
                await asyncio.gather(*[answer_of(layer(request)) for request in requests])
            for request in requests:
                await answer_of(layer(request))

        asyncio.run(ask())
        distinct = {repr(_sorted(one)) for request in requests for one in request}
        assert sorted(repr(_sorted(one)) for one in model.inputs) == sorted(distinct)
        assert tally.snapshot().counters.get("misses", 0) == len(distinct)
        assert len(model.calls) <= len(requests)
        assert sum(counted(tally).values()) == (1 + at_once) * sum(map(len, requests))

    def test_one_request_asks_the_model_once_for_all_that_is_missing(self) -> None:
        model = Model()
        layer, tally = caching(model)
        assert layer([1, 2]) == [[1], [2]]
        assert layer([3, 1, 4, 3, 2]) == [[3], [1], [4], [3], [2]]
        assert model.calls == [[1, 2], [3, 4]]
        assert counted(tally) == {"misses": 4, "hits": 2, "coalesced": 1}

    def test_hits_in_memory_need_no_event_loop_and_are_the_very_outputs(self) -> None:
        output = object()
        layer, tally = caching(lambda batch: [output for _ in batch])
        first = layer([1])
        again = layer([1, 1])
        assert isinstance(first, list)
        assert again == [output, output]
        assert timed(tally) == {"miss_ns": 1, "hit_ns": 1}
        assert counted(tally) == {"misses": 1, "hits": 2}

    def test_no_input_is_answered_by_nothing(self) -> None:
        layer, _ = caching(Model())
        assert layer([]) == []
        stored, _ = caching(Model(), store=Server())
        assert asyncio.run(answer_of(stored([]))) == []

    @pytest.mark.parametrize(
        "outputs",
        [
            np.array([[0.1, 0.2], [0.3, math.nan]], dtype=np.float32),
            np.array([0.1, 0.7], dtype=np.float32),
            np.array([1, 2]),
            np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=np.float16)[:, ::2],
            ({"b": 1, "a": (2, None)}, {3}),
        ],
        ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
    )
    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    def test_outputs_of_every_kind_are_sent_as_the_bare_model_sends_them(self, outputs: Any, store: bool) -> None:
        layer, _ = caching(lambda _batch: outputs, store=Server() if store else None)
        wanted = encode_predictions(outputs)
        for _ in range(2):
            assert encode_predictions(asyncio.run(answer_of(layer([1, 2])))) == wanted


def _sorted(value: Any) -> Any:
    """The same for values that are alike but for the order of their keys."""
    if isinstance(value, dict):
        return sorted((key, _sorted(inner)) for key, inner in value.items()), "dict"
    return [_sorted(inner) for inner in value] if isinstance(value, list) else value


class TestInputs:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
            ([None, 1], (None, 1)),
            ([np.array([1.5, 2.5])], [[1.5, 2.5]]),
            (np.array([[1, 3], [2, 4]]), np.array([[1, 2], [3, 4]]).T),
            ({"a": np.ones(2), "b": b"x"}, {"b": b"x", "a": np.ones(2)}),
            (np.float32(1.5), np.array(1.5, dtype=np.float32)),
        ],
        ids=str,
    )
    def test_inputs_that_json_writes_alike_are_one(self, one: Any, other: Any) -> None:
        model = Model()
        layer, _ = caching(model)
        assert len(layer([one, other])) == 2  # type: ignore[arg-type]
        assert len(model.inputs) == 1

    def test_inputs_that_are_different_are_never_taken_for_one(self) -> None:
        inputs = [
            None,
            "null",
            math.nan,
            math.inf,
            -math.inf,
            1,
            1.0,
            True,
            "1",
            [1],
            [[1]],
            {"1": 1},
            [None],
            [math.nan],
        ]
        inputs += [np.array([math.inf, 1.0]), np.array([1.0, math.inf]), np.array([[math.inf, 1.0]])]
        inputs += [np.array([1], dtype="u1"), np.array([1], dtype="i1"), {"a": np.array([1])}, {"b": np.array([1])}]
        inputs += [b"1", b"1\0", b"", [b"1"], np.array([], dtype="f4"), {}]
        model = Model()
        layer, _ = caching(model)
        layer(inputs)
        assert len(model.inputs) == len(inputs)
        layer([math.nan, [math.nan]])
        assert len(model.calls) == 1

    @pytest.mark.parametrize("instance", [object(), {1: 2}, {1, 2}], ids=lambda value: type(value).__name__)
    def test_an_input_that_json_cannot_hold_is_refused_with_what_to_do(self, instance: Any) -> None:
        layer, _ = caching(Model())
        with pytest.raises(RequestError, match=f"inputs of type {type(instance).__name__}: .*put it before") as caught:
            layer([instance])
        assert caught.value.status == 500


class TestMemory:
    @PROPERTY
    @given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 8))
    def test_the_least_recently_used_goes_first(self, asked: list[int], max_entries: int) -> None:
        model = Model()
        layer, tally = caching(model, Cached(max_entries=max_entries))
        held: OrderedDict[int, None] = OrderedDict()
        missed, evicted = [], 0
        for one in asked:
            if one not in held:
                missed.append(one)
            held[one] = None
            held.move_to_end(one)
            if len(held) > max_entries:
                held.popitem(last=False)
                evicted += 1
            assert layer([one]) == [[one]]
        assert model.inputs == missed
        assert tally.snapshot().counters.get("evictions", 0) == evicted

    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    def test_a_request_larger_than_the_memory_is_answered_whole(self, store: bool) -> None:
        layer, _ = caching(Model(), Cached(max_entries=2), Server() if store else None)
        for _ in range(2):
            assert asyncio.run(answer_of(layer([1, 2, 3, 4]))) == [[1], [2], [3], [4]]

    def test_answers_stay_good_for_their_time_and_what_expires_is_not_evicted(self) -> None:
        clock, model = Clock(), Model()
        layer, tally = caching(model, Cached(max_entries=2, ttl="10ms"), clock_ns=clock)
        layer([1])
        clock.now_ns += 10 * MS - 1
        layer([1])
        assert model.calls == [[1]]
        clock.now_ns += 1  # a hit does not make it young again
        layer([1])
        assert model.calls == [[1], [1]]
        clock.now_ns += 10 * MS
        layer([2, 3])
        assert counted(tally) == {"misses": 4, "hits": 1}
        layer([4])
        assert counted(tally) == {"misses": 5, "hits": 1, "evictions": 1}
        layer([2])
        assert model.calls[-1] == [2]

    @pytest.mark.parametrize("capacity", [20, 200])
    def test_the_hit_ratio_of_a_zipf_draw_is_the_one_computed(self, capacity: int) -> None:
        count, exponent = 1000, 1.0
        draws = np.frombuffer(Zipf([0], exponent).order(count), dtype=np.uint32)[:40_000].tolist()
        model = Model()
        layer, tally = caching(model, Cached(max_entries=capacity))
        for one in draws[:10_000]:
            layer([one])
        before = tally.snapshot()
        for one in draws[10_000:]:
            layer([one])
        counters = tally.snapshot().since(before).counters
        ratio = counters["hits"] / (counters["hits"] + counters["misses"])
        assert ratio == pytest.approx(_lru_hit_ratio(zipf_probabilities(count, exponent), capacity), abs=0.01)

    def test_with_room_for_all_every_draw_but_the_first_of_each_input_hits(self) -> None:
        draws = np.frombuffer(Zipf([0], 1.1).order(500), dtype=np.uint32)[:5_000].tolist()
        layer, tally = caching(Model())
        for one in draws:
            layer([one])
        distinct = len(set(draws))
        assert counted(tally) == {"misses": distinct, "hits": len(draws) - distinct}


def _lru_hit_ratio(probabilities: Any, capacity: int) -> float:
    """Che's approximation: inputs stay for a time T such that ``capacity`` of them are there on average."""
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        held = float(np.sum(-np.expm1(-probabilities * middle)))
        low, high = (middle, high) if held < capacity else (low, middle)
    return float(np.sum(probabilities * -np.expm1(-probabilities * low)))


class TestSingleFlight:
    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    def test_those_who_miss_the_same_wait_for_one_call(self, store: bool) -> None:
        async def scenario() -> None:
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
            await _settled()
            assert not layer._tasks
            assert not layer._pending

        asyncio.run(scenario())

    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    @pytest.mark.parametrize("failure", [ValueError("no"), SystemExit(3), RequestError(503, "full", 1)], ids=repr)
    def test_a_call_that_fails_is_told_to_all_who_wait_and_not_remembered(
        self, store: bool, failure: BaseException
    ) -> None:
        async def scenario() -> None:
            model = SlowModel(failure)
            layer, tally = caching(model, store=Server() if store else None)
            waiting = [asyncio.create_task(_failure_of(layer([1])))]
            await model.asked.wait()
            waiting += [asyncio.create_task(_failure_of(layer([1, 2]))) for _ in range(2)]
            await _settled()
            model.go.set()
            assert await asyncio.gather(*waiting) == [failure] * 3
            model.failure = None
            assert await answer_of(layer([1])) == [[1]]
            assert model.calls == [[1], [2], [1]]
            assert counted(tally) == {"misses": 1}

        asyncio.run(scenario())

    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    def test_a_first_caller_that_goes_away_takes_nothing_from_the_others(self, store: bool) -> None:
        async def scenario() -> None:
            model = SlowModel()
            layer, _ = caching(model, store=Server() if store else None)
            first = asyncio.create_task(answer_of(layer([1])))
            await model.asked.wait()
            second, third = (asyncio.create_task(answer_of(layer([1]))) for _ in range(2))
            await _settled()
            first.cancel()
            third.cancel()
            await asyncio.wait([first, third])
            assert first.cancelled()
            assert third.cancelled()
            model.go.set()
            assert await second == [[1]]
            assert model.calls == [[1]]

        asyncio.run(scenario())

    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    def test_a_call_nobody_waits_for_any_more_is_remembered_if_it_succeeds(self, store: bool) -> None:
        async def scenario(failure: BaseException | None) -> list[list[Any]]:
            model = SlowModel(failure)
            layer, _ = caching(model, store=Server() if store else None)
            only = asyncio.create_task(answer_of(layer([1])))
            await model.asked.wait()
            only.cancel()
            await asyncio.wait([only])
            model.go.set()
            await _settled()
            model.failure = None
            assert await answer_of(layer([1])) == [[1]]
            return model.calls

        assert asyncio.run(scenario(None)) == [[1]]
        assert asyncio.run(scenario(ValueError("no"))) == [[1], [1]]

    def test_an_answer_that_is_never_awaited_keeps_nobody_waiting(self) -> None:
        async def scenario() -> None:
            layer, _ = caching(in_a_moment)
            never = layer([1])
            assert await answer_of(layer([1])) == [[1]]
            never.close()  # type: ignore[union-attr]

        asyncio.run(scenario())

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
            await _settled()
            assert not any(task.done() for task in tasks)

        asyncio.run(scenario())
        assert len(ends) == 2

    def test_a_model_that_is_itself_cancelled_cancels_those_who_wait(self) -> None:
        async def cancelled(_batch: list[Any]) -> list[Any]:
            raise asyncio.CancelledError

        async def scenario() -> None:
            layer, _ = caching(cancelled)
            with pytest.raises(asyncio.CancelledError):
                await layer([1])  # type: ignore[misc]
            with pytest.raises(asyncio.CancelledError):
                await layer([1])  # type: ignore[misc]

        asyncio.run(scenario())


async def _failure_of(answer: Awaitable[Any]) -> BaseException:
    try:
        await answer
    except (Exception, SystemExit) as error:
        return error
    raise AssertionError("it did not fail")


async def _settled() -> None:
    """Every task has got as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class TestFailures:
    @pytest.mark.parametrize("kind", ["plain", "async", "store"])
    @pytest.mark.parametrize(
        ("outputs", "text"),
        [
            ([1], "the model returned 1 outputs for 2 inputs; it must return one for each"),
            (np.zeros((3, 2)), "the model returned 3 outputs for 2 inputs; it must return one for each"),
            (None, "the model returned NoneType, which has no length; it must return a list of outputs"),
        ],
        ids=["too few", "too many", "nothing"],
    )
    def test_a_wrong_number_of_outputs_is_told_in_the_words_of_the_service(
        self, kind: str, outputs: Any, text: str
    ) -> None:
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

    @pytest.mark.parametrize("store", [False, True], ids=["memory", "store"])
    @pytest.mark.parametrize("failure", [ValueError, StopIteration, SystemExit], ids=lambda kind: kind.__name__)
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
    def test_the_traceback_of_a_model_is_told_without_our_frames_to_each_who_waited(self, store: bool) -> None:
        async def scenario() -> None:
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

        asyncio.run(scenario())

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

    def test_nothing_is_put_where_everything_was_found(self) -> None:
        server = Server()
        layer, tally = caching(Model(), store=server)
        for _ in range(2):
            asyncio.run(answer_of(layer([1])))
        assert server.asked == ["get", "put", "get"]
        assert timed(tally) == {"miss_ns": 1, "hit_ns": 1}

    def test_an_input_that_the_store_has_does_not_wait_for_another_that_it_has_not(self) -> None:
        async def scenario() -> None:
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

        asyncio.run(scenario())

    def test_those_who_look_up_the_same_at_once_share_the_look_up_and_all_hit(self) -> None:
        async def scenario() -> None:
            server = Server()
            layer, tally = caching(Model(), store=server)
            await answer_of(layer([1]))
            server.reading = asyncio.Event()
            waiting = [asyncio.create_task(answer_of(layer([1, 1]))) for _ in range(3)]
            await _settled()
            server.reading.set()
            assert await asyncio.gather(*waiting) == [[[1], [1]]] * 3
            assert server.asked == ["get", "put", "get"]
            assert counted(tally) == {"misses": 1, "hits": 6}
            assert timed(tally) == {"miss_ns": 1, "hit_ns": 3}

        asyncio.run(scenario())

    def test_a_store_that_is_away_is_left_alone_for_a_while_and_counted_once_a_request(self) -> None:
        async def scenario() -> None:
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

        asyncio.run(scenario())

    def test_a_store_that_goes_away_before_it_is_told_the_answer_is_missed_once(self) -> None:
        async def scenario() -> None:
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

        asyncio.run(scenario())

    def test_those_who_miss_the_same_wait_for_one_call_while_the_store_is_away_too(self) -> None:
        async def scenario() -> None:
            server, model = Server(), SlowModel()
            server.away = "get"
            layer, tally = caching(model, store=server)
            waiting = [asyncio.create_task(answer_of(layer([1]))) for _ in range(3)]
            await model.asked.wait()
            model.go.set()
            assert await asyncio.gather(*waiting) == [[[1]]] * 3
            assert counted(tally) == {"misses": 1, "coalesced": 2, "store_errors": 1}

        asyncio.run(scenario())
