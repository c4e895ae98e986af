"""The project on which verdicts are counted: a random forest that reads handwritten digits, in a git repository.

The forest is trained by scikit-learn once and walked in plain Python, so that it loads at once and takes some
milliseconds of one core for an answer. It is slower in proportion when it walks some of its trees again.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WALKS", "make_repository", "set_added_walks"]

TREES = 50
DIGITS = 64
"""Digits on a page, which is one input."""
WALKS = TREES * DIGITS
"""Trees that are walked for an answer."""

_MODEL = '''
"""Reads pages of handwritten digits: a random forest, walked tree by tree."""

import json
from collections import Counter
from pathlib import Path

from added import WALKS

HERE = Path(__file__).parent


def walk(tree, image):
    left, right, feature, threshold, answer = tree
    node = 0
    while left[node] >= 0:
        node = left[node] if image[feature[node]] <= threshold[node] else right[node]
    return answer[node]


class Forest:
    def __init__(self):
        self.trees = json.loads((HERE / "forest.json").read_text())

    def __call__(self, pages):
        return ["".join(map(str, self.read(page))) for page in pages]

    def read(self, page):
        for number in range(WALKS):
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
"""
_FILES = {"pytest.ini": "[pytest]\npythonpath = .\n", "model.py": _MODEL, "test_digits.py": _TEST}


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
    set_added_walks(top, 0)
    identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
    for command in (("init", "--quiet", "--initial-branch=main"), ("add", "."), ("commit", "--quiet", "-m", "Forest")):
        subprocess.run(["git", *identity, *command], cwd=top, check=True)


def set_added_walks(top: Path, count: int) -> None:
    """Let the model in the working tree walk so many trees once more; nothing is committed."""
    (top / "added.py").write_text(f"WALKS = {count}\n")
