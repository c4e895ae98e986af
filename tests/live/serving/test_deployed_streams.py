"""Models that yield, really deployed: chunks arrive one by one, clients go away, and each pattern passes them on."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import replace
from support.services.deploy import make_start_options

from pytest_mlpatterns import (
    Cached,
    Continuous,
    Deployment,
    DeploymentError,
    Microservice,
    ModelLoadError,
    Pattern,
    Queued,
    Single,
    Url,
    Wire,
)
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.serving.external.attach import attach
from pytest_mlpatterns.serving.model import service_plan
from pytest_mlpatterns.wire.stream_events import EventStreamParser
from pytest_mlpatterns.workload.payload import read_payload

pytestmark = [pytest.mark.processes, pytest.mark.covered_processes, pytest.mark.usefixtures("no_process_is_left")]

PATIENCE_S = 15
OPENAI = Wire.parse("openai")


def await_file(path: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not appear"
        threading.Event().wait(0.005)


async def letters(batch: list[Any]) -> AsyncIterator[Any]:
    """The letters of a text; after the first one it waits for a file, if it is to, and leaves one at its end."""
    (text,) = batch
    directory = Path(os.environ["GATES"])
    try:
        for number, letter in enumerate(text):
            if letter == "!":
                raise ValueError("no such letter")
            if number and text.startswith("wait"):
                while not (directory / f"go-{number}").exists():
                    await asyncio.sleep(0.005)
            yield letter
    finally:
        (directory / f"ended-{text}").touch()


class Countdown:
    """Counts the words of a prompt down."""

    def start(self, request: Any) -> list[int]:
        prompt = request["prompt"] if "prompt" in request else request["messages"][-1]["content"]
        return [len(prompt.split())]

    def step(self, active: list[list[int]]) -> list[Any]:
        chunks = [f"{state[0]} " if state[0] else None for state in active]
        for state in active:
            state[0] -= 1
        return chunks


def started(model: Any, directory: Path, pattern: Pattern, payload: list[Any], wire: Wire | None = None) -> Deployment:
    wire = wire or Wire()
    options = replace(make_start_options(directory), payload=read_payload(payload, wire), wire=wire)
    return launch(service_plan(pattern, model, [sys.modules[__name__]]), options)


class TestLetters:
    @pytest.fixture
    def gates(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("GATES", str(tmp_path))
        return tmp_path

    def test_a_queue_before_a_worker_passes_chunks_on_as_they_come(self, gates: Path, tmp_path: Path) -> None:
        with closing(started(letters, tmp_path, Cached() | Queued(), ["ab"])) as deployment:
            assert deployment.streams
            assert deployment.predict("abc") == ["a", "b", "c"]
            self.check_chunks(deployment, gates)
            self.check_leaving(deployment, gates)
            self.check_error(deployment)
            layers = {layer.layer: layer for layer in deployment.stats().layers}
            assert layers["queued"].counters["accepted"] == 5
            assert sum(layers["hop"].histograms["hop_ns"].values()) == 5

    def check_chunks(self, deployment: Deployment, gates: Path) -> None:
        with deployment.client.stream("POST", deployment.path, json={"instances": ["wait"]}) as response:
            parser, parts = EventStreamParser(), response.iter_raw()
            for number, letter in enumerate("wait"):
                if number:
                    (gates / f"go-{number}").touch()
                (event,) = parser.feed(next(parts))
                assert orjson.loads(event.data) == letter
            assert [event.data for part in parts for event in parser.feed(part)] == [b"[DONE]"]
        assert (gates / "ended-wait").exists()
        assert deployment.predict("wait") == list("wait")  # of the cache

    def check_leaving(self, deployment: Deployment, gates: Path) -> None:
        for gate in gates.glob("go-*"):
            gate.unlink()
        with deployment.client.stream("POST", deployment.path, json={"instances": ["waits"]}) as response:
            assert next(response.iter_raw()) == b'data: "w"\n\n'
        await_file(gates / "ended-waits")

    def check_error(self, deployment: Deployment) -> None:
        with pytest.raises(DeploymentError, match="the model raised ValueError: no such letter"):
            deployment.predict("a!")
        (traceback,) = deployment.stats().tracebacks
        assert traceback.endswith("ValueError: no such letter")

    def test_a_model_that_breaks_in_its_first_stream_does_not_start(self, gates: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError) as caught:
            started(letters, tmp_path, Single(), ["a!"])
        assert "item 0: 200 the stream ended with an error: the model raised ValueError: no such letter" in str(
            caught.value
        )
        assert "Traceback (most recent call last)" in str(caught.value)


def test_a_gateway_serves_clients_of_openai(tmp_path: Path) -> None:
    with closing(started(Countdown, tmp_path, Microservice() | Continuous(), ["count to three"], OPENAI)) as deployment:
        assert deployment.streams
        assert deployment.path == "/v1/completions"
        assert deployment.predict("a b") == ["2 ", "1 "]
        assert deployment.predict({"messages": [{"role": "user", "content": "a"}], "stream": False}) == "1 "
        driven = attach(
            Url(f"{deployment.url}/v1/chat/completions"),
            replace(make_start_options(tmp_path), payload=read_payload(["a b c"], OPENAI), wire=OPENAI),
        )
        try:
            assert driven.streams
            assert driven.predict("a b c") == ["3 ", "2 ", "1 "]
            assert driven.model_name == "Countdown"
            assert b'{"model":"Countdown",' in driven.messages(read_payload(["x"], OPENAI, driven.path))[0]
        finally:
            driven.close()
        (layer,) = deployment.stats().layers_named("continuous")
        assert layer.counters["chunks"] == 3 + 2 + 1 + 3 + 3
