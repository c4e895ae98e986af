"""A cascade: which model answers what, in which order, what is counted, and what is refused."""

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import FEW

from pytest_mlpatterns import Batched, Cascade, SettingError
from pytest_mlpatterns.patterns.cascade import CascadeLayer, Decision
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.pattern import LayerNode, ModelNode, ProcessGroup
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.package_layers import derived_metrics
from pytest_mlpatterns.records.telemetry import PatternStats


def cheap(batch: list[int]) -> list[int]:
    return [-one for one in batch]


def heavy(batch: list[int]) -> list[int]:
    return [100 * one for one in batch]


async def cheap_later(batch: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return cheap(batch)


async def heavy_later(batch: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return heavy(batch)


def odd(one: int, output: int) -> bool:
    assert output == -one
    return one % 2 == 1


def cascade(first: Any = cheap, second: Any = heavy, when: Any = odd) -> tuple[CascadeLayer, Tally]:
    tally = Tally(0, "cascade")
    return CascadeLayer(Cascade(cheap, heavy, odd), (first, second, Decision(when)), tally), tally  # type: ignore[arg-type]


def answers(layer: CascadeLayer, inputs: list[int]) -> Sequence[Any]:
    async def awaited() -> Sequence[Any]:
        answer = layer(inputs)
        return await answer if inspect.isawaitable(answer) else answer

    return asyncio.run(awaited())


@FEW
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=20), st.booleans(), st.booleans())
def test_each_input_has_the_answer_of_the_right_model(inputs: list[int], first_waits: bool, second_waits: bool) -> None:
    layer, tally = cascade(cheap_later if first_waits else cheap, heavy_later if second_waits else heavy)
    assert list(answers(layer, inputs)) == [100 * one if one % 2 else -one for one in inputs]
    counters = tally.snapshot().counters
    assert (counters["kept"] + counters["escalated"]) == len(inputs)
    assert counters["escalated"] == sum(one % 2 for one in inputs)
    assert layer.needs_loop is (first_waits or second_waits)


def test_the_heavy_model_is_asked_once_for_all_that_go_on() -> None:
    asked: list[list[int]] = []

    def noted(batch: list[int]) -> list[int]:
        asked.append(batch)
        return heavy(batch)

    layer, tally = cascade(second=noted)
    assert list(answers(layer, [1, 2, 3])) == [100, -2, 300]
    assert list(answers(layer, [2, 4])) == [-2, -4]
    assert asked == [[1, 3]]
    figures = derived_metrics(PatternStats(layers=(tally.snapshot(),)))
    assert figures["escalation_share"].value == pytest.approx(0.4)
    assert set(figures) == {"escalation_share", "cascade_first", "cascade_second"}


@pytest.mark.parametrize(("first", "second"), [(lambda _: [1], heavy), (cheap, lambda _: [])])
def test_a_model_that_loses_an_output_is_named(first: Any, second: Any) -> None:
    layer, _ = cascade(first, second, lambda _given, _output: True)
    with pytest.raises(RequestError, match=r"model \w+ of cascade\(.*returned \d outputs? for"):
        answers(layer, [1, 2, 3])


def test_a_model_that_streams_is_refused() -> None:
    def streaming(batch: list[int]) -> Any:
        yield from batch

    layer, _ = cascade(first=streaming)
    with pytest.raises(RequestError, match="streams its answer, and Cascade needs whole ones"):
        answers(layer, [1])


def test_the_rest_of_a_composition_stands_around_the_model() -> None:
    node = (Cascade(cheap, "model", odd) | Batched()).plan().inside
    assert isinstance(node, LayerNode)
    first, second, when = node.inside
    assert isinstance(first, ModelNode)
    assert isinstance(second, LayerNode)
    assert isinstance(second.pattern, Batched)
    assert isinstance(when, ModelNode)
    assert node.pattern.inside_names == ("cheap", "model", "when")


def test_each_model_may_have_a_process() -> None:
    pattern = Cascade("model", heavy, odd, processes=True, env={"OMP_NUM_THREADS": "1"})
    node = pattern.plan().inside
    assert isinstance(node, LayerNode)
    assert [type(one) for one in node.inside] == [ProcessGroup, ProcessGroup, ModelNode]
    assert dict(node.inside[0].env) == {"OMP_NUM_THREADS": "1"}  # type: ignore[union-attr]
    assert not node.env


def test_it_is_printed_with_names_and_travels_without_its_functions() -> None:
    pattern = Cascade(cheap, "model", odd)
    assert str(pattern) == "cascade(first=cheap,when=odd)"
    plain = pattern.without_callables()
    assert plain.inside_names == pattern.inside_names
    assert plain.when is not odd  # type: ignore[attr-defined]


@each_row(
    ("arguments", "words"),
    ((), "holds None, expected a callable, a class, an import string"),
    ((cheap, "model"), "Cascade(when=None), expected a function of an input and the first model's output; write"),
    (("model", "model", odd), 'names "model" 2 times'),
    ((cheap, 3, odd), "holds 3, expected a callable"),
    ((cheap, "model", cheap_later), "Cascade(when=...) is cheap_later, an async function, and calling it runs"),
    ((cheap, "model", odd, "yes"), "Cascade(processes='yes'), expected True or False"),
)
def test_what_is_no_cascade_is_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(SettingError) as caught:
        Cascade(*arguments)
    assert words in str(caught.value)


def test_a_decision_that_is_still_to_be_made_is_no_yes() -> None:
    decision = Decision(lambda given, _output: cheap_later([given]))
    with pytest.raises(SettingError, match=r"Cascade\(when=...\) returned an unfinished coroutine"):
        decision([(1, -1)])
    assert Decision(lambda given, _output: given)([(0, 0), (1, 1)]) == [False, True]


def test_nothing_follows_a_cascade_without_the_model() -> None:
    with pytest.raises(SettingError, match="nothing can follow"):
        _ = (Cascade(cheap, heavy, odd) | Batched()).plan()
