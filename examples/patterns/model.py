"""The models: a random forest that separates benign from malignant tumours, a plain one beside it, and the steps
around."""

from pathlib import Path

import joblib
import numpy as np

FILE = Path(__file__).with_name("tumours.joblib")


class Forest:
    """Built once inside every process that serves it: a row of 30 measurements in, the probability of benign out."""

    def __init__(self):
        self.forest = joblib.load(FILE)["forest"]

    def __call__(self, rows):
        return self.forest.predict_proba(rows)[:, 1]


class Linear:
    """A logistic regression over the same rows: faster, and wrong elsewhere than the forest."""

    def __init__(self):
        self.linear = joblib.load(FILE)["linear"]

    def __call__(self, rows):
        return self.linear.predict_proba(rows)[:, 1]


def without_gaps(rows):
    """A preprocessing step: measurements that are missing count as 0."""
    return [[0.0 if number is None else number for number in row] for row in rows]


def named(probabilities):
    """A postprocessing step: a name for each probability."""
    return ["benign" if probability >= 0.5 else "malignant" for probability in probabilities]


def unsure(row, probability):
    """Whether the plain model leaves a row to the forest."""
    return 0.1 < probability < 0.9


def mean(answers):
    """What the models of an ensemble agree on."""
    return float(np.mean(answers))
