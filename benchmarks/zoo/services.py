"""Causes in stages, in models side by side, in a gateway, and in services that exist: an application and a command."""

from __future__ import annotations

from zoo.cause import Cause, Edit
from zoo.text import MODEL as RANKER
from zoo.text import TEXTS

__all__ = ["CAUSES"]

STAGES = '''
"""Steps of a pipeline, and members of an ensemble."""

NAMES = [f"label {number}" for number in range(10_000)]


class Scorer:
    def __call__(self, batch):
        return [score(number, 10_000) for number in batch]


class Checker:
    def __call__(self, batch):
        return [self.check(number) for number in batch]

    def check(self, number):
        return score(number, 5_000) + walk(number)


def score(number, steps):
    found = number
    for step in range(steps):
        found = (found * 31 + step) % 1009
    return found


def walk(number):
    found = 0
    for step in range(2_000):
        found += step % (number + 1)
    return found


def label(batch):
    return [named(number) for number in batch]


def named(number):
    wanted = f"label {2 * int(number)}"
    for name in NAMES:
        if name == wanted:
            return name
    return "none"
'''
PIPELINE_TEST = """
import pytest
from pytest_mlpatterns import Pipeline
from stages import Scorer, label


@pytest.mark.perf(model=Scorer, payload=list(range(50)), pattern=Pipeline(stages=["model", label], processes=True))
def test_stages(perf):
    pass
"""
ENSEMBLE_TEST = """
import pytest
from pytest_mlpatterns import Ensemble
from stages import Checker, Scorer


@pytest.mark.perf(model=Scorer, payload=list(range(50)), pattern=Ensemble(models=["model", Checker]))
def test_models(perf):
    pass
"""
GATEWAY = '''
"""A pattern: a gateway that packs the answers of the service behind it."""

import base64
import json
import zlib
from dataclasses import dataclass
from inspect import isawaitable

from pytest_mlpatterns import Pattern


@dataclass(frozen=True)
class Packing(Pattern):
    def layer(self, inside, tally, resources):
        async def packing(inputs):
            outputs = inside[0](inputs)
            outputs = await outputs if isawaitable(outputs) else outputs
            return [packed(output) for output in outputs]

        return packing


def packed(output):
    return json.dumps(output)
'''
GATEWAY_TEST = """
import random

import pytest
from gateway import Packing
from pytest_mlpatterns import Microservice

DRAW = random.Random(0)
STORED = [[round(DRAW.random(), 3) for _ in range(4000)] for _ in range(8)]


def describe(batch):
    return [STORED[number % 8] for number in batch]


@pytest.mark.perf(model=describe, payload=list(range(8)), pattern=Packing() | Microservice())
def test_describe(perf):
    pass
"""
SERVICE = '''
"""An application that ranks texts, by options in a file, and writes what it does into a log."""

import functools
import json
import logging
from pathlib import Path

from fastapi import FastAPI, Request
from model import Ranker

HERE = Path(__file__).parent
LOG = logging.getLogger("ranking")
LOG.addHandler(logging.FileHandler(HERE / "ranking.log"))
LOG.propagate = False
LOG.setLevel("WARNING")
RANKER = Ranker()
app = FastAPI()


@app.post("/")
async def rank(request: Request):
    (text,) = (await request.json())["instances"]
    words = allowed(text.split())
    return {"predictions": [candidates(RANKER.rank(" ".join(words)))]}


def allowed(words):
    blocked = options()["blocked"]
    return [word for word in words if word not in blocked]


@functools.cache
def options():
    return json.loads((HERE / "options.json").read_text())


def candidates(ranked):
    for entry in ranked * 40:
        LOG.info("candidate %s with %s", entry["topic"], entry["score"])
    return ranked
'''
OPTIONS = '{"blocked": {' + ", ".join(f'"word {number}": {{"since": {number}}}' for number in range(4000)) + "}}\n"
SERVICE_TEST = """
import pytest
from pytest_mlpatterns import App, Command
from texts import TEXTS


@pytest.fixture
def perf_target():
    return {target}


@pytest.mark.perf(payload=TEXTS)
def test_service(perf):
    pass
"""


def _service(target: str) -> dict[str, str]:
    return {
        "model.py": RANKER,
        "texts.py": TEXTS,
        "service.py": SERVICE,
        "options.json": OPTIONS,
        "test_service.py": SERVICE_TEST.format(target=target),
    }


CAUSES = (
    Cause(
        "a slower second stage",
        {"stages.py": STAGES, "test_model.py": PIPELINE_TEST},
        (
            Edit(
                "stages.py",
                "    for name in NAMES:",
                "    for name in sorted(NAMES, key=str.casefold):",
            ),
        ),
        functions=("named",),
        callers=("label",),
    ),
    Cause(
        "a slower model of an ensemble",
        {"stages.py": STAGES, "test_model.py": ENSEMBLE_TEST},
        (Edit("stages.py", "    for step in range(2_000):", "    for step in range(30_000):"),),
        functions=("walk",),
        callers=("Checker.__call__", "Checker.check"),
    ),
    Cause(
        "a gateway that compresses",
        {"gateway.py": GATEWAY, "test_model.py": GATEWAY_TEST},
        (
            Edit(
                "gateway.py",
                "    return json.dumps(output)",
                "    return base64.b64encode(zlib.compress(json.dumps(output).encode(), 9)).decode()",
            ),
        ),
        functions=("packed",),
        callers=("Packing.layer", "Packing.layer.<locals>.packing"),
    ),
    Cause(
        "a file read for every request",
        _service('App("service:app")'),
        (Edit("service.py", "@functools.cache\ndef options():", "def options():"),),
        functions=("options",),
        callers=("app", "rank", "allowed"),
    ),
    Cause(
        "logging for every request",
        _service('Command("{python} -m uvicorn service:app --port {port} --log-level warning")'),
        (Edit("service.py", 'LOG.setLevel("WARNING")', 'LOG.setLevel("INFO")'),),
        functions=("candidates",),
        callers=("app", "rank"),
    ),
)
