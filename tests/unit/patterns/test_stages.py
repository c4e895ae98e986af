"""Pipelines and ensembles as layers: what goes on to whom, what is counted, and what happens where one fails."""

import asyncio
import gc
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.scenarios import run, settle
from support.synthetic import PROPERTY

from pytest_mlpatterns.patterns.batched import Batched, BatchLayer
from pytest_mlpatterns.patterns.ensemble import Ensemble, EnsembleLayer
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.pipeline import Pipeline, PipelineLayer
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.http.model_caller import ModelCaller


def plus_one(inputs: Sequence[int]) -> list[int]:
    return [one + 1 for one in inputs]


def doubled(inputs: Sequence[int]) -> list[int]:
    return [one * 2 for one in inputs]


def as_array(inputs: Sequence[int]) -> Any:
    return np.array(inputs)


async def minus_three(inputs: Sequence[int]) -> list[int]:
    await asyncio.sleep(0)
    return [one - 3 for one in inputs]


async def answered(layer: PipelineLayer, inputs: list[Any]) -> Any:
    outputs = layer(inputs)
    return await outputs if inspect.isawaitable(outputs) else outputs


def staging(*stages: Any) -> tuple[PipelineLayer, Tally]:
    tally = Tally(1, "pipeline")
    names = [f"{number}" for number, _ in enumerate(stages)]
    return PipelineLayer(Pipeline([plus_one, doubled]), stages, names, tally=tally), tally


class Model:
    """A model in another process: it answers when the test says so, and knows whether it was cancelled."""

    def __init__(self) -> None:
        self.given: list[list[Any]] = []
        self.was_cancelled = False
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def __call__(self, inputs: list[Any]) -> Any:
        self.given.append(inputs)
        try:
            return await self.answer
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # it takes a while to give up
            self.was_cancelled = True
            raise


def gathering(*models: Any, combine: Callable[[list[Any]], Any] | None = None) -> tuple[EnsembleLayer, Tally]:
    tally = Tally(0, "ensemble")
    names = "abcdefg"[: len(models)]
    return EnsembleLayer(Ensemble([plus_one, doubled]), models, names, combine=combine, tally=tally), tally


# --- pipelines


STAGES = st.lists(st.sampled_from([plus_one, doubled, minus_three, as_array]), min_size=2, max_size=6)


@PROPERTY
@given(STAGES, st.lists(st.integers(-100, 100), min_size=1, max_size=5))
def test_a_pipeline_is_its_stages_in_turn_whichever_of_them_are_awaited(stages: list[Any], inputs: list[int]) -> None:
    async def expected() -> list[int]:
        values: Any = inputs
        for stage in stages:
            values = await stage(values) if stage is minus_three else stage(values)
        return list(values)

    async def scenario() -> None:
        layer, tally = staging(*stages)
        assert layer.needs_loop is (minus_three in stages)
        outputs: Any = layer(inputs)
        if minus_three in stages:
            outputs = await outputs
        assert list(outputs) == await expected()
        histograms = tally.snapshot().histograms
        assert sorted(histograms) == [f"stage:{number}" for number in range(len(stages))]
        assert all(sum(spread.values()) == 1 for spread in histograms.values())

    run(scenario())


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize(
    ("returns", "found"),
    [
        (lambda inputs: inputs[:1], "returned 1 output for 2 inputs; it must return one for each"),
        (lambda _: 5, "returned int, which has no length; it must return a list of outputs"),
    ],
)
async def test_a_stage_that_does_not_return_one_output_for_each_input_is_named(
    returns: Callable[[list[Any]], Any], found: str, awaited: bool
) -> None:
    layer, _ = staging(*([minus_three] if awaited else []), plus_one, returns, doubled)
    with pytest.raises(RequestError) as caught:
        await answered(layer, [1, 2])
    assert caught.value.status == 500
    stage = 2 if awaited else 1
    assert str(caught.value) == f"stage {stage} of pipeline(stages=[plus_one,doubled]) {found}"


class Frame(dict[str, list[int]]):
    """As long as it has rows, and gone through by its columns, as a data frame is."""

    columns = ("value",)

    def __len__(self) -> int:
        return len(self["value"])


async def test_a_stage_may_hand_a_frame_to_the_next_but_the_last_returns_outputs() -> None:
    def framed(inputs: list[int]) -> Frame:
        return Frame(value=inputs)

    def unframed(frame: Frame) -> list[int]:
        return frame["value"]

    layer, _ = staging(framed, unframed)
    assert await answered(layer, [1, 2]) == [1, 2]
    layer, _ = staging(framed)
    with pytest.raises(RequestError, match=r"stage 0 .* returned Frame for 2 inputs, expected a list with one"):
        await answered(layer, [1, 2])


