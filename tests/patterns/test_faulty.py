"""A hop that misbehaves on purpose: its share, each of its faults, and what is refused."""

from __future__ import annotations

import asyncio
from math import sqrt
from typing import TYPE_CHECKING, Any

import pytest
from support.scenarios import counts, run

from pytest_mlpatterns import Cached, Faulty, SettingError, UnitError
from pytest_mlpatterns.patterns import faulty as module
from pytest_mlpatterns.patterns.faulty import FaultyLayer
from pytest_mlpatterns.patterns.layer import CutError, LostError, RequestError
from pytest_mlpatterns.patterns.parsing import parse_pattern
from pytest_mlpatterns.patterns.request_clock import RequestClock, set_clock
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.layer_kinds import derived_metrics
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.wire import REST_JSON

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MS = 1_000_000


class Model:
    """A model that knows how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, batch: list[int]) -> list[int]:
        self.asked += 1
        return [2 * one for one in batch]


def faulty(model: Any = None, **given: Any) -> tuple[FaultyLayer, Tally]:
    tally = Tally(0, "faulty")
    return FaultyLayer(Faulty(**given), Model() if model is None else model, tally, wire=REST_JSON), tally


class Sleeps:
    """Takes the place of asyncio in the module: notes the waits instead of waiting."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> Sleeps:
    found = Sleeps()
    monkeypatch.setattr(module, "asyncio", found)
    return found


async def ready(ask: FaultyLayer) -> FaultyLayer:
    """The same after the request that shows whether the service is ready."""
    assert await ask([1]) == [2]
    return ask


@pytest.mark.parametrize("share", [0.02, "2%", 0.5, 1, 0])
def test_the_injected_share_is_the_one_asked_for_within_the_error_of_a_sample(share: Any) -> None:
    async def scenario() -> None:
        ask, tally = faulty(error=503, share=share)
        number, wanted = 5000, 0.02 if share == "2%" else share
        for _ in range(number + 1):
            try:
                assert await ask([4]) == [8]
            except RequestError as error:
                assert error.status == 503  # noqa: PT017 - most requests pass
        found = counts(tally)
        assert sum(found.values()) == number  # the first one is not counted
        figures = derived_metrics(PatternStats(layers=(tally.snapshot(),)))
        assert figures["injected_share"].value == pytest.approx(wanted, abs=3.5 * sqrt(wanted * (1 - wanted) / number))

    run(scenario())


async def hit_by(ask: FaultyLayer) -> list[int]:
    """Numbers of the requests that meet the fault."""
    found = []
    for number in range(400):
        try:
            await ask([1])
        except RequestError:
            found.append(number)
    return found


def test_a_seed_repeats_its_draws_and_two_faults_draw_apart() -> None:
    async def scenario() -> None:
        same = [await hit_by(faulty(error=500, share=0.1, seed=3)[0]) for _ in range(2)]
        assert same[0] == same[1]
        others = [await hit_by(faulty(share=0.1, **given)[0]) for given in ({"error": 500}, {"error": 503})]
        assert len({tuple(one) for one in (same[0], *others)}) == 3
        assert 10 < len(same[0]) < 80

    run(scenario())


def test_a_delay_is_waited_and_charged_to_the_hop(sleeps: Sleeps) -> None:
    async def scenario() -> None:
        ask, _ = faulty(delay="50ms")
        await ready(ask)
        clock = RequestClock()
        set_clock(clock)
        assert await ask([3]) == [6]
        assert sleeps.waits == [0.05]
        assert clock.parts == {"hop": 50 * MS}

    run(scenario())


def test_an_error_and_a_refusal_come_without_work_and_a_cut_after_it() -> None:
    async def scenario() -> None:
        model = Model()
        ask = await ready(faulty(model, error=418)[0])
        with pytest.raises(RequestError, match=r"faulty\(error=418\) failed on purpose") as refused:
            await ask([1])
        assert refused.value.status == 418
        refusing = await ready(faulty(model, refuse=True)[0])
        with pytest.raises(CutError, match="refused on purpose") as closed:
            await refusing([1])
        assert not closed.value.in_answer
        assert model.asked == 2  # when they became ready
        cutting = await ready(faulty(model, cut=True)[0])
        with pytest.raises(LostError, match="in the middle of the answer") as cut:
            await cutting([1])
        assert isinstance(cut.value, CutError)
        assert (cut.value.in_answer, cut.value.status) == (True, 502)
        assert model.asked == 4

    run(scenario())


