"""Our server below the prefix of an application: paths, the application's life, and what travels pickled."""

import asyncio
import pickle
from typing import Any

import pytest

from pytest_mlpatterns.engines.ray.remote.replica import MountedApp
from pytest_mlpatterns.serving.http.app import ModelApp
from pytest_mlpatterns.serving.http.model_caller import ModelCaller


def sent_by(app: Any, scope: dict[str, Any], *received: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages that an application sends, as they are after their way to the proxy."""
    given, found = iter(received), []

    async def receive() -> dict[str, Any]:
        return next(given)

    async def send(message: dict[str, Any]) -> None:
        found.append(pickle.loads(pickle.dumps(message)))

    asyncio.run(MountedApp(app)(scope, receive, send))
    return found


@pytest.mark.parametrize("root_path", ["/mlpatterns-1-2-3", ""])
def test_paths_begin_after_the_prefix(root_path: str) -> None:
    app = ModelApp(ModelCaller(lambda batch: [2 * value for value in batch]), "m", 1000)
    scope = {"type": "http", "method": "POST", "path": f"{root_path}/v1/models/m:predict", "headers": []}
    body = {"type": "http.request", "body": b'{"instances": [1]}'}
    start, end = sent_by(app, {**scope, "root_path": root_path}, body)
    assert start["status"] == 200
    assert end["body"] == b'{"predictions":[2]}'


def test_the_life_of_the_application_is_answered() -> None:
    found = sent_by(None, {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    assert [message["type"] for message in found] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("body", [memoryview(b"tensor"), bytearray(b"tensor"), b"tensor"])
def test_views_of_tensors_are_sent_as_bytes(body: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    _, end = sent_by(app, {"type": "http", "path": "/", "headers": []})
    assert end["body"] == b"tensor"
