"""A model that yields, behind the HTTP server: an event per chunk, errors, clients that go away, what is refused."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import orjson
import pytest
from support.asgi import Call
from support.each_row import each_row
from support.scenarios import Panic, run

from pytest_mlpatterns.engines.local.worker import whole_outputs
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.serving.grpc.server import GrpcServer
from pytest_mlpatterns.serving.http.app import ModelApp
from pytest_mlpatterns.serving.http.model_caller import ModelCaller
from pytest_mlpatterns.wire import GRPC
from pytest_mlpatterns.workload.payload import read_payload

V1 = "/v1/models/m:predict"
DONE = b"data: [DONE]\n\n"


def app_of(model: Callable[[list[Any]], Any], *, internal: bool = False) -> ModelApp:
    return ModelApp(ModelCaller(model), "m", 10_000, internal=internal)


def letters(batch: list[Any]) -> Iterator[Any]:
    yield from batch[0]


async def letters_later(batch: list[Any]) -> AsyncIterator[Any]:
    for letter in batch[0]:
        await asyncio.sleep(0)
        yield letter


async def a_generator_later(batch: list[Any]) -> Any:
    await asyncio.sleep(0)
    return letters(batch)


class Letters:
    def __call__(self, batch: list[Any]) -> Iterator[Any]:
        yield from batch[0]


class Held:
    """Yields a chunk whenever the test lets it; knows whether it was closed."""

    def __init__(self, *, is_plain: bool = False) -> None:
        self.go = asyncio.Queue[Any]()
        self.began = asyncio.Event()
        self.closed = asyncio.Event()
        self.is_plain = is_plain

    def __call__(self, batch: list[Any]) -> Any:
        return self.plain() if self.is_plain else self.later()

    def plain(self) -> Iterator[Any]:
        self.began.set()
        try:
            while True:
                yield self.go.get_nowait() if not self.go.empty() else "more"
        finally:
            self.closed.set()

    async def later(self) -> AsyncIterator[Any]:
        self.began.set()
        try:
            while (chunk := await self.go.get()) is not None:
                yield chunk
        finally:
            self.closed.set()


EVERY_FORM: list[Any] = [
    letters,
    letters_later,
    a_generator_later,
    Letters(),
    lambda batch: [letters([one]) for one in batch],
    lambda batch: [letters_later([one]) for one in batch],
    lambda batch: (iter(batch[0]),),
]


class TestChunks:
    @each_row("model", EVERY_FORM)
    async def test_each_chunk_is_one_event_and_one_part_of_the_body(self, model: Any) -> None:
        async with Call(app_of(model), V1, {"instances": [["a", "ü", {"n": 1}]]}) as call:
            parts = [await call.part() for _ in range(5)]
        assert parts == [b'data: "a"\n\n', 'data: "ü"\n\n'.encode(), b'data: {"n":1}\n\n', DONE, None]
        assert (call.status, call.headers["content-type"]) == (200, "text/event-stream")
        assert "content-length" not in call.headers

    async def test_a_chunk_is_sent_before_the_next_one_is_made(self) -> None:
        model = Held()
        async with Call(app_of(model), V1, {"instances": [1]}) as call:
            for chunk in (1, 2):
                model.go.put_nowait(chunk)
                assert await call.part() == b"data: %d\n\n" % chunk
            assert not model.closed.is_set()
            model.go.put_nowait(None)
            assert await call.whole() == DONE
        assert model.closed.is_set()

    async def test_a_stream_without_chunks_has_its_end_only(self) -> None:
        async with Call(app_of(letters), V1, {"instances": [""]}) as call:
            assert await call.whole() == DONE
        assert call.status == 200

    def test_plain_generators_run_one_at_a_time_and_others_interleave(self) -> None:
        order: list[Any] = []

        def plain(batch: list[Any]) -> Iterator[Any]:
            for number in range(3):
                order.append((batch[0], number))
                yield number

        async def later(batch: list[Any]) -> AsyncIterator[Any]:
            for number in range(3):
                order.append((batch[0], number))
                await asyncio.sleep(0)
                yield number

        async def scenario(model: Any) -> None:
            app = app_of(model)
            order.clear()
            async with Call(app, V1, {"instances": ["a"]}) as first, Call(app, V1, {"instances": ["b"]}) as second:
                assert await first.whole() == await second.whole() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n" + DONE

        run(scenario(plain))
        assert order == [(name, number) for name in "ab" for number in range(3)]
        run(scenario(later))
        assert order != sorted(order)
        assert sorted(order) == [(name, number) for name in "ab" for number in range(3)]

    async def test_bytes_and_requests_are_counted(self) -> None:
        app = app_of(letters)
        async with Call(app, V1, b'{"instances": ["ab"]}') as call:
            await call.whole()
        counters = app.tally.snapshot().counters
        assert (counters["requests"], counters["received_bytes"]) == (1, 21)
        assert counters["sent_bytes"] == len(b'data: "a"\n\ndata: "b"\n\n')

    async def test_compressed_requests_are_answered_with_plain_events(self) -> None:
        headers = ((b"accept-encoding", b"gzip"),)
        async with Call(app_of(letters), V1, {"instances": ["a"]}, headers=headers) as call:
            assert await call.whole() == b'data: "a"\n\n' + DONE
        assert "content-encoding" not in call.headers

    async def test_a_gateway_learns_how_long_the_first_chunk_took(self) -> None:
        app = app_of(letters, internal=True)
        for _ in range(2):
            async with Call(app, V1, {"instances": ["a"]}) as call:
                await call.whole()
        times, parts = call.headers["server-timing"].split(";parts=")
        worked, free = times.removeprefix("model;dur=").split(";free=")
        assert float(worked) >= 0
        assert int(free) > 0
        assert orjson.loads(parts)["wire"] > 0


def breaks(batch: list[Any]) -> Iterator[Any]:
    yield from batch[0]
    raise ValueError("out of words")


async def breaks_later(batch: list[Any]) -> AsyncIterator[Any]:
    for letter in batch[0]:
        yield letter
    raise SystemExit(3)


async def panics(batch: list[Any]) -> AsyncIterator[Any]:
    for letter in batch[0]:
        yield letter
    raise Panic("no token")


async def panics_at_once(_batch: list[Any]) -> list[Any]:
    raise Panic("no token")


class TestErrors:
    async def test_a_panic_of_a_library_is_an_error_of_its_request(self) -> None:
        app = app_of(panics_at_once)
        async with Call(app, V1, {"instances": ["a"]}) as call:
            body = await call.whole()
        assert call.status == 500
        assert b"the model raised" in body
        assert app._caller.tracebacks[0].endswith("Panic: no token")

    @each_row(
        ("model", "error"),
        [(breaks, "ValueError: out of words"), (breaks_later, "SystemExit: 3"), (panics, "Panic: no token")],
    )
    async def test_an_error_in_the_middle_is_the_last_event_with_its_traceback(self, model: Any, error: str) -> None:
        app = app_of(model)
        async with Call(app, V1, {"instances": ["a"]}) as call:
            body = await call.whole()
        assert (call.status, body) == (
            200,
            b'data: "a"\n\nevent: error\ndata: {"error":"the model raised %s"}\n\n' % error.encode(),
        )
        (traceback,) = app._caller.tracebacks
        assert traceback.endswith(error)

    async def test_an_error_before_the_first_chunk_is_an_error_of_the_request(self) -> None:
        async with Call(app_of(breaks), V1, {"instances": [""]}) as call:
            body = await call.whole()
        assert (call.status, orjson.loads(body)) == (500, {"error": "the model raised ValueError: out of words"})

    async def test_a_chunk_that_json_cannot_hold_is_an_error(self) -> None:
        async with Call(app_of(lambda _: iter([])), V1, {"instances": [1]}) as call:
            await call.whole()
        for chunks, status in (([object()], 500), (["a", float("nan")], 200)):
            async with Call(app_of(lambda _, made=chunks: [iter(made)]), V1, {"instances": [1]}) as call:
                body = await call.whole()
            assert call.status == status
            assert b"the model yielded a chunk that cannot be sent" in body

    async def test_an_error_while_the_model_cleans_up_is_kept_and_the_client_has_its_answer(self) -> None:
        def untidy(batch: list[Any]) -> Iterator[Any]:
            try:
                yield "a"
                yield "b"
            finally:
                raise OSError("no handle")

        app = app_of(untidy)
        async with Call(app, "/v1/completions", {"prompt": "x", "max_tokens": 1, "stream": True}) as call:
            body = await call.whole()
        assert body.endswith(DONE)
        assert [text.splitlines()[-1] for text in app._caller.tracebacks] == ["OSError: no handle"]

    async def test_several_inputs_are_refused(self) -> None:
        async with Call(app_of(letters), V1, {"instances": ["a", "b"]}) as call:
            body = await call.whole()
        assert call.status == 400
        assert "the request has 2 inputs, expected one" in orjson.loads(body)["error"]

    @each_row(
        ("path", "body", "headers"),
        (
            "/v2/models/m/infer",
            {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]}]},
            (),
        ),
        (V1, b"\x81\xa9instances\x91\x91\x01", ((b"content-type", b"application/msgpack"),)),
    )
    async def test_formats_without_streams_refuse_them(self, path: str, body: Any, headers: Any) -> None:
        async with Call(app_of(letters), path, body, headers=headers) as call:
            answer = await call.whole()
        assert call.status == 501
        assert orjson.loads(answer)["error"].endswith("choose the wire rest+json or openai")


class TestClientsThatGo:
    async def test_the_model_is_closed_while_it_waits(self) -> None:
        model = Held()
        app = app_of(model)
        for chunks in (1, 0):  # also before its first chunk
            model.closed.clear()
            model.began.clear()
            async with Call(app, V1, {"instances": [1]}) as call:
                for number in range(chunks):
                    model.go.put_nowait(number)
                    await call.part()
                await model.began.wait()
                call.leave()
            assert model.closed.is_set()
        assert not app._caller.tracebacks

    async def test_a_plain_generator_is_closed_between_two_chunks(self) -> None:
        model = Held(is_plain=True)
        async with Call(app_of(model), V1, {"instances": [1]}) as call:
            await call.part()
            call.leave()
        assert model.closed.is_set()

    async def test_one_that_waits_for_its_time_leaves_the_others_alone(self) -> None:
        release = asyncio.Event()

        class Turns:
            def __call__(self, batch: list[Any]) -> Any:
                return [held() if batch[0] == "held" else letters(batch)]

        async def held() -> AsyncIterator[Any]:
            yield 1
            await release.wait()

        app = app_of(Turns())
        async with Call(app, V1, {"instances": ["held"]}) as first:
            await first.part()
            async with Call(app, V1, {"instances": ["ab"]}) as second:
                assert await second.whole() == b'data: "a"\n\ndata: "b"\n\n' + DONE
            release.set()
            assert await first.whole() == DONE

    async def test_a_model_that_catches_its_cancellation_is_stopped_all_the_same(self) -> None:
        stubborn_closed = asyncio.Event()

        async def stubborn(batch: list[Any]) -> AsyncIterator[Any]:
            try:
                yield 1
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    yield 2
            finally:
                stubborn_closed.set()

        async with Call(app_of(stubborn), V1, {"instances": [1]}) as call:
            await call.part()
            call.leave()
            assert await call.whole() == b""
        assert stubborn_closed.is_set()

    async def test_a_cancellation_from_elsewhere_is_not_swallowed(self) -> None:
        model = Held()
        async with Call(app_of(model), V1, {"instances": [1]}) as call:
            await model.began.wait()
            call._task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call._task
            call._task = asyncio.ensure_future(asyncio.sleep(0))
        assert model.closed.is_set()


class TestServersWithoutStreams:
    async def test_a_broker_refuses_them(self) -> None:
        with pytest.raises(RequestError, match=r"write Queued\(broker='memory://'\)") as caught:
            await whole_outputs(ModelCaller(letters), ["ab"], lambda: ["ab"])
        assert caught.value.status == 501
        assert await whole_outputs(ModelCaller(lambda batch: batch), ["ab"], lambda: ["ab"]) == ["ab"]

    async def test_grpc_refuses_them(self) -> None:
        class Context:
            """Keeps the status of a call."""

            async def abort(self, code: grpc.StatusCode, details: str) -> None:
                raise RuntimeError(f"{code.name}: {details}")

        server = GrpcServer(ModelCaller(letters), "m", 10_000)
        (body,) = read_payload([[1.0, 2.0]], GRPC).bodies
        with pytest.raises(RuntimeError, match=r"^UNIMPLEMENTED: the model streams .* choose the wire rest\+json or"):
            await server._infer(body.joined(), Context())
