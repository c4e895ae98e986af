"""A service behind a gateway: one call of a plain model at a time, its response first, and the wait reported."""

import asyncio
from typing import Any

import pytest

from pytest_mlpatterns.serving.http.app import ModelApp
from pytest_mlpatterns.serving.http.model_caller import ModelCaller


async def post(app: ModelApp, number: int, events: list[str]) -> dict[str, float]:
    """Send one request; returns the numbers in its ``Server-Timing`` header before those of the parts."""
    timing = ""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"instances": [%d]}' % number}

    async def send(message: Any) -> None:
        nonlocal timing
        if message["type"] == "http.response.start":
            assert message["status"] == 200
            timing = dict(message["headers"]).get(b"server-timing", b"").decode()
        else:  # as uvloop: what is written leaves at the end of this iteration of the loop
            asyncio.get_running_loop().call_soon(events.append, f"sent {number}")

    await app({"type": "http", "method": "POST", "path": "/v1/models/m:predict", "headers": []}, receive, send)
    return {name: float(value) for name, _, value in (part.partition("=") for part in timing.split(";")[1:3])}


def answer_together(model: Any, *, internal: bool) -> tuple[list[str], list[dict[str, float]]]:
    events: list[str] = []

    def plain(batch: list[int]) -> list[int]:
        events.append(f"call {batch[0]}")
        return batch

    async def awaited(batch: list[int]) -> list[int]:
        events.append(f"call {batch[0]}")
        await asyncio.sleep(0)
        return batch

    async def scenario() -> list[dict[str, float]]:
        app = ModelApp(ModelCaller(plain if model == "plain" else awaited), "m", 1000, internal=internal)
        return await asyncio.gather(*(post(app, number, events) for number in (1, 2, 3)))

    return events, asyncio.run(scenario())


def test_response_leaves_before_the_next_call_of_a_plain_model() -> None:
    events, timings = answer_together("plain", internal=True)
    assert events[:5] == ["call 1", "sent 1", "call 2", "sent 2", "call 3"]
    assert all(set(timing) == {"dur", "free"} for timing in timings)
    assert timings[0]["free"] == 0 < timings[1]["free"]


@pytest.mark.parametrize(("model", "internal"), [("awaited", True), ("plain", False)])
def test_awaited_models_and_public_services_have_no_lock(model: str, internal: bool) -> None:
    events, timings = answer_together(model, internal=internal)
    assert events[:3] == ["call 1", "call 2", "call 3"]
    assert [set(timing) for timing in timings] == [{"dur", "free"} if internal else set()] * 3


async def test_request_after_a_call_says_when_that_call_ended() -> None:
    app = ModelApp(ModelCaller(lambda batch: batch), "m", 1000, internal=True)
    first, second, third = [await post(app, number, []) for number in (1, 2, 3)]
    assert first["free"] == 0
    assert 0 < second["free"] < third["free"]
