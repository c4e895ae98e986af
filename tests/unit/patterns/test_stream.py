"""Streams between layers: what counts as one, what passes it on, what refuses it, and who closes it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from support.each_row import each_row
from support.scenarios import read, settle

from pytest_mlpatterns import Batched, Cached, Ensemble, Pipeline, Queued
from pytest_mlpatterns.patterns.batched import BatchLayer
from pytest_mlpatterns.patterns.cache_layer import CacheLayer
from pytest_mlpatterns.patterns.ensemble import EnsembleLayer
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.pipeline import PipelineLayer
from pytest_mlpatterns.patterns.queued import QueueLayer
from pytest_mlpatterns.patterns.stream import Stream, StreamSource, streams
from pytest_mlpatterns.patterns.tally import Tally


def plain(batch: list[Any]) -> Iterator[Any]:
    yield from batch[0]


async def later(batch: list[Any]) -> AsyncIterator[Any]:
    for one in batch[0]:
        yield one


def doubled(batch: list[Any]) -> list[Any]:
    return [one * 2 for one in batch]


class Source:
    """A stream of another process: it is fed by the test, and knows when it was closed."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.stream = Stream(self)

    def __aiter__(self) -> "Source":
        return self

    async def __anext__(self) -> Any:
        if (chunk := await self.chunks.get()) is None:
            raise StopAsyncIteration
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    async def aclose(self) -> None:
        self.closed.set()


class TestWhatIsOne:
    @each_row("outputs", [plain([[1]]), later([[1]]), [plain([[1]])], (later([[1]]),), [iter([1])], [map(str, [1])]])
    def test_generators_and_lists_of_them_are_streams(self, outputs: Any) -> None:
        assert streams(outputs)

    @each_row(
        "outputs", [[], [1], ["text"], [[1]], (), "text", {"a": 1}, np.zeros(2), range(2), map(str, [1]), None, 7]
    )
    def test_whole_outputs_are_no_streams(self, outputs: Any) -> None:
        assert not streams(outputs)
        assert StreamSource().read(outputs, 1, "the model") is None

    async def test_a_stream_is_for_one_input(self) -> None:
        source = Source()
        with pytest.raises(RequestError, match="the model streams its answer, and the request has 3 inputs") as caught:
            StreamSource().read(source.stream, 3, "the model")
        assert caught.value.status == 400
        await source.closed.wait()

    async def test_the_end_of_a_stream_is_reported_once(self) -> None:
        ends: list[int] = []
        for outputs in (plain(["ab"]), Stream(later(["ab"]))):
            stream = StreamSource().read(outputs, 1, "the model", on_end=lambda: ends.append(1))
            assert await read(stream) == ["a", "b"]
            await stream.ended()
        assert len(ends) == 2

    async def test_an_iterator_that_cannot_be_closed_is_left(self) -> None:
        class Letters:
            def __aiter__(self) -> "Letters":
                return self

            async def __anext__(self) -> str:
                return "a"

        for endless in (Letters(), [iter(lambda: "a", "b")]):
            stream = StreamSource().read(endless, 1, "the model")
            assert await anext(stream) == "a"
            await stream.aclose()
            await stream.ended()


class TestLayersThatRefuse:
    async def test_batches_name_continuous(self) -> None:
        async def returns_one(batch: list[Any]) -> Any:
            return later(batch)

        for model in (plain, later, returns_one, CacheLayer(Cached(), plain, Tally(1, "cached"))):
            layer = BatchLayer(Batched(max_batch_size=2), model, Tally(0, "batched"))
            for answer in await asyncio.gather(layer(["ab"]), layer(["cd"]), return_exceptions=True):
                assert isinstance(answer, RequestError)
                assert answer.status == 501
                assert "Continuous(max_batch_size=8), " in str(answer)

    async def test_ensembles_combine_whole_answers(self) -> None:
        ensemble = Ensemble([doubled, plain])
        layer = EnsembleLayer(
            ensemble, [doubled, plain], ["doubled", "plain"], combine=None, tally=Tally(0, "ensemble")
        )
        with pytest.raises(RequestError, match=r"^model plain of .* streams its answer, and Ensemble combines whole"):
            await layer(["ab"])

    async def test_a_stage_before_the_last_one(self) -> None:
        layer = PipelineLayer(
            Pipeline([plain, doubled]), [plain, doubled], ["plain", "doubled"], tally=Tally(0, "pipeline")
        )
        with pytest.raises(RequestError, match=r"^stage plain of .* streams its answer, which only the last may do$"):
            layer(["ab"])


