"""A fallback: who answers what, what a breaker spares, what streams can have, what is counted, and what is refused."""

from __future__ import annotations

import asyncio
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.scenarios import PATIENCE_S, counts, run, settle

from pytest_mlpatterns import Batched, Fallback, Limited, Microservice, Queued, Replicated, SettingError, UnitError
from pytest_mlpatterns.patterns.fallback import FallbackLayer
from pytest_mlpatterns.patterns.layer import DecodedInputs, LostError, RequestError
from pytest_mlpatterns.patterns.pattern import LayerNode, ModelNode, ProcessGroup, name_of
from pytest_mlpatterns.patterns.request_clock import RequestClock, current_clock, set_clock
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.layer_kinds import derived_metrics
from pytest_mlpatterns.records.telemetry import PatternStats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

S = 1_000_000_000
ALL = ("error", "timeout", "rejected")


def cheap(batch: list[int]) -> list[int]:
    return [-one for one in batch]


def heavy(batch: list[int]) -> list[int]:
    return [100 * one for one in batch]


class Model:
    """A model that answers, raises or hangs as the test says."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: BaseException | None = None
        self.hangs = False

    async def __call__(self, batch: list[int]) -> Any:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return heavy(batch)


def fallback(model: Any, other: Any = cheap, clock: Callable[[], int] | None = None, **given: Any) -> Any:
    tally = Tally(0, "fallback")
    clocks = {} if clock is None else {"clock": clock}
    return FallbackLayer(Fallback(cheap, **given), (model, other), tally, **clocks), tally


def figures(tally: Tally) -> dict[str, float]:
    found = derived_metrics(PatternStats(layers=(tally.snapshot(),)))
    return {name: one.value for name, one in found.items()}


LATE = {"timeout": "1ms"}
ERRORS = [
    (ValueError("no"), "on_error"),
    (SystemExit(3), "on_error"),
    (TimeoutError(), "on_timeout"),
    (RequestError(500, "no"), "on_error"),
    (LostError("gone"), "on_error"),
    (RequestError(503, "busy"), "on_rejected"),
    (RequestError(429, "busy"), "on_rejected"),
    (RequestError(504, "late"), "on_timeout"),
]


@pytest.mark.parametrize(("error", "counter"), ERRORS, ids=str)
def test_the_other_answers_what_the_model_does_not(error: BaseException, counter: str) -> None:
    async def scenario() -> None:
        model = Model()
        ask, tally = fallback(model)
        assert await ask([1, 2]) == [100, 200]
        model.error = error
        assert await ask([3]) == [-3]
        assert counts(tally) == {"model": 1, counter: 1}
        assert figures(tally)["fallback_share"] == 0.5

    run(scenario())


@pytest.mark.parametrize(("error", "counter"), ERRORS, ids=str)
def test_what_is_no_reason_stays_the_error_of_the_request(error: BaseException, counter: str) -> None:
    async def scenario() -> None:
        model = Model()
        model.error = error
        ask, tally = fallback(model, on=[one for one in ALL if f"on_{one}" != counter], least_calls=1)
        for _ in range(3):
            with pytest.raises(type(error)):
                await ask([1])
        assert counts(tally) == {"failed": 3}
        assert figures(tally) == {"breaker_open": 0}

    run(scenario())


@pytest.mark.parametrize("status", [400, 404, 413, 501])
def test_a_mistake_of_the_client_stays_one_and_opens_nothing(status: int) -> None:
    async def scenario() -> None:
        model = Model()
        model.error = RequestError(status, "no")
        ask, tally = fallback(model, least_calls=1)
        for _ in range(3):
            with pytest.raises(RequestError):
                await ask([1])
        assert counts(tally) == {"failed": 3}

    run(scenario())


@pytest.mark.parametrize("outputs", [[1], [1, 2, 3], None, "ab"])
def test_a_model_that_loses_an_output_has_failed(outputs: Any) -> None:
    async def scenario() -> None:
        async def model(_batch: list[int]) -> Any:
            return outputs

        ask, tally = fallback(model)
        assert await ask([1, 2]) == [-1, -2]
        assert counts(tally) == {"on_error": 1}

    run(scenario())


def test_the_other_that_fails_too_gives_its_own_error() -> None:
    async def scenario() -> None:
        model = Model()
        model.error = ValueError("of the model")

        async def other(batch: list[int]) -> list[int]:
            raise KeyError("of the other")

        ask, tally = fallback(model, other)
        with pytest.raises(KeyError) as caught:
            await ask([1])
        assert caught.value.__context__ is model.error
        short, _ = fallback(model, lambda _batch: [])
        with pytest.raises(RequestError, match=r"cheap of fallback\(other=cheap\) returned 0 outputs for 1 input"):
            await short([1])
        assert counts(tally) == {"failed": 1}

    run(scenario())


class TestTimeouts:
    def test_a_model_that_is_late_is_cancelled_and_the_other_answers(self) -> None:
        async def scenario() -> None:
            model = Model()
            model.hangs = True
            ask, tally = fallback(model, **LATE)
            assert await ask([5]) == [-5]
            assert counts(tally) == {"on_timeout": 1}

        run(scenario())

    def test_a_plain_model_that_is_late_goes_on_in_its_thread_and_what_waits_there_is_left_out(self) -> None:
        async def scenario() -> None:
            may_end, given = threading.Event(), []

            def model(batch: list[int]) -> list[int]:
                given.append(batch[0])
                assert may_end.wait(PATIENCE_S)
                return heavy(batch)

            ask, tally = fallback(model, timeout="500ms", open_after=None)
            assert [await ask([number]) for number in range(3)] == [[0], [-1], [-2]]
            assert given == [0]
            may_end.set()
            while "model" not in counts(tally):
                assert (await ask([7]))[0] in (700, -7)
            assert 1 not in given

        run(scenario())

    def test_inputs_that_the_model_has_changed_are_new_for_the_other(self) -> None:
        async def scenario() -> None:
            async def model(batch: list[list[int]]) -> Any:
                batch[0].append(9)
                raise ValueError("no")

            ask, _ = fallback(model, lambda batch: [list(one) for one in batch])
            assert await ask([[1]]) == [[1]]
            assert await ask(DecodedInputs([[2]], lambda: [[2]])) == [[2]]
            locks = [threading.Lock()]  # cannot be copied
            held, _ = fallback(Model(), lambda batch: batch)
            assert await held(locks)  # the model fails on it

        run(scenario())

    def test_the_wait_for_a_late_model_is_charged_and_what_it_does_later_is_not(self) -> None:
        async def scenario() -> None:
            clocks: list[RequestClock | None] = []

            async def model(batch: list[int]) -> Any:
                clocks.append(current_clock())
                if len(clocks) == 1:
                    await asyncio.Event().wait()
                own = current_clock()
                assert own is not None
                own.add("model/model_cpu", 7)
                return heavy(batch)

            ask, _ = fallback(model, **LATE)
            request = RequestClock()
            set_clock(request)
            await ask([1])
            assert current_clock() is request
            assert clocks[0] is not None
            clocks[0].add("model/model_cpu", 1000)
            assert set(request.parts) == {"model/model_wait"}
            assert request.parts["model/model_wait"] >= 1_000_000
            await ask([1])
            assert request.parts["model/model_cpu"] == 7

        run(scenario())


class TestBreaker:
    def test_an_open_breaker_spares_the_model_until_a_probe_succeeds(self) -> None:
        now_ns = [0]

        async def scenario() -> None:
            model = Model()
            ask, tally = fallback(model, clock=lambda: now_ns[0], least_calls=4)
            model.error = ValueError("no")
            for _ in range(6):
                assert await ask([1]) == [-1]
            assert model.asked == 4
            assert counts(tally) == {"on_error": 4, "while_open": 2, "opened": 1}
            now_ns[0] += 2 * S
            assert await ask([1]) == [-1]  # the probe fails
            assert await ask([1]) == [-1]
            assert model.asked == 5
            model.error = None
            now_ns[0] += 2 * S
            assert await ask([1]) == [100]
            assert await ask([1]) == [100]
            assert counts(tally) == {"on_error": 5, "while_open": 3, "opened": 2, "model": 2}
            assert 0 < figures(tally)["breaker_open"] < 1
            assert set(tally.snapshot().series) == {"breaker", "open"}

        run(scenario())

    def test_only_one_of_many_callers_probes(self) -> None:
        now_ns = [0]

        async def scenario() -> None:
            model = Model()
            ask, tally = fallback(model, clock=lambda: now_ns[0], least_calls=1)
            model.error = ValueError("no")
            await ask([1])
            model.error, model.hangs = None, True
            now_ns[0] += 2 * S
            probe = asyncio.create_task(ask([1]))
            await settle()
            assert await asyncio.gather(*(ask([number]) for number in range(15))) == [[-n] for n in range(15)]
            assert model.asked == 2
            probe.cancel()  # its caller goes
            await settle()
            model.hangs = False
            assert await ask([1]) == [100]
            assert counts(tally)["opened"] == 1

        run(scenario())

    def test_without_a_breaker_the_model_is_asked_every_time(self) -> None:
        async def scenario() -> None:
            model = Model()
            model.error = ValueError("no")
            ask, tally = fallback(model, open_after=None)
            for _ in range(50):
                await ask([1])
            assert model.asked == 50
            assert figures(tally) == {"fallback_share": 1}

        run(scenario())


async def chunks_of(batch: list[int], fails_after: int = 99, waits: bool = False) -> AsyncIterator[int]:
    for number in range(3):
        if number == fails_after:
            raise ValueError("in the middle")
        if waits:
            await asyncio.Event().wait()
        yield batch[0] + number


def streaming(**given: Any) -> Any:
    async def model(batch: list[int]) -> Any:
        return Stream(chunks_of(batch, **given))

    return model


async def read(stream: Any) -> list[int]:
    assert isinstance(stream, Stream)
    return [chunk async for chunk in stream]


class TestStreams:
    @pytest.mark.parametrize("broken", [{"fails_after": 0}, {"waits": True}])
    def test_a_stream_is_replaced_until_its_first_chunk(self, broken: dict[str, Any]) -> None:
        async def scenario() -> None:
            ask, tally = fallback(streaming(**broken), streaming(), **LATE)
            assert await read(await ask([10])) == [10, 11, 12]
            assert sum(counts(tally).values()) == 1

        run(scenario())

    def test_after_its_first_chunk_an_error_is_that_of_the_request_and_counts_for_the_breaker(self) -> None:
        async def scenario() -> None:
            ask, tally = fallback(streaming(fails_after=2), streaming(), least_calls=1)
            stream = await ask([5])
            with pytest.raises(ValueError, match="in the middle"):
                await read(stream)
            assert counts(tally) == {"model": 1, "opened": 1}
            assert await read(await ask([10])) == [10, 11, 12]
            assert counts(tally)["while_open"] == 1

        run(scenario())

    def test_a_stream_that_ends_well_or_is_left_opens_nothing(self) -> None:
        async def scenario() -> None:
            request = RequestClock()
            set_clock(request)
            ask, tally = fallback(streaming(), least_calls=1)
            assert await read(await ask([1])) == [1, 2, 3]
            left = await ask([1])
            assert await anext(left) == 1
            await left.aclose()
            await left.aclose()
            assert counts(tally) == {"model": 2}

        run(scenario())

    def test_times_that_come_at_the_end_of_a_stream_are_charged(self) -> None:
        async def chunks(batch: list[int], clock: RequestClock | None) -> AsyncIterator[int]:
            yield batch[0]
            assert clock is not None
            clock.add("model/model_cpu", 7)

        async def model(batch: list[int]) -> Any:
            return Stream(chunks(batch, current_clock()))

        async def scenario() -> None:
            request = RequestClock()
            set_clock(request)
            ask, _ = fallback(model)
            assert await read(await ask([1])) == [1]
            assert request.parts == {"model/model_cpu": 7}

        run(scenario())

    def test_generators_of_this_process_are_streams_too(self) -> None:
        async def scenario() -> None:
            def model(batch: list[int]) -> Any:
                yield from (batch[0], batch[0])

            def empty(batch: list[int]) -> Any:
                yield from ()

            ask, _ = fallback(model, model)
            assert await read(await ask([4])) == [4, 4]
            ask, tally = fallback(empty, model)
            assert await read(await ask([4])) == []
            assert counts(tally) == {"model": 1}

        run(scenario())

    @pytest.mark.parametrize(
        ("model", "other", "words"),
        [
            (streaming(), cheap, "cheap of fallback(other=cheap) returned a whole answer, and the model streams"),
            (heavy, streaming(), "streams its answer, and the model returns whole ones"),
        ],
    )
    def test_both_stream_or_none(self, model: Any, other: Any, words: str) -> None:
        async def scenario() -> None:
            failing = [False]

            async def sometimes(batch: list[int]) -> Any:
                if failing[0]:
                    raise ValueError("no")
                answer = model(batch)
                return await answer if asyncio.iscoroutine(answer) else answer

            ask, tally = fallback(sometimes, other)
            await ask([1])
            failing[0] = True
            with pytest.raises(RequestError) as refused:
                await ask([1])
            assert words in str(refused.value)
            assert refused.value.status == 501
            assert counts(tally) == {"model": 1, "failed": 1}

        run(scenario())


def groups_in(node: Any) -> list[ProcessGroup]:
    if isinstance(node, ProcessGroup):
        return [node, *groups_in(node.inside)]
    return [group for one in node.inside for group in groups_in(one)] if isinstance(node, LayerNode) else []


class TestTree:
    def test_the_rest_stands_around_the_model_and_the_other_in_the_process_of_the_layer(self) -> None:
        node = (Fallback(cheap) | Batched()).plan().inside
        assert isinstance(node, LayerNode)
        model, other = node.inside
        assert isinstance(model, LayerNode)
        assert isinstance(other, ModelNode)
        assert other.target is cheap
        assert node.pattern.inside_names == ("model", "cheap")

    def test_processes_behind_it_are_replaced_when_they_die(self) -> None:
        pattern = Microservice() | Fallback(cheap) | Limited() | Microservice() | Queued(workers=2)
        assert [group.restart for group in groups_in(pattern.plan())][1:] == [False, True, True]
        assert not (Replicated(2) | Fallback(cheap)).plan().restart
        (shared,) = groups_in((Fallback(cheap) | Replicated(2, "shared-socket")).plan())[1:]
        assert not shared.restart

    def test_processes_behind_it_stop_what_is_late_if_something_can_be(self) -> None:
        for timeout in (None, "50ms"):
            pattern = Fallback(cheap, timeout=timeout) | Batched() | Replicated(2) | Microservice()
            assert [group.gives_up for group in groups_in(pattern.plan())] == [False, *[timeout is not None] * 2]
        assert [group.gives_up for group in groups_in((Microservice() | Fallback(cheap, timeout="1s")).plan())] == [
            False,
            False,
        ]

    def test_a_queue_whose_clients_poll_cannot_stand_behind_it(self) -> None:
        with pytest.raises(SettingError, match="has to come first"):
            (Fallback(cheap) | Queued(wait=False)).plan()


class TestValue:
    def test_it_is_printed_as_it_is_written_and_travels_without_its_function(self) -> None:
        pattern = Fallback(cheap, ["rejected", "timeout"], timeout="50ms", open_after="20%", env={"A": "1"})
        assert str(pattern) == "fallback(other=cheap,on=[timeout,rejected],timeout=50ms,open_after=20%,env={A:1})"
        plain = pattern.without_callables()
        assert plain.inside_names == pattern.inside_names
        assert pickle.loads(pickle.dumps(plain)) == plain
        assert str(Fallback("a.b:rules")) == "fallback(other=a.b:rules)"
        assert name_of(pattern.other) == "cheap"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({}, "holds None, expected a callable, a class, an import string"),
            ({"other": "model"}, 'names "model" 2 times'),
            ({"other": cheap, "on": ()}, 'Fallback(on=()), expected one or several of "error", "timeout"'),
            ({"other": cheap, "on": "late"}, "Fallback(on='late'), expected one or several of"),
            ({"other": cheap, "on": 3}, "Fallback(on=3), expected one or several of"),
            ({"other": cheap, "on": "error", "timeout": "1s"}, 'leaves "timeout" out; add it, or leave timeout= out'),
            ({"other": cheap, "timeout": "0s"}, "Fallback(timeout=...) is '0s', expected a time above 0; write 50ms"),
            ({"other": cheap, "window": "0s"}, "Fallback(window=...) is '0s', expected a time above 0"),
            ({"other": cheap, "open_after": 0}, "Fallback(open_after=0) opens the breaker without a failure"),
            ({"other": cheap, "least_calls": 0}, "Fallback(least_calls=0), expected a whole number from 1 to"),
        ],
    )
    def test_what_is_no_fallback_is_refused(self, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(SettingError) as caught:
            Fallback(**arguments)
        assert words in str(caught.value)

    @pytest.mark.parametrize(
        "arguments", [{"timeout": 50}, {"window": None}, {"retry_after": "2"}, {"open_after": 50}, {"open_after": "x"}]
    )
    def test_times_need_a_unit_and_shares_are_at_most_one(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(UnitError, match=f"Fallback.{next(iter(arguments))}="):
            Fallback(cheap, **arguments)
