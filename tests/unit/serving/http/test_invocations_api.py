"""Our own server over the wire ``invocations``: /ping, the forms of a request, streams, jobs, and its errors."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from support.asgi import Call
from support.each_row import each_row
from support.scenarios import run

from pytest_mlpatterns.serving.http.app import ModelApp
from pytest_mlpatterns.serving.http.async_jobs import AsyncJobs
from pytest_mlpatterns.serving.http.model_caller import ModelCaller

JSON, CSV = b"application/json", b"text/csv"


def described(batch: list[Any]) -> list[str]:
    return [repr(value) for value in batch]


class Instant:
    """In the place of a queue: answers at once."""

    async def enqueue(self, instances: list[Any]) -> asyncio.Future[list[Any]]:
        outputs: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        outputs.set_result(described(instances))
        return outputs


def asked(
    body: Any, kind: bytes = JSON, model: Callable[[list[Any]], Any] = described, *, path: str = "/invocations"
) -> tuple[Call, bytes]:
    async def scenario() -> tuple[Call, bytes]:
        app, method = ModelApp(ModelCaller(model), "m", 10_000), "GET" if body == b"" else "POST"
        async with Call(app, path, body, method=method, headers=((b"content-type", kind),)) as call:
            return call, await call.whole()

    return run(scenario())


def test_a_ping_is_answered() -> None:
    call, _ = asked(b"", path="/ping")
    assert call.status == 200


@each_row(
    ("body", "kind", "seen"),
    ({"instances": [[1, 2]]}, JSON, "[1, 2]"),
    ({"inputs": ["a"]}, JSON, "'a'"),
    ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, JSON, "{'a': 1}"),
    ({"dataframe_records": [{"a": 1}]}, b"application/json; charset=utf-8", "{'a': 1}"),
    (b"1,2.5\n", CSV, "[1, 2.5]"),
)
def test_every_form_of_a_request_reaches_the_model(body: Any, kind: bytes, seen: str) -> None:
    call, answer = asked(body, kind)
    assert (call.status, orjson.loads(answer)) == (200, {"predictions": [seen]})


def test_a_model_that_yields_is_streamed() -> None:
    def words(_batch: list[Any]) -> Any:
        yield from ("one", "two")

    call, answer = asked({"instances": ["x"]}, model=words)
    assert call.headers["content-type"].startswith("text/event-stream")
    assert answer == b'data: "one"\n\ndata: "two"\n\ndata: [DONE]\n\n'


@each_row(
    ("body", "status", "text"),
    ({"instances": 5}, 400, "expected one of instances, inputs, dataframe_split, dataframe_records"),
    (b"{", 400, "the body is not JSON"),
    (b"", 405, "GET /invocations: expected POST"),
)
def test_an_error_has_a_text(body: Any, status: int, text: str) -> None:
    call, answer = asked(body)
    assert call.status == status
    assert text in orjson.loads(answer)["error"]


async def test_a_result_may_be_fetched_later() -> None:
    app = ModelApp(ModelCaller(described), "m", 10_000, jobs=AsyncJobs(Instant()))
    async with Call(app, "/invocations", b"3\n", headers=((b"content-type", CSV),)) as call:
        await call.whole()
    assert call.status == 202
    path, _, query = call.headers["location"].partition("?")
    later = Call(app, path, b"", method="GET")
    later._scope["query_string"] = query.encode()
    async with later:
        assert orjson.loads(await later.whole()) == {"predictions": ["[3]"]}
