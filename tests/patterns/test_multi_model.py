"""Several models in one process: which are loaded and unloaded when, who waits, what fails, and what is counted."""

from __future__ import annotations

import asyncio
import pickle
import random
import threading
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scenarios import PATIENCE_S, counts, run, settle
from support.synthetic import FEW

from pytest_mlpatterns import Batched, Cached, MultiModel, SettingError
from pytest_mlpatterns.patterns import multi_model
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.multi_model import MultiModelLayer, NamedIn
from pytest_mlpatterns.patterns.pattern import LayerNode, ModelNode
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.layer_kinds import derived_metrics
from pytest_mlpatterns.records.telemetry import PatternStats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

NAMES = "abcd"


class Shelf:
    """Models that note when they are built, called and closed; a gate may hold a load, an error end it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.gates: dict[str, threading.Event] = {}
        self.errors: dict[str, BaseException] = {}
        self.loaded = self.most = 0

    def load(self, name: str) -> Any:
        if (gate := self.gates.get(name)) is not None:
            assert gate.wait(PATIENCE_S)
        if (error := self.errors.get(name)) is not None:
            raise error
        self.events.append(f"load {name}")
        self.loaded += 1
        self.most = max(self.most, self.loaded)
        return Scorer(self, name)


class Scorer:
    def __init__(self, shelf: Shelf, name: str) -> None:
        self.shelf, self.name = shelf, name
        self.is_open = True

    def __call__(self, batch: list[Any]) -> list[str]:
        assert self.is_open
        return [f"{self.name}{one['at']}" for one in batch]

    def close(self) -> None:
        self.is_open = False
        self.shelf.loaded -= 1
        self.shelf.events.append(f"close {self.name}")


class OnDemand:
    def __init__(self, load: Callable[[], Any]) -> None:
        self.load = load


def layer_of(load: Callable[[str], Any], max_loaded: int = 2) -> tuple[MultiModelLayer, Tally]:
    tally = Tally(0, "multimodel")
    pattern = MultiModel(dict.fromkeys(NAMES, len), max_loaded)
    models = {name: OnDemand(partial(load, name)) for name in NAMES}
    return MultiModelLayer(pattern, models, NamedIn(None), tally=tally), tally


def of(name: str, at: int = 0) -> dict[str, Any]:
    return {"model": name, "at": at}


def test_the_least_recently_used_model_is_unloaded() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        ask, tally = layer_of(shelf.load)
        for name in "abacb":
            assert await ask([of(name, 7)]) == [f"{name}7"]
        assert shelf.events == ["load a", "load b", "close b", "load c", "close a", "load b"]
        assert counts(tally) == {"warm": 1, "cold": 4, "unloaded": 2}
        figures = derived_metrics(PatternStats(layers=(tally.snapshot(),)))
        assert figures["cold_hit_share"].value == pytest.approx(0.8)
        assert set(figures) == {"cold_hit_share", "model_load", "cold_wait"}

    run(scenario())


@pytest.mark.parametrize(("order", "share"), [("cyclic", 1.0), ("uniform", 0.5)])
def test_the_cold_share_is_that_of_theory(order: str, share: float) -> None:
    """Of n models in turn an LRU of k < n finds none; of models drawn evenly it finds k of n."""
    drawn = random.Random(5).choices(NAMES, k=600) if order == "uniform" else list(NAMES) * 50

    async def scenario() -> None:
        ask, tally = layer_of(lambda _: lambda batch: batch)
        for name in drawn:
            await ask([of(name)])
        found = counts(tally)
        assert found["cold"] == len(drawn) - lru_hits(drawn, 2)
        assert found["cold"] / len(drawn) == pytest.approx(share, abs=0.06)

    run(scenario())


def lru_hits(drawn: list[str], size: int) -> int:
    held: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for one in drawn:
        hits += one in held
        held[one] = None
        held.move_to_end(one)
        if len(held) > size:
            held.popitem(last=False)
    return hits


def test_requests_for_a_model_that_loads_wait_for_one_load_while_others_are_answered() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        ask, tally = layer_of(shelf.load)
        await ask([of("a")])
        gate = shelf.gates["b"] = threading.Event()
        waiting = [asyncio.create_task(ask([of("b", number)])) for number in range(5)]
        await settle()
        assert await ask([of("a", 9)]) == ["a9"]
        assert not any(task.done() for task in waiting)
        gate.set()
        assert await asyncio.gather(*waiting) == [[f"b{number}"] for number in range(5)]
        assert shelf.events == ["load a", "load b"]
        assert counts(tally) == {"warm": 1, "cold": 6}

    run(scenario())


def test_a_model_that_fails_to_load_fails_its_requests_only_and_is_not_tried_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        shelf = Shelf()
        shelf.errors["b"] = ValueError("no such file")
        ask, tally = layer_of(shelf.load)
        failing = [asyncio.create_task(ask([of("b")])) for _ in range(3)]
        assert await ask([of("a", 1)]) == ["a1"]
        outcomes = await asyncio.gather(*failing, return_exceptions=True)
        assert [str(one) for one in outcomes] == ["no such file"] * 3
        assert outcomes[0].__notes__ == ["while MultiModel loaded the model 'b'"]  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="no such file"):
            await ask([of("b")])
        assert counts(tally) == {"cold": 4, "load_failed": 1}
        del shelf.errors["b"]
        monkeypatch.setattr(multi_model, "perf_counter_ns", lambda: 10**18)
        assert await ask([of("b", 2)]) == ["b2"]

    run(scenario())


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration("end"), KeyboardInterrupt()])
def test_no_error_of_a_load_keeps_its_requests_waiting(error: BaseException) -> None:
    async def scenario() -> None:
        shelf = Shelf()
        shelf.errors["a"] = error
        ask, _ = layer_of(shelf.load)
        with pytest.raises((SystemExit, RuntimeError)):
            await ask([of("a")])
        assert await ask([of("b", 1)]) == ["b1"]

    run(scenario())


def test_a_request_for_several_models_gets_each_output_in_its_place() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        ask, _ = layer_of(shelf.load, max_loaded=1)
        assert await ask([of("a", 0), of("b", 1), of("a", 2), of("c", 3)]) == ["a0", "b1", "a2", "c3"]
        assert await ask([]) == []
        assert shelf.most == 1

    run(scenario())


@FEW
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=30), st.integers(1, 3), st.booleans())
def test_every_caller_is_answered_by_its_model_and_the_bound_holds(
    asked: list[tuple[str, bool]], bound: int, is_plain: bool
) -> None:
    async def scenario() -> None:
        shelf = Shelf()

        def load(name: str) -> Any:
            model = shelf.load(name)

            async def later(batch: list[Any]) -> list[str]:
                await asyncio.sleep(0)
                return model(batch)  # type: ignore[no-any-return]

            if is_plain:
                return model
            later.close = model.close  # type: ignore[attr-defined]
            return later

        ask, _ = layer_of(load, bound)
        tasks = [asyncio.create_task(ask([of(name, at)])) for at, (name, _) in enumerate(asked)]
        await asyncio.sleep(0)
        for task, (_, leaves) in zip(tasks, asked, strict=True):
            if leaves:
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for at, (outcome, (name, leaves)) in enumerate(zip(outcomes, asked, strict=True)):
            assert outcome == [f"{name}{at}"] or (leaves and isinstance(outcome, asyncio.CancelledError))
        assert await ask([of("d", 1)]) == ["d1"]
        assert shelf.most <= bound

    run(scenario())


def test_a_model_in_use_is_unloaded_when_its_calls_have_ended_and_gets_no_new_ones() -> None:
    async def scenario() -> None:
        events: list[str] = []
        answers: dict[str, asyncio.Future[list[str]]] = {}

        def load(name: str) -> Any:
            events.append(f"load {name}")

            async def model(batch: list[Any]) -> list[str]:
                answers[batch[0]["at"]] = answer = asyncio.get_running_loop().create_future()
                return await answer

            async def close() -> None:
                events.append(f"close {name}")

            model.close = close  # type: ignore[attr-defined]
            return model

        ask, _ = layer_of(load, max_loaded=1)
        tasks = [asyncio.create_task(ask([of("a", 1)]))]
        while not answers:
            await asyncio.sleep(0.001)
        tasks.append(asyncio.create_task(ask([of("b", 2)])))
        await settle()
        tasks.append(asyncio.create_task(ask([of("a", 3)])))
        await settle()
        assert (events, list(answers)) == (["load a"], [1])
        answers[1].set_result(["first"])
        while 2 not in answers:
            await asyncio.sleep(0.001)
        assert events == ["load a", "close a", "load b"]
        answers[2].set_result(["second"])
        while 3 not in answers:
            await asyncio.sleep(0.001)
        answers[3].set_result(["third"])
        assert await asyncio.gather(*tasks) == [["first"], ["second"], ["third"]]
        assert events == ["load a", "close a", "load b", "close b", "load a"]

    run(scenario())


def test_a_plain_model_whose_caller_has_gone_is_not_closed_under_its_call() -> None:
    async def scenario() -> None:
        entered, gate, ended = threading.Event(), threading.Event(), threading.Event()

        class Slow:
            def __call__(self, batch: list[Any]) -> list[Any]:
                entered.set()
                assert gate.wait(PATIENCE_S)
                ended.set()
                return batch

            def close(self) -> None:
                assert ended.is_set()

        ask, tally = layer_of(lambda name: Slow() if name == "a" else (lambda batch: batch), max_loaded=1)
        gone = asyncio.create_task(ask([of("a")]))
        assert await asyncio.to_thread(entered.wait, PATIENCE_S)
        gone.cancel()
        other = asyncio.create_task(ask([of("b")]))
        await settle()
        assert not other.done()
        gate.set()
        assert await other == [of("b")]
        assert counts(tally) == {"cold": 2, "unloaded": 1}
        with pytest.raises(asyncio.CancelledError):
            await gone

    run(scenario())


def test_an_error_of_close_is_counted_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    def load(name: str) -> Any:
        def model(batch: list[Any]) -> list[Any]:
            return batch

        def close() -> None:
            raise OSError(f"cannot close {name}")

        model.close = close  # type: ignore[attr-defined]
        return model

    async def scenario() -> None:
        ask, tally = layer_of(load, max_loaded=1)
        for name in "ab":
            assert await ask([of(name)]) == [of(name)]
        assert counts(tally) == {"cold": 2, "unloaded": 1, "close_failed": 1}

    run(scenario())
    assert "cannot close a" in capsys.readouterr().err


def plain_chunks(batch: list[Any]) -> Iterator[str]:
    yield from (f"{batch[0]['model']}{number}" for number in range(3))


async def later_chunks(batch: list[Any]) -> AsyncIterator[str]:
    for chunk in plain_chunks(batch):
        yield chunk


@pytest.mark.parametrize("model", [plain_chunks, later_chunks])
def test_a_model_stays_loaded_until_its_stream_has_ended(model: Any) -> None:
    async def scenario() -> None:
        ask, tally = layer_of(lambda _: model, max_loaded=1)
        stream = await ask([of("a")])
        assert isinstance(stream, Stream)
        other = asyncio.create_task(ask([of("b")]))
        await settle()
        assert not other.done()
        assert [chunk async for chunk in stream] == ["a0", "a1", "a2"]
        assert [chunk async for chunk in await other] == ["b0", "b1", "b2"]
        assert counts(tally)["unloaded"] == 1

    run(scenario())


def test_a_stream_answers_a_request_for_one_model_only() -> None:
    async def scenario() -> None:
        ask, _ = layer_of(lambda _: later_chunks)
        with pytest.raises(RequestError, match="model a streams its answer, so a request for it may have no other"):
            await ask([of("a"), of("b")])
        with pytest.raises(RequestError, match="model a streams its answer, and the request has 2 inputs"):
            await ask([of("a"), of("a")])

    run(scenario())


@pytest.mark.parametrize("load", [lambda _: lambda _batch: [], lambda _: lambda _batch: 1 / 0])
def test_a_model_that_fails_stays_loaded_and_is_free(load: Any) -> None:
    async def scenario() -> None:
        ask, tally = layer_of(load, max_loaded=1)
        for name in "aab":
            with pytest.raises((RequestError, ZeroDivisionError), match=r"model [ab] returned 0 outputs|division"):
                await ask([of(name)])
        assert counts(tally) == {"cold": 2, "warm": 1, "unloaded": 1}

    run(scenario())


@pytest.mark.parametrize(
    "name", ["a", b"a", ["a"], [b"a"], np.array(["a"]), np.array([b"a"], dtype=object), np.str_("a")]
)
def test_a_member_may_be_what_a_wire_makes_of_text(name: Any) -> None:
    async def scenario() -> None:
        ask, _ = layer_of(lambda _: lambda batch: ["answered"] * len(batch))
        assert await ask([{"model": name}]) == ["answered"]

    run(scenario())


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"model": "x"}, 404, "the model 'x' does not exist, expected 'a', 'b', 'c' or 'd'"),
        ({"model": 3}, 404, "the model 3 does not exist"),
        ({"model": ["a", "b"]}, 404, "does not exist"),
        ({"at": 3}, 400, 'which names no model; send an object with the member "model"'),
        ([1.0], 400, "an input is [1.0], which names no model"),
    ],
)
def test_an_input_without_a_known_model_is_refused(given: Any, status: int, words: str) -> None:
    async def scenario() -> None:
        ask, tally = layer_of(lambda _: len)
        with pytest.raises(RequestError) as refused:
            await ask([given])
        assert refused.value.status == status
        assert words in str(refused.value)
        assert counts(tally) == {}

    run(scenario())


def test_of_many_models_an_error_lists_some() -> None:
    pattern = MultiModel({f"tenant-{number}": len for number in range(40)})
    layer = MultiModelLayer(pattern, dict.fromkeys(pattern.models), NamedIn(str), tally=Tally(0, "multimodel"))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="'tenant-6' or 33 others"):
        run(layer(["x"]))


def test_key_names_the_model() -> None:
    assert NamedIn(lambda given: given[0])(["ab", "cd"]) == ["a", "c"]


def tenant(batch: list[Any]) -> list[Any]:
    return batch


def first(given: Any) -> str:
    return str(given[0])


def test_it_is_built_as_models_that_are_loaded_later_and_a_key() -> None:
    pattern = MultiModel({"de": tenant, "en": "model"}, key=first, env={"OMP_NUM_THREADS": "1"})
    node = pattern.plan().inside
    assert isinstance(node, LayerNode)
    *models, key = node.inside
    assert models == [ModelNode(tenant, "de", on_demand=True), ModelNode("model", "en", on_demand=True)]
    assert isinstance(key, ModelNode)
    assert not key.on_demand
    assert dict(node.env) == {"OMP_NUM_THREADS": "1"}
    assert pattern.inside_names == ("", "", "key")
    assert pattern.model_names == ("de", "en")
    assert pattern.taken_at_once == 2


def test_it_is_printed_with_names_and_travels_without_its_functions() -> None:
    pattern = MultiModel({"de": tenant, "a|b": partial(Scorer, 1)}, max_loaded=1, key=first)
    assert str(pattern) == "multimodel(models={de:tenant,'a|b':Scorer},max_loaded=1,key=first)"
    assert repr(pattern.models).startswith("{'de': <function tenant")
    plain = pickle.loads(pickle.dumps(pattern.without_callables()))
    assert list(plain.models) == ["de", "a|b"]
    assert plain.key is None
    assert pattern == MultiModel({"de": tenant, "a|b": pattern.models["a|b"]}, 1, first)
    assert len({pattern, MultiModel({"de": tenant})}) == 2
    many = MultiModel({f"t{number}": tenant for number in range(100)})
    assert str(many) == "multimodel(models={t0:tenant,t1:tenant,97 more,t99:tenant})"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "MultiModel(models=...) has 0 models, expected 1 to 1,000; write models="),
        ({"models": [tenant]}, "expected a mapping of names to models; write models="),
        ({"models": {"": tenant}}, "MultiModel(models=...) has the name '', expected text"),
        ({"models": {3: tenant}}, "MultiModel(models=...) has the name 3, expected text"),
        ({"models": {"de": 3}}, "MultiModel(models=...) has as de 3, expected a callable, a class, an import string"),
        ({"models": {"de": tenant}, "max_loaded": 0}, "MultiModel(max_loaded=0), expected a whole number from 1 to"),
        ({"models": {"de": tenant}, "key": "language"}, "MultiModel(key='language'), expected a function of an input"),
    ],
)
def test_what_is_none_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError) as caught:
        MultiModel(**arguments)
    assert words in str(caught.value)


def test_nothing_follows_it() -> None:
    with pytest.raises(SettingError, match="nothing can follow, since its models are loaded and unloaded while"):
        _ = MultiModel({"de": tenant}) | Batched()
    assert str(Cached() | MultiModel({"de": tenant})) == "cached|multimodel(models={de:tenant})"