def test_a_link_carries_requests_and_answers_one_after_the_other(
    sleeps: Sleeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "perf_counter_ns", lambda: 1000 * MS)

    async def scenario() -> None:
        ask = await ready(faulty(bandwidth="1kB/s")[0])
        assert await ask([1]) == [2]
        assert sleeps.waits == pytest.approx(
            [len('{"instances":[1]}') / 1000, len('{"predictions":[2]}') / 1000], abs=0.002
        )
        once = list(sleeps.waits)
        await ask([1])  # no time has passed
        assert sleeps.waits[2:] == pytest.approx([2 * one for one in once])
        with pytest.raises(RequestError, match="cannot send this over rest"):
            await ask([object()])  # type: ignore[list-item]

    run(scenario())


async def chunks(batch: list[Any]) -> AsyncIterator[Any]:
    for number in range(3):
        yield batch[0] + number


async def streaming(batch: list[Any]) -> Any:
    return Stream(chunks(batch))


class TestStreams:
    def test_a_stream_is_cut_after_its_first_chunk(self) -> None:
        async def scenario() -> None:
            ask, _ = faulty(streaming, cut=True)
            assert [chunk async for chunk in await ask([5])] == [5, 6, 7]
            stream = await ask([5])
            assert await anext(stream) == 5
            with pytest.raises(CutError, match="in the middle of the stream"):
                await anext(stream)
            await stream.aclose()

        run(scenario())

    def test_a_slow_link_slows_every_chunk(self, sleeps: Sleeps) -> None:
        async def scenario() -> None:
            ask, _ = faulty(streaming, bandwidth="1kB/s")
            await ask([5])
            assert [chunk async for chunk in await ask([5])] == [5, 6, 7]
            assert len(sleeps.waits) == 4

            async def odd(_batch: list[Any]) -> Any:
                return Stream(chunks_of_objects())

            broken, _ = faulty(odd, bandwidth="1kB/s")
            await broken([1])
            with pytest.raises(RequestError, match="a chunk that cannot be sent"):
                await anext(await broken([1]))

        run(scenario())

    def test_generators_of_this_process_are_cut_too(self) -> None:
        def model(batch: list[int]) -> Iterator[int]:
            yield from batch * 3

        async def scenario() -> None:
            ask, _ = faulty(model, cut=True)
            await ask([1])
            stream = await ask([1])
            assert await anext(stream) == 1
            with pytest.raises(CutError):
                await anext(stream)

        run(scenario())


async def chunks_of_objects() -> AsyncIterator[Any]:
    yield object()


def test_a_wait_of_one_request_holds_up_no_other() -> None:
    async def scenario() -> None:
        ask, _ = faulty(lambda batch: batch, delay="10s", share=0.5, seed=1)
        await ask([0])
        tasks = [asyncio.create_task(ask([number])) for number in range(20)]  # type: ignore[arg-type]
        done, waiting = await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 5:
            more, waiting = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        assert len(waiting) >= 5
        for task in waiting:
            task.cancel()

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "Faulty() without a fault, expected one of delay=, error=, cut=, refuse=, bandwidth=; write"),
        ({"share": 0.5}, "Faulty() without a fault"),
        ({"error": 200}, "Faulty(error=200), expected a whole number from 400 to 599"),
        ({"cut": 1}, "Faulty(cut=1), expected True or False"),
        ({"refuse": "yes"}, "Faulty(refuse='yes'), expected True or False"),
        (
            {"cut": True, "error": 500},
            "Faulty() with error= and cut=, expected one of them, as a request ends only once; write",
        ),
        ({"refuse": True, "cut": True}, "Faulty() with cut= and refuse="),
        ({"bandwidth": "1MB/s", "error": 500}, "Faulty() with error= and bandwidth="),
        ({"bandwidth": "0MB/s"}, "expected more than 0; write"),
        ({"error": 500, "seed": -1}, "Faulty(seed=-1), expected a whole number from 0 to"),
    ],
)
def test_faults_that_cannot_be_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError) as caught:
        Faulty(**arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"delay": 50}, "delay"),
        ({"delay": "50ms", "share": 2}, "share"),
        ({"bandwidth": "10MiB"}, "bandwidth"),
        ({"bandwidth": 10}, "bandwidth"),
        ({"bandwidth": "10/s"}, "bandwidth"),
    ],
)
def test_what_has_a_unit_needs_it(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(UnitError, match=rf"Faulty\({name}=\.\.\.\) is "):
        Faulty(**arguments)


@pytest.mark.parametrize(
    "pattern",
    [
        Faulty("50ms", 0.02),
        Faulty(error=503, share="2%", seed=7),
        Faulty(cut=True),
        Faulty(refuse=True, delay="1s"),
        Faulty(bandwidth="1.5 MiB/s", env={"A": "1"}),
        Faulty("1ms") | Cached() | Faulty(error=500, share=0.1),
    ],
)
def test_a_fault_is_read_as_it_is_printed(pattern: Any) -> None:
    assert parse_pattern(str(pattern), "here") == pattern
