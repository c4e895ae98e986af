"""Causes that wait, on a lock, a timer or a socket, or that do the same work more often."""

from __future__ import annotations

from zoo.cause import Cause, Edit
from zoo.text import MODEL as RANKER
from zoo.text import TEXTS

__all__ = ["CAUSES"]

LOOKUP = '''
"""Prices from a table that a thread of its own renews."""

import socket
import threading
import time

TABLE = {str(number): float(number) for number in range(5000)}


def load_table():
    time.sleep(0.003)  # from a database
    return dict(TABLE)


def answer_flags(server):
    connection, _ = server.accept()
    while connection.recv(64):
        time.sleep(0.0015)
        connection.sendall(b"on")


class Prices:
    def __init__(self):
        self.lock, self.table = threading.Lock(), load_table()
        server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=answer_flags, args=(server,), daemon=True).start()
        self.flags = socket.create_connection(server.getsockname())
        self.known = None
        threading.Thread(target=self.renew, daemon=True).start()

    def renew(self):
        while True:
            time.sleep(0.001)
            table = load_table()
            with self.lock:
                self.table = table

    def __call__(self, batch):
        return [self.price(number) for number in batch]

    def price(self, number):
        limit()
        rounded = self.is_on("rounding")
        found = total(self.row(number))
        return round(found, 2) if rounded else found

    def row(self, number):
        with self.lock:
            return [self.table[str((number + step) % 5000)] for step in range(4000)]

    def is_on(self, flag):
        if self.known is None:
            self.known = self.ask(flag)
        return self.known

    def ask(self, flag):
        self.flags.sendall(flag.encode())
        return self.flags.recv(64) == b"on"


def total(row):
    found = 0.0
    for value in row:
        found += value * 1.01
    return found


def limit():
    pass
'''
FETCH = '''
"""An asynchronous model: it asks a store for features, which answers after two milliseconds."""

import asyncio
import time


class Enriched:
    async def __call__(self, batch):
        return [await self.enrich(number) for number in batch]

    async def enrich(self, number):
        found = await fetch(number)
        await settle()
        return sum(found)


async def fetch(number):
    await asyncio.sleep(0.002)
    return [number] * 100


async def settle():
    await asyncio.sleep(0)
'''
DATED = '''
"""A pattern: adds to each input when it came, for the model and for the cache before it."""

import time
from dataclasses import dataclass
from inspect import isawaitable

from pytest_mlpatterns import Pattern


def stamp():
    return time.strftime("%Y-%m-%d")


@dataclass(frozen=True)
class Dated(Pattern):
    def layer(self, inside, tally, resources):
        async def dated(inputs):
            outputs = inside[0]([{"text": text, "at": stamp()} for text in inputs])
            return await outputs if isawaitable(outputs) else outputs

        return dated
'''
DATED_TEST = """
import pytest
from dated import Dated
from model import Ranker
from pytest_mlpatterns import Cached
from texts import TEXTS

RANKER = Ranker()


def rank(batch):
    return RANKER([given["text"] for given in batch])


@pytest.mark.perf(model=rank, payload=TEXTS, pattern=Dated() | Cached(max_entries=1000), concurrency=1)
def test_rank(perf):
    pass
"""
GATHERED = '''
"""A pattern: batches of the size that suits our model, which pays once for each call."""

import time
from dataclasses import dataclass

from pytest_mlpatterns import Batched, Pattern

SIZE = 32


@dataclass(frozen=True)
class Gathered(Pattern):
    def build(self, position, rest):
        return Batched(max_batch_size=SIZE).build(position, rest)


def answer(batch):
    spin(0.002 + 0.00005 * len(batch))
    return batch


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
'''


def _test(module: str, model: str, marker: str) -> str:
    return f"""
import pytest
from {module} import *


@pytest.mark.perf(model={model}, payload=list(range(100)), {marker})
def test_model(perf):
    pass
"""


_PRICES = {"prices.py": LOOKUP, "test_model.py": _test("prices", "Prices", "concurrency=1")}
_ENRICHED = {"enriched.py": FETCH, "test_model.py": _test("enriched", "Enriched", "concurrency=4")}
_ABOVE = ("Prices.__call__", "Prices.price")
_ABOVE_FETCH = ("Enriched.__call__", "Enriched.enrich")

CAUSES = (
    Cause(
        "a lock held by another thread",
        _PRICES,
        (
            Edit(
                "prices.py",
                "            table = load_table()\n            with self.lock:\n                self.table = table",
                "            with self.lock:\n                self.table = load_table()",
            ),
        ),
        functions=("Prices.row",),
        callers=_ABOVE,
    ),
    Cause(
        "a sleep",
        _PRICES,
        (Edit("prices.py", "def limit():\n    pass", "def limit():\n    time.sleep(0.001)  # 1,000 a second"),),
        functions=("limit",),
        callers=_ABOVE,
    ),
    Cause(
        "a socket round trip for every request",
        _PRICES,
        (
            Edit(
                "prices.py",
                "        if self.known is None:\n            self.known = self.ask(flag)\n        return self.known",
                "        return self.ask(flag)",
            ),
        ),
        functions=("Prices.ask", "Prices.is_on"),
        callers=_ABOVE,
    ),
    Cause(
        "a blocking call in an async model",
        _ENRICHED,
        (Edit("enriched.py", "    await asyncio.sleep(0.002)", "    time.sleep(0.002)"),),
        functions=("fetch",),
        callers=_ABOVE_FETCH,
    ),
    Cause(
        "a coroutine that waits longer",
        _ENRICHED,
        (Edit("enriched.py", "    await asyncio.sleep(0)", "    await asyncio.sleep(0.002)"),),
        functions=("settle",),
        callers=_ABOVE_FETCH,
    ),
    Cause(
        "a cache that no longer hits",
        {"model.py": RANKER, "texts.py": TEXTS, "dated.py": DATED, "test_model.py": DATED_TEST},
        (Edit("dated.py", 'time.strftime("%Y-%m-%d")', "time.time()"),),
        parts=("called", "cache"),
        callers=("rank", "Ranker.__call__", "Ranker.rank"),
    ),
    Cause(
        "smaller batches",
        {
            "gathered.py": GATHERED,
            "test_model.py": _test("gathered", "answer", "pattern=Gathered(), concurrency=32"),
        },
        (Edit("gathered.py", "SIZE = 32", "SIZE = 4"),),
        parts=("batch", "called"),
        callers=("answer", "spin"),
    ),
)
