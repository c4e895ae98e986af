"""Causes in a model that computes in numpy, in what it sends, and in how its threads are set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.cause import Cause, Edit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CAUSES", "numeric_project"]

MODEL = '''
"""The nearest of many vectors, and what describes them."""

import numpy as np
from threadpoolctl import threadpool_limits

DRAW = np.random.default_rng(0)
SIZE, COUNT, THREADS = 512, 2000, 1
WEIGHTS = DRAW.normal(size=(SIZE, SIZE)).astype(np.float32)
VECTORS = DRAW.normal(size=(COUNT, SIZE)).astype(np.float32)
STORED = [[float(value) for value in row] for row in DRAW.normal(size=(8, 20_000))]
LENGTH = 400


class Nearest:
    def __init__(self):
        self.limits = threadpool_limits(THREADS)

    def __call__(self, batch):
        return [self.find(row) for row in batch]

    def find(self, row):
        near = closest(distances(project(row)), 10)
        return {"nearest": [int(number) for number in near], "stored": describe(near[0])}


def project(row):
    vector = np.asarray(row, dtype=np.float32)
    return WEIGHTS @ vector


def distances(vector):
    found = VECTORS @ vector
    return np.concatenate([found + shift for shift in range(20)])


def closest(found, count):
    order = np.argpartition(found, count)[:count]
    return order[np.argsort(found[order])]


def describe(number):
    return STORED[number % len(STORED)][:LENGTH]
'''
TEST = """
import numpy as np
import pytest
from model import Nearest
from pytest_mlpatterns import Microservice, Single

ROWS = np.random.default_rng(1).normal(size=(8, 512)).round(3).tolist()


@pytest.mark.perf(model=Nearest, payload=ROWS, {marker})
def test_nearest(perf):
    pass
"""
PROCESSES = '''
"""A pattern: the model in a process of its own, called over our own wire."""

from dataclasses import dataclass

from pytest_mlpatterns import Microservice, Pattern

WIRE = "rest+msgpack"


@dataclass(frozen=True)
class Apart(Pattern):
    def build(self, position, rest):
        return Microservice(wire=WIRE).build(position, rest)
'''
LARGE = """
import numpy as np
import pytest
from processes import Apart


def shift(batch):
    return [row + 1.0 for row in np.asarray(batch)]


@pytest.mark.perf(
    model=shift, payload=np.random.default_rng(1).normal(size=(8, 20_000)), wire="rest+binary", pattern=Apart()
)
def test_shift(perf):
    pass
"""
_ABOVE = ("Nearest.__call__", "Nearest.find")


def numeric_project(marker: str = "pattern=Single()") -> Mapping[str, str]:
    """The project before any change, served as the marker says."""
    return {"model.py": MODEL, "test_model.py": TEST.format(marker=marker)}


def _edit(old: str, new: str) -> Edit:
    return Edit("model.py", old, new)


CAUSES = (
    Cause(
        "float64 in place of float32",
        numeric_project('wire="grpc"'),
        (_edit("np.asarray(row, dtype=np.float32)", "np.asarray(row, dtype=np.float64)"),),
        functions=("project", "distances"),
        callers=(*_ABOVE, "closest"),
    ),
    Cause(
        "a full sort in place of a partition",
        numeric_project("pattern=Microservice()"),
        (
            _edit(
                "    order = np.argpartition(found, count)[:count]\n    return order[np.argsort(found[order])]",
                "    return np.argsort(found)[:count]",
            ),
        ),
        functions=("closest",),
        callers=_ABOVE,
    ),
    Cause(
        "too many threads",
        numeric_project(),
        (_edit("THREADS = 512, 2000, 1", "THREADS = 512, 2000, 4"),),
        functions=("project", "distances"),
        parts=("threads",),
        callers=_ABOVE,
    ),
    Cause(
        "answers fifty times as large",
        numeric_project(),
        (_edit("LENGTH = 400", "LENGTH = 20_000"),),
        parts=("wire", "encode", "sockets", "HTTP server"),
        callers=(*_ABOVE, "describe"),
    ),
    Cause(
        "JSON in place of MessagePack between processes",
        {"processes.py": PROCESSES, "test_model.py": LARGE},
        (Edit("processes.py", 'WIRE = "rest+msgpack"', 'WIRE = "rest+json"'),),
        parts=("wire", "encode", "decode"),
        callers=("shift",),  # JSON brings it a list, of which it makes an array
    ),
)
