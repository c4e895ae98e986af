"""Which requests the server counts in the layer ``split``, and what it hands to the process before it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from support.asgi import Call
from support.each_row import each_row
from support.scenarios import settle

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.queued import Queued, QueueLayer
from pytest_mlpatterns.patterns.request_clock import charge
from pytest_mlpatterns.patterns.tally import SplitTally, Tally
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.serving.clocks import parts_in, written_parts
from pytest_mlpatterns.serving.grpc.server import GrpcServer
from pytest_mlpatterns.serving.http.app import ModelApp
from pytest_mlpatterns.serving.http.async_jobs import AsyncJobs
from pytest_mlpatterns.serving.http.model_caller import ModelCaller
from pytest_mlpatterns.wire import GRPC
from pytest_mlpatterns.wire.kserve_v1 import ChunkReader
from pytest_mlpatterns.workload.payload import read_payload

V1, V2, COMPLETIONS = "/v1/models/m:predict", "/v2/models/m/infer", "/v1/completions"
TENSOR = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [1.0]}]}


def charging(batch: list[Any]) -> list[Any]:
    charge("model_cpu", 10)
    return batch


def letters(batch: list[Any]) -> Iterator[str]:
    for letter in "abc":
        charge("model_cpu", 10)
        yield letter
    if batch == ["broken"]:
        raise ValueError("out of letters")


def app_of(model: Callable[[list[Any]], Any], **options: Any) -> ModelApp:
    app = ModelApp(ModelCaller(model), "m", 10_000, **options)
    app.split = SplitTally(-1)
    return app


async def answer(app: ModelApp, path: str, body: Any, method: str = "POST") -> tuple[int, bytes]:
    async with Call(app, path, body, method=method) as call:
        whole = await call.whole()
    return call.status, whole


def split_of(app: ModelApp | GrpcServer) -> LayerStats:
    return app.split.snapshot()


async def test_answered_requests_of_every_path_count() -> None:
    app = app_of(charging)
    for path, body in ((V1, {"instances": [1]}), (V2, TENSOR)):
        assert (await answer(app, path, body))[0] == 200
    counters = split_of(app).counters
    assert (counters["requests"], counters["model_cpu"]) == (2, 20)
    assert 0 < counters["wire"] < counters["total_ns"]


async def test_requests_that_fail_and_those_for_metadata_do_not_count() -> None:
    def refuses(_: list[Any]) -> None:
        charge("model_cpu", 10)
        raise RequestError(429, "too many")

    app = app_of(refuses)
    found = [
        (await answer(app, path, body, method))[0]
        for path, body, method in (
            (V1, {"instances": [1]}, "POST"),
            (V1, b"{", "POST"),
            (V1, b"", "GET"),
            ("/v2/models/m", b"", "GET"),
            ("/elsewhere", b"", "GET"),
        )
    ]
    assert found == [429, 400, 405, 200, 404]
    assert split_of(app).counters == {}


@pytest.mark.parametrize(("path", "body"), [(V1, {"instances": [1]}), (COMPLETIONS, {"prompt": "a", "stream": True})])
async def test_a_stream_counts_until_its_first_chunk_and_after_it(path: str, body: Any) -> None:
    app = app_of(letters)
    assert (await answer(app, path, body))[0] == 200
    counters = dict(split_of(app).counters)
    assert [counters[f"{prefix}requests"] for prefix in ("", "ttft:", "tpot:")] == [1, 1, 1]
    assert [counters[f"{prefix}model_cpu"] for prefix in ("", "ttft:", "tpot:")] == [30, 10, 20]
    assert counters["tpot:chunks"] == 2
    assert counters["ttft:total_ns"] + counters["tpot:total_ns"] == counters["total_ns"]


async def test_an_empty_stream_has_no_time_to_a_first_chunk_and_none_after_it() -> None:
    def nothing(_: list[Any]) -> Iterator[str]:
        yield from ()

    app = app_of(nothing)
    assert (await answer(app, V1, {"instances": [1]}))[0] == 200
    found = split_of(app).counters
    assert found["requests"] == 1
    assert not [name for name in found if name.startswith(("ttft:", "tpot:"))]


@pytest.mark.parametrize("reads", [0, 1])
async def test_a_stream_that_fails_or_whose_client_goes_away_does_not_count(reads: int) -> None:
    app = app_of(letters)
    await answer(app, V1, {"instances": ["broken"]})
    if reads:
        async with Call(app, V1, {"instances": [1]}) as call:
            await call.part()
            call.leave()
    found = split_of(app).counters
    assert found.get("requests", 0) <= reads  # it may have sent all before it sees that the client has gone


async def test_a_job_counts_when_it_is_done_and_only_if_it_succeeded() -> None:
    async def worker(batch: list[Any]) -> list[Any]:
        await asyncio.sleep(0)
        if batch == ["broken"]:
            raise RequestError(500, "broken")
        return charging(batch)

    queue = QueueLayer(Queued(wait=False), [worker], in_flight=1, tally=Tally(0, "queued"))
    app = app_of(queue, jobs=AsyncJobs(queue))
    for one in (1, "broken"):
        status, _ = await answer(app, V1, {"instances": [one]})
        assert status == 202
    await settle()
    counters = split_of(app).counters
    assert (counters["requests"], counters["model_cpu"]) == (1, 10)
    assert counters["queue_wait"] >= 0


async def test_between_processes_a_stream_sends_its_times_in_the_header_and_at_its_end() -> None:
    async with Call(app_of(letters, internal=True), V1, {"instances": [1]}) as call:
        body = await call.whole()
    first = parts_in(call.headers["server-timing"].partition(";parts=")[2].encode())
    reader = ChunkReader()
    assert reader.feed(body) == ["a", "b", "c"]
    assert reader.is_done
    assert first["model_cpu"] == 10
    assert parts_in(reader.times)["model_cpu"] == 20


async def test_a_stream_between_processes_that_fails_ends_as_others_do() -> None:
    _, body = await answer(app_of(letters, internal=True), V1, {"instances": ["broken"]})
    assert body.endswith(b'event: error\ndata: {"error":"the model raised ValueError: out of letters"}\n\n')


async def test_requests_over_grpc_count_if_they_succeed() -> None:
    class Aborted(Exception):
        pass

    class Context:
        async def abort(self, *_: object) -> None:
            raise Aborted

    server = GrpcServer(ModelCaller(charging), "m", 10_000)
    (body,) = read_payload([[1.0]], GRPC).bodies
    await server._infer(body.joined(), Context())  # no tally counts it
    server.split = SplitTally(0)
    await server._infer(body.joined(), Context())
    with pytest.raises(Aborted):
        await server._infer(b"\xff", Context())
    counters = split_of(server).counters
    assert (counters["requests"], counters["model_cpu"]) == (1, 10)
    assert 0 < counters["wire"] < counters["total_ns"]


@each_row("written", [b"", b"{", b"[1]", b'"text"', orjson.dumps({"wire": 1.5, "hop": None})])
def test_times_that_another_program_wrote_are_none(written: bytes) -> None:
    assert parts_in(written) == {}


def test_times_come_back_as_they_were_sent() -> None:
    parts = {"wire": 3, "прогноз/model_cpu": 5}
    assert parts_in(written_parts(parts)) == parts
