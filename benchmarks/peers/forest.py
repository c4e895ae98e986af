"""The project on which verdicts are counted: a random forest that reads handwritten digits, in a git repository.

The forest is trained by scikit-learn once and walked in plain Python, so that it loads at once and takes some
milliseconds of one core for an answer. A regression is injected by what the working tree's ``added.py`` says: trees
walked once more, a share of slow or failing requests, memory that is held, a start that takes longer.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DIGITS", "WALKS", "Added", "make_repository", "set_added"]

TREES = 50
DIGITS = 64
"""Digits on a page, which is one input."""
WALKS = TREES * DIGITS
"""Trees that are walked for an answer."""

_MODEL = '''
"""Reads pages of handwritten digits: a random forest, walked tree by tree."""

import json
import time
from collections import Counter
from pathlib import Path

from added import ADDED

HERE = Path(__file__).parent


def walk(tree, image):
    left, right, feature, threshold, answer = tree
    node = 0
    while left[node] >= 0:
        node = left[node] if image[feature[node]] <= threshold[node] else right[node]
    return answer[node]


class Forest:
    def __init__(self):
        time.sleep(ADDED["start_s"])
        self.held = bytearray(b"x") * round(ADDED["memory_mib"] * 2**20)
        self.trees = json.loads((HERE / "forest.json").read_text())
        self.requests = 0

    def __call__(self, pages):
        self.requests += 1
        if ADDED["failing"] and self.requests % round(1 / ADDED["failing"]) == 0:
            raise ValueError("an input that the new code does not take")
        if ADDED["slow"] and self.requests % round(1 / ADDED["slow"]) == 0:
            for _ in range(3):  # four times the median
                [self.read(page) for page in pages]
        return ["".join(map(str, self.read(page))) for page in pages]

    def read(self, page):
        for number in range(ADDED["walks"]):
            walk(self.trees[number % len(self.trees)], page[number % len(page)])
        return [Counter(walk(tree, image) for tree in self.trees).most_common(1)[0][0] for image in page]
'''
_TEST = """
import json

import pytest
from model import HERE, Forest


@pytest.fixture
def perf_model():
    return Forest


@pytest.fixture
def perf_payload():
    return json.loads((HERE / "pages.json").read_text())


@pytest.mark.perf(concurrency=1)
def test_digits(perf):
    pass


@pytest.mark.perf(concurrency=1, payload=[page[:6] for page in json.loads((HERE / "pages.json").read_text())])
def test_few(perf):
    pass
"""
_FILES = {"pytest.ini": "[pytest]\npythonpath = .\n", "model.py": _MODEL, "test_digits.py": _TEST}


@dataclass(frozen=True)
class Added:
    """What the working tree does beyond the committed revision.

    Attributes:
        walks: trees walked once more for an answer.
        slow: share of the requests that take four times as long.
        failing: share of the requests that fail.
        memory_mib: memory that the model holds.
        start_s: seconds that its start takes longer.
        number: of the run; it changes the code but not what it does, so that no run measures the recorded tree itself.
    """

    walks: int = 0
    slow: float = 0.0
    failing: float = 0.0
    memory_mib: float = 0.0
    start_s: float = 0.0
    number: int = 0


def make_repository(top: Path) -> None:
    """Write the project and commit it to ``main``."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    top.mkdir(parents=True)
    digits = load_digits()
    forest = RandomForestClassifier(n_estimators=TREES, random_state=0, n_jobs=1).fit(digits.data, digits.target)
    trees = [estimator.tree_ for estimator in forest.estimators_]
    columns = [
        [
            tree.children_left.tolist(),
            tree.children_right.tolist(),
            tree.feature.tolist(),
            tree.threshold.round(2).tolist(),
            tree.value[:, 0, :].argmax(axis=1).tolist(),
        ]
        for tree in trees
    ]
    (top / "forest.json").write_text(json.dumps(columns))
    images = digits.data.astype(int).tolist()
    pages = [images[start : start + DIGITS] for start in range(0, len(images) - DIGITS, DIGITS)]
    (top / "pages.json").write_text(json.dumps(pages))
    for name, text in _FILES.items():
        (top / name).write_text(text)
    set_added(top, Added())
    identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
    for command in (("init", "--quiet", "--initial-branch=main"), ("add", "."), ("commit", "--quiet", "-m", "Forest")):
        subprocess.run(["git", *identity, *command], cwd=top, check=True)


def set_added(top: Path, added: Added) -> None:
    """Let the model in the working tree do more; nothing is committed."""
    (top / "added.py").write_text(f"ADDED = {asdict(added)!r}\n")