async def test_the_last_stage_streams_and_its_time_is_that_of_the_stream() -> None:
    tally = Tally(0, "pipeline")
    layer = PipelineLayer(Pipeline([doubled, later]), [doubled, later], ["doubled", "later"], tally=tally)
    stream: Any = layer(["ab"])
    assert await anext(stream) == "a"
    assert set(tally.snapshot().histograms) == {"stage:doubled"}
    assert await read(stream) == ["b", "a", "b"]
    assert set(tally.snapshot().histograms) == {"stage:doubled", "stage:later"}


class Workers:
    """A queue before a worker whose streams the test feeds."""

    def __init__(self, pattern: Queued) -> None:
        self.sources: list[Source] = []
        self.began = asyncio.Semaphore(0)
        self.answer = asyncio.Event()
        self.answer.set()
        self.tally = Tally(0, "queued")
        self.layer = QueueLayer(pattern, [self.work], in_flight=1, tally=self.tally)

    async def work(self, batch: list[Any]) -> Any:
        self.sources.append(Source())
        self.began.release()
        await self.answer.wait()
        return self.sources[-1].stream


class TestQueue:
    async def test_a_worker_is_busy_until_its_stream_has_ended(self) -> None:
        workers = Workers(Queued())
        first, second = (asyncio.ensure_future(workers.layer([number])) for number in range(2))
        stream: Any = await first
        await settle()
        assert len(workers.sources) == 1
        workers.sources[0].chunks.put_nowait("a")
        workers.sources[0].chunks.put_nowait(None)
        assert await read(stream) == ["a"]
        assert isinstance(await second, Stream)
        assert len(workers.sources) == 2

    @pytest.mark.parametrize("how", ["closed", "failed"])
    async def test_a_stream_that_ends_early_frees_its_worker(self, how: str) -> None:
        workers = Workers(Queued())
        stream: Any = await workers.layer([1])
        if how == "closed":
            await stream.aclose()
        else:
            workers.sources[0].chunks.put_nowait(LostError("it died"))
            with pytest.raises(LostError):
                await read(stream)
        assert isinstance(await workers.layer([2]), Stream)
        assert workers.tally.snapshot().counters.get("redelivered", 0) == 0

    async def test_the_stream_of_a_caller_that_has_gone_is_closed(self) -> None:
        workers = Workers(Queued())
        workers.answer.clear()
        caller = asyncio.ensure_future(workers.layer([1]))
        await workers.began.acquire()
        caller.cancel()
        await settle()
        workers.answer.set()
        await workers.sources[0].closed.wait()
        assert isinstance(await workers.layer([2]), Stream)

    async def test_the_stream_of_a_caller_that_goes_just_then_is_closed(self) -> None:
        workers = Workers(Queued())
        caller = asyncio.ensure_future(workers.layer([1]))
        while not workers.sources:
            await asyncio.sleep(0)
        outputs = next(iter(workers.layer._tasks))
        while not caller.done():
            caller.cancel()  # at every moment of its way, also when the answer is there and not yet taken
            await asyncio.sleep(0)
        await workers.sources[0].closed.wait()
        await outputs
        assert not workers.layer._tasks

    async def test_clients_that_poll_get_whole_answers_only(self) -> None:
        workers = Workers(Queued(wait=False))
        with pytest.raises(RequestError, match=r"Queued\(wait=False\) keeps whole ones") as caught:
            await workers.layer([1])
        assert caught.value.status == 501
        assert workers.sources[0].closed.is_set()
