"""AIPerf and GuideLLM, unmodified, as clients of a model that we serve over the wire openai: answers and token counts.

The model repeats the words of its prompt until it has as many as were asked for, so each answer is known.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import Claim, Table, on_server_core
from stream_clients import CLIENTS, prompts

from pytest_mlpatterns import Single, Wire
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.workload.payload import read_payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_clients import ClientReport, Prompt

CLAIM = "AIPerf and GuideLLM get right answers from a model of ours, and count its tokens as we do"
STARTUP_S = 60.0
STREAMS = 4
REQUESTS = 40
OUTPUT_TOKENS = 12


def model(batch: list[dict[str, Any]]) -> Iterator[str]:
    """The words of the last message, again and again."""
    (request,) = batch
    content = request["messages"][-1]["content"] if "messages" in request else request["prompt"]
    words = (content if isinstance(content, str) else " ".join(part["text"] for part in content)).split()
    for number in range(request.get("max_tokens", len(words))):
        yield f"{words[number % len(words)]} "


def measure() -> Iterator[Table]:
    asked = prompts(REQUESTS, OUTPUT_TOKENS)
    rows, claims, notes = [], [], []
    with serving() as url:
        for client in CLIENTS:
            try:
                python = client.install()
            except RuntimeError as error:
                notes.append(f"{client.name} could not be installed: {str(error).splitlines()[-1]}")
                continue
            found = client.run(python, url, asked, streams=STREAMS)
            wrong = wrong_in(found, asked)
            rows.append(
                (
                    client.name,
                    f"{found.requests}",
                    f"{found.failed}",
                    f"{sum(found.input_tokens)}",
                    f"{sum(found.output_tokens)}",
                    f"{len(found.answers) or '–'}",
                )
            )
            claims.append(Claim(f"{client.name}: faults found", len(wrong), 0))
            notes += [f"{client.name}: {fault}" for fault in wrong]
    headings = ("client", "requests", "failed", "input tokens", "output tokens", "answers compared")
    yield Table("what they say of our server", headings, rows, claims, notes)


def wrong_in(found: ClientReport, asked: Sequence[Prompt]) -> list[str]:
    """What a client saw otherwise than it was sent, as sentences."""
    inputs, outputs = (len(one.words) for one in asked), (one.output_tokens for one in asked)
    answers = (
        "".join(f"{one.words[number % len(one.words)]} " for number in range(one.output_tokens)) for one in asked
    )
    checks = (
        ("requests", found.requests, len(asked)),
        ("failed requests", found.failed, 0),
        ("input tokens", sorted(found.input_tokens), sorted(inputs)),
        ("output tokens", sorted(found.output_tokens), sorted(outputs)),
        *([("answers", sorted(found.answers), sorted(answers))] if found.answers else []),
    )
    return [f"{what}: {seen}, expected {right}" for what, seen, right in checks if seen != right]


@contextmanager
def serving() -> Iterator[str]:
    """Our server; gives its address."""
    wire = Wire.parse("openai")
    with tempfile.TemporaryDirectory() as directory, on_server_core():
        payload = read_payload(["word0"], wire)
        options = StartOptions(round(STARTUP_S * 1e9), payload, Path(directory), wire=wire)
        deployment = launch(service_plan(Single(), model, [sys.modules[__name__]]), options)
        try:
            yield deployment.url
        finally:
            deployment.close()
