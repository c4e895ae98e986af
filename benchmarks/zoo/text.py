"""Causes in a model of plain Python: it reads a text and ranks its topics, in some milliseconds of ten functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.cause import Cause, Edit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CAUSES", "text_project"]

MODEL = '''
"""Ranks the topics of a text."""

import copy
import gc
import importlib
import re
import zlib
from collections import Counter

import numpy as np

WORD = re.compile(r"[a-z']+")
ENDINGS, PLURALS = ("ing", "ed", "ly", "s"), ("s", "es")
SIZE, TOPICS = 256, 200
WEIGHTS = np.random.default_rng(0).normal(size=(SIZE, TOPICS)).astype(np.float32)
SECRETS = [f"secret{number:03}" for number in range(600)]
SEARCHES = [re.compile(secret) for secret in SECRETS]


class Ranker:
    def __init__(self):
        self.options = {f"option {n}": {"weights": [n, n + 1.0], "names": {"of": str(n)}} for n in range(300)}

    def __call__(self, texts):
        return [self.rank(text) for text in texts]

    def rank(self, text):
        options = self.settings()
        words = tokens(redact(trim(text)))
        return best(scores(features(words)), len(options) // 60)

    def settings(self):
        return self.options


def trim(text):
    return text.rstrip()


def redact(text):
    head = text[:100]
    if any(search.search(head) for search in SEARCHES):
        return "redacted"
    return text


def tokens(text):
    return [stem(word) for word in split(text)]


def split(text):
    return WORD.findall(text.lower())


def stem(word):
    for ending in endings():
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word[: -len(ending)]
    return word


def endings():
    return ENDINGS


def features(words):
    vector = np.zeros(SIZE, np.float32)
    for word in unique(words):
        vector[zlib.crc32(word.encode()) % SIZE] += 1.0
    for word, count in Counter(words).items():
        vector[zlib.crc32(word.encode()) % SIZE] += count / len(words)
    return vector


def unique(words):
    return list(dict.fromkeys(words))


def scores(vector):
    return vector @ WEIGHTS


def best(found, count):
    order = np.argsort(found)[::-1][:count]
    return [{"topic": int(number), "score": float(found[number])} for number in order]
'''
TEXTS = '''
"""Eight texts of the same length, the same on both sides."""

import random

DRAW = random.Random(0)
SYLLABLES = ["ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "ne", "pi", "ro", "su", "ta", "ve"]
WORDS = ["".join(DRAW.choices(SYLLABLES, k=3)) + DRAW.choice(["", "s", "ed", "ing"]) for _ in range(400)]
TEXTS = [" ".join(DRAW.choices(WORDS, k=1500)) + " " * 1200 + "end" for _ in range(8)]
'''
TEST = """
import pytest
from model import Ranker
from pytest_mlpatterns import Batched, Queued, Replicated, Single
from texts import TEXTS


@pytest.mark.perf(model=Ranker, payload=TEXTS, {marker})
def test_rank(perf):
    pass
"""
_ABOVE = ("Ranker.__call__", "Ranker.rank")


def text_project(marker: str = "pattern=Single()") -> Mapping[str, str]:
    """The project before any change, served as the marker says."""
    return {"model.py": MODEL, "texts.py": TEXTS, "test_model.py": TEST.format(marker=marker)}


def _edit(old: str, new: str) -> Edit:
    return Edit("model.py", old, new)


_STEM = """def stem(word):
    for ending in endings():
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word[: -len(ending)]
    return word
"""
CAUSES = (
    Cause(
        "a slower function four calls deep",
        text_project(),
        (
            _edit(
                "    return ENDINGS\n",
                "    return tuple(sorted({*ENDINGS, *PLURALS}, key=len, reverse=True))\n",
            ),
        ),
        functions=("endings",),
        callers=(*_ABOVE, "tokens", "stem"),
    ),
    Cause(
        "deduplication in O(n²)",
        text_project("pattern=Replicated(2), concurrency=2"),
        (
            _edit(
                "    return list(dict.fromkeys(words))",
                "    found = []\n    for word in words:\n        if word not in found:\n"
                "            found.append(word)\n    return found",
            ),
        ),
        functions=("unique",),
        callers=(*_ABOVE, "features"),
    ),
    Cause(
        "a regular expression that backtracks",
        text_project(),
        (
            _edit("    return text.rstrip()", '    return TRAILING.sub("", text)'),
            _edit("SIZE, TOPICS = 256, 200", 'SIZE, TOPICS = 256, 200\nTRAILING = re.compile(r"\\s+$")'),
        ),
        functions=("trim",),
        callers=_ABOVE,
    ),
    Cause(
        "a deep copy of the options",
        text_project("pattern=Queued(), concurrency=1"),
        (_edit("        return self.options\n", "        return copy.deepcopy(self.options)\n"),),
        functions=("Ranker.settings",),
        callers=_ABOVE,
    ),
    Cause(
        "patterns compiled for every call",
        text_project("pattern=Batched(max_batch_size=8), concurrency=2"),
        (
            _edit(
                "    if any(search.search(head) for search in SEARCHES):",
                "    if any(re.search(secret, head) for secret in SECRETS):",
            ),
        ),
        functions=("redact",),
        callers=_ABOVE,
    ),
    Cause(
        "garbage collection of cycles",
        text_project(),
        (
            _edit(
                "        return best(scores(features(words)), len(options) // 60)",
                "        found = best(scores(features(words)), len(options) // 60)\n"
                "        gc.collect()  # a leak was feared\n"
                "        return found",
            ),
        ),
        functions=("Ranker.rank",),
        parts=("garbage collection",),
        callers=("Ranker.__call__",),
        part_suffices=True,
    ),
    Cause(
        "an import inside a function",
        text_project(),
        (
            _edit(
                "    return WORD.findall(text.lower())",
                "    for kind in ('simd', 'rust', 'cython', 'numba', 'gpu', 'wasm'):\n"
                "        try:\n            return importlib.import_module(f'tokens_{kind}').split(text)\n"
                "        except ImportError:\n            pass  # not everywhere installed\n"
                "    return WORD.findall(text.lower())",
            ),
        ),
        functions=("split",),
        callers=(*_ABOVE, "tokens"),
    ),
    Cause(
        "a function that moved and got slower",
        text_project(),
        (
            _edit(_STEM, ""),
            _edit("import numpy as np\n", "import numpy as np\nfrom stemming import stem\n"),
            Edit(
                "stemming.py",
                "",
                '"""Word stems."""\n\nENDINGS = ("ing", "ed", "ly", "s")\n\n\n'
                "def stem(word):\n"
                "    for length in range(len(word), 2, -1):\n"
                "        if word[length:] in ENDINGS:\n"
                "            return word[:length]\n"
                "    return word",
            ),
        ),
        functions=("stem",),
        callers=(*_ABOVE, "tokens"),
    ),
)
