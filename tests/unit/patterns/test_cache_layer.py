"""The layer of ``Cached``: right outputs for any requests, keys of inputs, capacity and lifetime."""

import asyncio
import math
import threading
from collections import OrderedDict
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.caching import MS, Clock, Model, Server, answer_of, caching, counted, in_a_moment, timed
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.patterns.cached import Cached
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.wire.kserve_v1 import encode_predictions
from pytest_mlpatterns.workload.input_order import Zipf, zipf_probabilities

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

    def test_hits_in_memory_need_no_event_loop(self) -> None:
        layer, tally = caching(lambda batch: [["output"] for _ in batch])
        first = layer([1])
        again = layer([1, 1])
        assert isinstance(first, list)
        assert again == [["output"], ["output"]]
        assert timed(tally) == {"miss_ns": 1, "hit_ns": 1}
        assert counted(tally) == {"misses": 1, "hits": 2}

    @pytest.mark.parametrize("output", [{"score": [0.5]}, [[0.5]], np.array([0.5])], ids=lambda one: type(one).__name__)
    def test_a_stage_that_changes_outputs_in_place_changes_no_entry(self, output: Any) -> None:
        layer, _ = caching(lambda _batch: [output])
        for _ in range(3):
            (found,) = layer([1])  # type: ignore[misc]
            assert encode_predictions([found]) == encode_predictions([output])
            inner = found["score"] if isinstance(found, dict) else found
            inner[0] = 100

    def test_a_model_that_uses_its_output_buffer_again_changes_no_entry(self) -> None:
        buffer = np.zeros((1, 2))

        def model(batch: list[int]) -> Any:
            buffer[:] = batch[0]
            return buffer

        layer, _ = caching(model)
        layer.returns_copies = False  # as the outermost layer of a process
        assert [np.asarray(layer([one])).tolist() for one in (1, 2, 1)] == [[[1, 1]], [[2, 2]], [[1, 1]]]

    def test_an_output_that_cannot_be_copied_is_refused_by_its_type(self) -> None:
        layer, _ = caching(lambda _: [threading.Lock()])
        with pytest.raises(RequestError, match=r"^Cached cannot keep an output of type lock, because it cannot be"):
            layer([1])

    def test_no_input_is_answered_by_nothing(self) -> None:
        layer, _ = caching(Model())
        assert layer([]) == []
        stored, _ = caching(Model(), store=Server())
        assert asyncio.run(answer_of(stored([]))) == []

    @each_row(
        "outputs",
        np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32),
        np.array([0.1, 0.7], dtype=np.float32),
        np.array([1, 2]),
        np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=np.float16)[:, ::2],
        ({"b": 1, "a": (2, None)}, {3}),
    )
    @each_row("store", [False, True])
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
    @each_row(
        ("one", "other"),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ([None, 1], (None, 1)),
        ([np.array([1.5, 2.5])], [[1.5, 2.5]]),
        (np.array([[1, 3], [2, 4]]), np.array([[1, 2], [3, 4]]).T),
        ({"a": np.ones(2), "b": b"x"}, {"b": b"x", "a": np.ones(2)}),
        (np.float32(1.5), np.array(1.5, dtype=np.float32)),
        (np.array([30, "Ada"], dtype=object), np.array(["Ada", 30], dtype=object)[::-1]),
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
        inputs += [np.array([30, "Ada"], dtype=object), np.array([30, None], dtype=object)]
        texts = np.array(["Ada"], dtype=object)
        inputs += [{"text": texts, "x": np.array([1], dtype=dtype)} for dtype in ("i1", "i8")]
        inputs += [{"text": texts, "x": np.zeros(shape)} for shape in ((0,), (0, 3))]
        model = Model()
        layer, _ = caching(model)
        layer(inputs)
        assert len(model.inputs) == len(inputs)
        layer([math.nan, [math.nan]])
        assert len(model.calls) == 1

    @pytest.mark.parametrize("dtype", [object, [("rows", object)]], ids=["objects", "records"])
    def test_an_array_of_objects_is_known_by_their_values_not_by_their_addresses(self, dtype: Any) -> None:
        row = [1]
        array = np.empty(2, dtype=dtype)[::-1]  # not contiguous
        fields = array["rows"] if array.dtype.names else array
        fields[:] = [row, row]
        model = Model()
        layer, _ = caching(model)
        layer([array])
        row[0] = 2
        layer([array])
        assert len(model.inputs) == 2

    @each_row("instance", [object(), {1: 2}, {1, 2}, np.array([object(), None]), [date(2026, 1, 1), None]])
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
        draws = np.frombuffer(Zipf([0], exponent).order(count), dtype=np.uint32)[:25_000].tolist()
        model = Model()
        layer, tally = caching(model, Cached(max_entries=capacity))
        for one in draws[:5_000]:
            layer([one])
        before = tally.snapshot()
        for one in draws[5_000:]:
            layer([one])
        counters = tally.snapshot().since(before).counters
        ratio = counters["hits"] / (counters["hits"] + counters["misses"])
        assert ratio == pytest.approx(_lru_hit_ratio(zipf_probabilities(count, exponent), capacity), abs=0.01)


def _lru_hit_ratio(probabilities: Any, capacity: int) -> float:
    """Che's approximation: inputs stay for a time T such that ``capacity`` of them are there on average."""
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        held = float(np.sum(-np.expm1(-probabilities * middle)))
        low, high = (middle, high) if held < capacity else (low, middle)
    return float(np.sum(probabilities * -np.expm1(-probabilities * low)))
