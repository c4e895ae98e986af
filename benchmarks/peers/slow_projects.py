"""The projects on which verdicts on slow services are counted, each in a git repository with one commit, ``main``.

Two kinds: the example with llama.cpp, whose changes are edits of its own files; and services that sleep for times of a
declared distribution, so that the truth is known and no other process moves it.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["RATES", "SHAPES", "Declared", "Edit", "Project", "language_model", "sleepers"]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "servers" / "llama_cpp"
FILES = ("pytest.ini", "serve.py", "test_perf.py")
RATES = (0.5, 2.0, 5.0, 20.0)
"""Answers per second of one caller."""
SHAPES = ("one", "two", "tail")
"""One mode; two of equal share, the second twice as long; 5 % of the answers with a Pareto tail of exponent 2.5."""


@dataclass(frozen=True)
class Edit:
    """A text of a file that stands in it once, and what takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Declared:
    """What the sleeping services of the working tree do beyond the committed revision.

    Attributes:
        slower: share by which all answers take longer.
        second: share by which those of the second mode do, or those of the tail.
        number: of the run; it changes the code but not what it does, so that no run measures the recorded tree itself.
    """

    slower: float = 0.0
    second: float = 0.0
    number: int = 0


@dataclass(frozen=True)
class Project:
    """A project as it was committed.

    Attributes:
        top: its directory.
        texts: of its files, by name.
    """

    top: Path
    texts: Mapping[str, str]

    def lay_out(self) -> None:
        """Commit it, anew if the files of the example have changed since."""
        mark = self.top / ".git" / "committed"
        text = repr(sorted(self.texts.items()))
        if mark.exists() and mark.read_text(encoding="utf-8") == text:
            return
        shutil.rmtree(self.top, ignore_errors=True)
        self.top.mkdir(parents=True)
        self.write(self.texts)
        identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
        for command in (
            ("init", "--quiet", "--initial-branch=main"),
            ("add", "."),
            ("commit", "--quiet", "-m", "Service"),
        ):
            subprocess.run(["git", *identity, *command], cwd=self.top, check=True)
        mark.write_text(text, encoding="utf-8")

    def write(self, texts: Mapping[str, str]) -> None:
        """Let the working tree hold these files instead of the committed ones; nothing is committed."""
        for name, text in {**self.texts, **texts}.items():
            (self.top / name).write_text(text, encoding="utf-8")

    def change(self, edits: Iterable[Edit], number: int) -> None:
        """Let the working tree differ by edits, and by a comment, so that no run measures the recorded tree itself."""
        texts = edited(self.texts, edits)
        self.write({**texts, "serve.py": f"{texts['serve.py']}# run {number}\n"})


def edited(texts: Mapping[str, str], edits: Iterable[Edit]) -> dict[str, str]:
    """Texts with edits.

    Raises:
        ValueError: the text of an edit does not stand in its file exactly once.
    """
    found = dict(texts)
    for edit in edits:
        if found[edit.file].count(edit.old) != 1:
            raise ValueError(f"{edit.old!r} stands {found[edit.file].count(edit.old)} times in {edit.file}, expected 1")
        found[edit.file] = found[edit.file].replace(edit.old, edit.new)
    return found


def language_model(top: Path, base: Iterable[Edit]) -> Project:
    """The example with llama.cpp and SmolLM2, with edits that are part of its committed revision."""
    texts = {name: (EXAMPLE / name).read_text(encoding="utf-8") for name in FILES}
    return Project(top, {**edited(texts, base), ".gitignore": _IGNORED})


_IGNORED = "__pycache__/\n.pytest_cache/\n"
_SLEEPING = '''
"""Services whose answers take a declared time: they sleep, so that no other process makes them slower."""

import math
import random
import time

from declared import DECLARED

SPREAD, SPREAD_OF_MODE = 0.15, 0.04
"""Standard deviation of the logarithm of one mode, and of one of two."""


def one(draw):
    return math.exp(draw.gauss(0, SPREAD))


def two(draw):
    second = draw.random() < 0.5
    return (2 * (1 + DECLARED["second"]) if second else 1) * math.exp(draw.gauss(0, SPREAD_OF_MODE)) / 1.5


def tail(draw):
    late = draw.random() < 0.05
    return one(draw) * (draw.paretovariate(2.5) * (1 + DECLARED["second"]) if late else 1)


class Sleeper:
    """Answers ``rate`` requests of one caller per second, by times of one shape; each process has draws of its own."""

    def __init__(self, rate, shape):
        self.rate, self.shape, self.draw = rate, shape, None

    def __call__(self, batch):
        self.draw = self.draw or random.Random()
        for _ in batch:
            time.sleep(SHAPES[self.shape](self.draw) * (1 + DECLARED["slower"]) / self.rate)
        return batch


SHAPES = {"one": one, "two": two, "tail": tail}
'''
_TEST = """
import pytest
from sleeping import Sleeper

SERVICES = [(rate, shape) for rate in RATES for shape in SHAPES]


@pytest.fixture
def perf_model(service):
    return Sleeper(*service)


@pytest.fixture
def perf_payload():
    return [1.0, 2.0, 3.0]


@pytest.mark.perf(concurrency=1, timeout="60s")
@pytest.mark.parametrize("service", SERVICES, ids=lambda service: f"{service[0]:g}-{service[1]}")
def test_answers(perf):
    pass
"""


def sleepers(top: Path) -> Project:
    """A project with a test for each rate and shape: ``test_sleeping.py::test_answers[2-two]``."""
    test = _TEST.replace("in RATES", f"in {RATES}").replace("in SHAPES", f"in {SHAPES}").lstrip()
    return Project(
        top,
        {
            "pytest.ini": "[pytest]\npythonpath = .\n",
            ".gitignore": _IGNORED,
            "sleeping.py": _SLEEPING.lstrip(),
            "declared.py": declared_text(Declared()),
            "test_sleeping.py": test,
        },
    )


def declared_text(declared: Declared) -> str:
    """The text of ``declared.py``."""
    return f"DECLARED = {asdict(declared)!r}\n"
