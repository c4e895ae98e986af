"""A shadow: what is copied and compared, that the live path neither waits for it nor depends on it, what is counted."""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.scenarios import PATIENCE_S, counts, run

from pytest_mlpatterns import Batched, Queued, SettingError, Shadowed
from pytest_mlpatterns.patterns.layer import DecodedInputs, RequestError
from pytest_mlpatterns.patterns.model_thread import ModelThread
from pytest_mlpatterns.patterns.pattern import LayerNode, ModelNode, ProcessGroup
from pytest_mlpatterns.patterns.request_clock import RequestClock, current_clock, set_clock
from pytest_mlpatterns.patterns.shadowed import Comparison, ShadowLayer
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.layer_kinds import derived_metrics
from pytest_mlpatterns.records.telemetry import PatternStats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def live(batch: list[int]) -> list[int]:
    return [10 * one for one in batch]


async def live_later(batch: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return live(batch)


def wrong_for_fifths(batch: list[int]) -> list[int]:
    return [10 * one + (one % 5 == 0) for one in batch]


async def wrong_for_fifths_later(batch: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return wrong_for_fifths(batch)


def returns_awaitable(batch: list[int]) -> Any:
    return wrong_for_fifths_later(batch)


class Asked:
    """A layer, and how it is asked and watched."""

    def __init__(self, answer: Any = live, shadow: Any = live, same: Any = None, **arguments: Any) -> None:
        self.tally = Tally(0, "shadowed")
        pattern = Shadowed(wrong_for_fifths, **arguments)
        self.layer = ShadowLayer(pattern, (answer, shadow, Comparison(same)), self.tally)

    async def __call__(self, *inputs: Any) -> Any:
        await self.layer.start()
        outputs: Any = self.layer(list(inputs))
        return await outputs if inspect.isawaitable(outputs) else outputs

    async def compared(self, number: int) -> dict[str, int]:
        """Wait until this many inputs were compared, failed or were dropped."""
        while sum(self.counts(name) for name in ("same", "different", "failed", "dropped")) < number:
            await asyncio.sleep(0.001)
        return {name: times for name, times in counts(self.tally).items() if times}

    def counts(self, name: str) -> int:
        return counts(self.tally).get(name, 0)


@pytest.mark.parametrize("answer", [live, live_later])
@pytest.mark.parametrize("shadow", [wrong_for_fifths, wrong_for_fifths_later, returns_awaitable])
def test_the_live_answers_stay_and_the_agreement_is_that_of_the_models(answer: Any, shadow: Any) -> None:
    async def scenario() -> None:
        ask = Asked(answer, shadow)
        for number in range(20):
            assert await ask(2 * number, 2 * number + 1) == [20 * number, 20 * number + 10]
        assert await ask.compared(40) == {"copied": 40, "same": 32, "different": 8}
        figures = derived_metrics(PatternStats(layers=(ask.tally.snapshot(),)))
        assert figures["agreement"].value == pytest.approx(0.8)
        assert set(figures) == {"agreement", "shadow_cost", "shadow_time", "shadow_dropped"}
        assert ask.layer.needs_loop is (answer is live_later)

    run(scenario())


def test_same_decides_what_agrees() -> None:
    async def scenario() -> None:
        ask = Asked(shadow=wrong_for_fifths, same=lambda answer, other: abs(answer - other) < 2)
        await ask(0, 1, 5)
        assert await ask.compared(3) == {"copied": 3, "same": 3}

    run(scenario())


def test_the_choice_of_what_is_copied_is_seeded() -> None:
    async def chosen(seed: int) -> list[int]:
        seen: list[int] = []

        def shadow(batch: list[int]) -> list[int]:
            seen.extend(batch)
            return live(batch)

        ask = Asked(shadow=shadow, share=0.25, seed=seed)
        for number in range(400):
            await ask(number)
            await ask.compared(ask.counts("copied"))
        return seen

    draws = random.Random(3)
    expected = [number for number in range(400) if draws.random() < 0.25]
    assert run(chosen(3)) == expected
    assert 60 < len(expected) < 140
    assert run(chosen(4)) != expected


def test_the_live_path_never_waits_and_what_is_beyond_the_bound_is_dropped() -> None:
    async def scenario() -> None:
        gate = threading.Event()

        def shadow(batch: list[int]) -> list[int]:
            assert gate.wait(PATIENCE_S)
            return live(batch)

        ask = Asked(shadow=shadow, max_waiting=3)
        for number in range(10):
            assert await ask(number) == [10 * number]
        assert (ask.counts("copied"), ask.counts("dropped")) == (3, 7)
        gate.set()
        assert await ask.compared(10) == {"copied": 3, "dropped": 7, "same": 3}
        await ask(1)
        assert (await ask.compared(11))["copied"] == 4  # the places are free again

    run(scenario())


def test_a_bound_is_kept_when_many_requests_are_answered_at_once() -> None:
    async def scenario() -> None:
        gate, inside = asyncio.Event(), []

        async def shadow(batch: list[int]) -> list[int]:
            inside.append(batch)
            await gate.wait()
            return live(batch)

        ask = Asked(live_later, shadow, max_waiting=2)
        await asyncio.gather(*(ask(number) for number in range(9)))
        assert (ask.counts("copied"), ask.counts("dropped")) == (2, 7)
        gate.set()
        assert (await ask.compared(9))["same"] == 2
        assert len(inside) == 2

    run(scenario())


def raises(batch: list[Any]) -> list[Any]:
    raise ValueError("broken shadow")


async def raises_later(batch: list[Any]) -> list[Any]:
    raises(batch)
    return batch


async def exits_later(batch: list[Any]) -> list[Any]:
    await asyncio.sleep(0)
    raise SystemExit(3)


def loses_an_output(batch: list[Any]) -> list[Any]:
    return batch[1:]


@pytest.mark.parametrize("shadow", [raises, raises_later, exits_later, loses_an_output, len])
def test_a_shadow_that_fails_is_counted_and_changes_nothing(shadow: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        ask = Asked(shadow=shadow, max_waiting=2)
        for number in range(1, 6):
            assert await ask(number) == [10 * number]
            assert await ask.compared(number) == {"copied": number, "failed": number}

    run(scenario())
    assert capsys.readouterr().err.count("Traceback") == 1


def test_a_comparison_that_fails_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        ask = Asked(same=lambda _answer, _other: 1 / 0)
        assert await ask(1) == [10]
        assert await ask.compared(1) == {"copied": 1, "failed": 1}

    run(scenario())
    assert "division by zero" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [raises, raises_later, loses_an_output])
def test_what_the_live_path_could_not_answer_is_not_copied(answer: Any) -> None:
    async def scenario() -> None:
        ask = Asked(answer)
        for _ in range(3):
            if answer is loses_an_output:
                assert await ask(1) == []
            else:
                with pytest.raises(ValueError, match="broken shadow"):
                    await ask(1)
        assert counts(ask.tally) == {}

    run(scenario())


def test_the_shadow_gets_the_inputs_as_they_were_and_is_compared_with_the_outputs_as_they_were() -> None:
    async def scenario() -> None:
        buffer = [0]

        def changes_all(batch: list[list[int]]) -> list[list[int]]:
            buffer[0] = batch[0][0]
            batch[0][0] = -1
            return [buffer]

        ask = Asked(changes_all, shadow=list)
        for number in range(5):
            assert await ask([number]) == [[number]]
        assert await ask.compared(5) == {"copied": 5, "same": 5}

        decoded = DecodedInputs([[7]], lambda: [[7]])
        assert ask.layer(decoded) == [[7]]
        assert decoded == [[-1]]
        assert await ask.compared(6) == {"copied": 6, "same": 6}

    run(scenario())


def test_a_live_path_that_repeats_its_calls_gets_inputs_that_can_be_decoded_again() -> None:
    given: list[type] = []

    def noted(batch: list[Any]) -> list[Any]:
        given.append(type(batch))
        return batch

    inputs = DecodedInputs([1], lambda: [1])
    layer = Asked(noted, share=1e-9).layer
    assert layer.retries
    layer(inputs)
    noted.retries = True  # type: ignore[attr-defined]
    Asked(noted, share=1e-9).layer(inputs)
    assert given == [list, DecodedInputs]


class Uncopied:
    def __deepcopy__(self, _memo: object) -> Any:
        raise TypeError("cannot be copied")


def test_what_cannot_be_copied_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        ask = Asked(list)
        one = Uncopied()
        assert await ask(one) == [one]
        assert await ask.compared(1) == {"failed": 1}
        ask = Asked(lambda batch: [one])
        assert await ask(3) == [one]
        assert await ask.compared(1) == {"failed": 1}

        async def chunks(batch: list[Any]) -> AsyncIterator[Any]:
            yield one
            yield one

        ask = Asked(chunks)
        assert [chunk async for chunk in await ask(3)] == [one, one]
        assert await ask.compared(1) == {"failed": 1}

    run(scenario())
    assert "cannot be copied" in capsys.readouterr().err


def test_the_shadow_charges_no_request() -> None:
    async def scenario() -> None:
        clocks: list[RequestClock | None] = []

        def shadow(batch: list[int]) -> list[int]:
            clocks.append(current_clock())
            return live(batch)

        async def shadow_later(batch: list[int]) -> list[int]:
            return shadow(batch)

        set_clock(RequestClock())
        for one in (shadow, shadow_later):
            ask = Asked(shadow=one)
            await ask(1)
            await ask.compared(1)
        assert clocks == [None, None]

    run(scenario())


def test_a_live_path_without_a_loop_may_be_called_in_a_thread() -> None:
    async def scenario() -> None:
        ask = Asked(shadow=wrong_for_fifths_later)
        await ask.layer.start()
        assert await ModelThread("other").call(ask.layer, [1, 5]) == [10, 50]
        assert await ask.compared(2) == {"copied": 2, "same": 1, "different": 1}

    run(scenario())


def one_by_one(batch: list[str]) -> Iterator[str]:
    yield from batch[0]


async def in_pairs(batch: list[str]) -> AsyncIterator[str]:
    for at in range(0, len(batch[0]), 2):
        yield batch[0][at : at + 2]


async def returns_stream(batch: list[str]) -> Any:
    return [in_pairs(batch)]


class TestStreams:
    @pytest.mark.parametrize("answer", [one_by_one, in_pairs, returns_stream])
    @pytest.mark.parametrize("shadow", [one_by_one, in_pairs, returns_stream, list])
    def test_a_stream_passes_and_its_text_is_compared(self, answer: Any, shadow: Any) -> None:
        async def scenario() -> None:
            ask = Asked(answer, shadow)
            stream = await ask("letters")
            assert isinstance(stream, Stream)
            assert "".join([chunk async for chunk in stream]) == "letters"
            assert await ask.compared(1) == {"copied": 1, "same": 1}

        run(scenario())

    def test_chunks_that_are_no_text_are_compared_as_a_list(self) -> None:
        async def scenario() -> None:
            ask = Asked(lambda batch: (one for one in batch[0]), lambda batch: (one for one in [*batch[0], 4]))
            assert [chunk async for chunk in await ask([1, 2])] == [1, 2]
            assert await ask.compared(1) == {"copied": 1, "different": 1}

        run(scenario())

    def test_a_stream_that_did_not_end_is_not_copied_and_is_closed(self) -> None:
        async def scenario() -> None:
            closed = []

            async def chunks(batch: list[str]) -> AsyncIterator[str]:
                try:
                    for letter in batch[0]:
                        yield letter
                finally:
                    closed.append(True)

            ask = Asked(chunks)
            stream = await ask("letters")
            assert await anext(stream) == "l"
            await stream.aclose()
            assert closed
            assert counts(ask.tally) == {}
            ask = Asked(chunks, share=1e-9)  # nothing is copied
            assert [chunk async for chunk in await ask("ab")] == ["a", "b"]
            assert counts(ask.tally) == {}

        run(scenario())

    def test_a_stream_of_the_shadow_that_fails_is_closed(self, capsys: pytest.CaptureFixture[str]) -> None:
        async def scenario() -> None:
            closed = []

            class Broken:
                def __aiter__(self) -> Broken:
                    return self

                async def __anext__(self) -> str:
                    raise ValueError("lost")

                async def aclose(self) -> None:
                    closed.append(True)

            ask = Asked(one_by_one, lambda _: Stream(Broken()))
            assert [chunk async for chunk in await ask("ab")] == ["a", "b"]
            assert await ask.compared(1) == {"copied": 1, "failed": 1}
            assert closed

        run(scenario())
        assert "ValueError: lost" in capsys.readouterr().err

    def test_a_stream_for_several_inputs_is_refused_as_without_a_shadow(self) -> None:
        async def scenario() -> None:
            with pytest.raises(RequestError, match="the model streams its answer, and the request has 2 inputs"):
                await Asked(one_by_one)("a", "b")

        run(scenario())


def test_the_rest_of_a_composition_is_the_live_path() -> None:
    pattern = Shadowed(wrong_for_fifths, env={"OMP_NUM_THREADS": "1"})
    node = (pattern | Batched()).plan().inside
    assert isinstance(node, LayerNode)
    assert isinstance(node.inside[0], LayerNode)
    assert isinstance(node.inside[0].pattern, Batched)
    assert node.inside[1] == ModelNode(wrong_for_fifths, "wrong_for_fifths")
    assert dict(node.env) == {"OMP_NUM_THREADS": "1"}
    assert node.pattern.inside_names == ("", "wrong_for_fifths", "same")


def test_a_queue_offers_as_many_requests_as_without_a_shadow() -> None:
    for rest, in_flight in ((Shadowed(live) | Batched(max_batch_size=8), 8), (Shadowed(live), 1)):
        queue = (Queued() | rest).plan().inside
        assert isinstance(queue, LayerNode)
        (workers,) = queue.inside
        assert isinstance(workers, ProcessGroup)
        assert workers.in_flight == in_flight


def test_the_shadow_may_have_a_process_that_is_replaced() -> None:
    node = Shadowed("package.model:Model", processes=True, env={"OMP_NUM_THREADS": "1"}).plan().inside
    assert isinstance(node, LayerNode)
    first, group, _ = node.inside
    assert first == ModelNode("model", "model")
    assert isinstance(group, ProcessGroup)
    assert (group.role, group.restart, dict(group.env)) == ("shadow Model", True, {"OMP_NUM_THREADS": "1"})
    assert not node.env


def model(batch: list[Any]) -> list[Any]:
    return batch


def test_it_is_printed_with_names_and_travels_without_its_functions() -> None:
    pattern = Shadowed(wrong_for_fifths, share=0.5, same=max, max_waiting=9)
    assert str(pattern) == "shadowed(other=wrong_for_fifths,share=0.5,same=max,max_waiting=9)"
    assert str(Shadowed(live, share=1)) == "shadowed(other=live)"
    plain = pattern.without_callables()
    assert plain.inside_names == pattern.inside_names
    assert Shadowed(model).inside_names == ("", "model2", "same")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "Shadowed(other=...) is None, expected a callable, a class, an import string"),
        ({"other": "model"}, 'Shadowed(other="model") is perf_model, which the live path serves already; name another'),
        ({"other": live, "share": 0}, "Shadowed(share=0), expected a number above 0 and at most 1; write 0.1"),
        ({"other": live, "share": "5%"}, "Shadowed(share='5%'), expected a number above 0 and at most 1"),
        ({"other": live, "same": 0.1}, "Shadowed(same=0.1), expected a function of two outputs"),
        ({"other": live, "max_waiting": 0}, "Shadowed(max_waiting=0), expected a whole number from 1 to 100,000"),
        ({"other": live, "seed": -1}, "Shadowed(seed=-1), expected a whole number from 0"),
        ({"other": live, "processes": 1}, "Shadowed(processes=1), expected True or False"),
    ],
)
def test_what_is_no_shadow_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError) as caught:
        Shadowed(**arguments)
    assert words in str(caught.value)


def test_a_live_path_that_is_polled_comes_first() -> None:
    with pytest.raises(SettingError, match="answers before there is a result, so it has to come first"):
        _ = Shadowed(live) | Queued(wait=False)