def fails(_: Sequence[int]) -> list[int]:
    raise ZeroDivisionError("of the user's")


async def test_requests_of_a_pipeline_can_be_in_different_stages() -> None:
    first, second = Model(), Model()
    models = iter([first, second])

    def either(inputs: list[int]) -> Any:
        return next(models)(inputs)

    layer, _ = staging(either, plus_one)
    one, other = (asyncio.create_task(answered(layer, [number])) for number in (1, 2))
    await settle()
    second.answer.set_result([20])
    assert await other == [21]
    assert not one.done()
    first.answer.set_result([10])
    assert await one == [11]


async def test_a_pipeline_in_batches_runs_its_plain_stages_in_the_thread() -> None:
    plain, _ = staging(plus_one, doubled)
    mixed, _ = staging(plus_one, minus_three)
    for inner, answers in ((plain, [[4], [6]]), (mixed, [[-1], [0]])):
        tally = Tally(0, "batched")
        layer = BatchLayer(Batched(), inner, tally)
        assert await asyncio.gather(layer([1]), layer([2])) == answers
        assert tally.snapshot().counters["calls"] == 1


# --- ensembles


@each_row(
    ("combine", "answers"),
    [(None, [[2, 2, -2], [3, 4, -1]]), (sum, [2, 6]), (max, [2, 4]), (tuple, [(2, 2, -2), (3, 4, -1)])],
)
def test_the_answers_to_each_input_are_combined_in_the_order_of_the_models(
    combine: Callable[[list[Any]], Any] | None, answers: list[Any]
) -> None:
    layer, tally = gathering(plus_one, doubled, minus_three, combine=combine)
    assert run(layer([1, 2])) == answers
    stats = tally.snapshot()
    assert stats.counters == {"last:c": 1}, "the one that had to be awaited"
    assert {name: sum(spread.values()) for name, spread in stats.histograms.items()} == {
        "model:a": 1,
        "model:b": 1,
        "model:c": 1,
    }


async def test_all_models_are_asked_at_once_and_the_last_to_answer_is_counted() -> None:
    for order, last in (((0, 1, 2), "c"), ((2, 0, 1), "b"), ((1, 2, 0), "a")):
        models = [Model(), Model(), Model()]
        layer, tally = gathering(*models)
        asked = asyncio.create_task(layer([7, 8]))
        await settle()
        assert [model.given for model in models] == [[[7, 8]]] * 3
        for number in order:
            assert not asked.done()
            models[number].answer.set_result([number, -number])
            await settle()
        assert await asked == [[0, 1, 2], [0, -1, -2]]
        assert tally.snapshot().counters == {f"last:{last}": 1}


@pytest.mark.parametrize("also_fails", [False, True])
async def test_one_failing_model_fails_the_request_and_cancels_the_others(also_fails: bool) -> None:
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    models = [Model(), Model(), Model()]
    layer, tally = gathering(*models)
    asked = asyncio.create_task(layer([1]))
    await settle()
    models[1].answer.set_exception(RequestError(503, "the second is full"))
    if also_fails:
        models[2].answer.set_exception(ValueError("too"))
    with pytest.raises(RequestError, match="the second is full"):
        await asked
    assert models[0].was_cancelled, "and it was awaited until it gave up"
    assert models[2].was_cancelled is not also_fails
    assert tally.snapshot().counters == {}
    del asked, models
    gc.collect()
    assert said == []


async def test_a_caller_who_goes_away_ends_what_was_asked() -> None:
    models = [Model(), Model()]
    layer, _ = gathering(*models)
    asked = asyncio.create_task(layer([1]))
    await settle()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert all(model.was_cancelled for model in models)


@each_row(
    "layer",
    *(staging(*stages)[0] for stages in ((plus_one, fails), (minus_three, fails, plus_one), (fails, minus_three))),
    gathering(plus_one, fails)[0],
    gathering(plus_one, doubled, combine=fails)[0],
)
async def test_an_error_of_a_stage_a_model_or_of_combine_keeps_the_users_frames_alone(layer: Any) -> None:
    caller = ModelCaller(layer)
    with pytest.raises(RequestError, match="the model raised ZeroDivisionError: of the user's"):
        await caller([1])
    (text,) = caller.tracebacks
    assert "raise ZeroDivisionError" in text
    assert "pytest_mlpatterns" not in text


def test_a_model_that_does_not_return_one_output_for_each_input_is_named() -> None:
    layer, _ = gathering(plus_one, lambda inputs: inputs[1:])
    with pytest.raises(RequestError) as caught:
        run(layer([1, 2]))
    assert caught.value.status == 500
    assert str(caught.value) == (
        "model b of ensemble(models=[plus_one,doubled]) returned 1 output for 2 inputs; it must return one for each"
    )
