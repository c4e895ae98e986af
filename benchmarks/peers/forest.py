"""The project on which verdicts are counted: a random forest that tells handwritten digits, in a git repository.

The forest is trained by scikit-learn once and walked in plain Python, so that it loads at once, takes a few
milliseconds of one core for an answer, and is slower in proportion when it asks more of its trees.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TREES", "make_repository", "set_trees"]

TREES = 50
"""Trees that the committed model asks; there are twice as many."""
DIGITS = 64
"""Digits on a page, which is one input."""

_MODEL = '''
"""Reads numbers of many handwritten digits: a random forest, walked tree by tree."""

import json
from collections import Counter
from pathlib import Path

from trees import COUNT

HERE = Path(__file__).parent


class Forest:
    def __init__(self):
        self.trees = json.loads((HERE / "forest.json").read_text())[:COUNT]

    def __call__(self, pages):
        return ["".join(map(str, map(self.digit, page))) for page in pages]

    def digit(self, image):
        votes = Counter()
        for left, right, feature, threshold, answer in self.trees:
            node = 0
            while left[node] >= 0:
                node = left[node] if image[feature[node]] <= threshold[node] else right[node]
            votes[answer[node]] += 1
        return votes.most_common(1)[0][0]
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
    forest = RandomForestClassifier(n_estimators=2 * TREES, random_state=0, n_jobs=1).fit(digits.data, digits.target)
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
    set_trees(top, TREES)
    identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
    for command in (("init", "--quiet", "--initial-branch=main"), ("add", "."), ("commit", "--quiet", "-m", "Forest")):
        subprocess.run(["git", *identity, *command], cwd=top, check=True)


def set_trees(top: Path, count: int) -> None:
    """Let the model in the working tree ask so many trees; nothing is committed."""
    (top / "trees.py").write_text(f"COUNT = {count}\n")
