"""Two models of the same question, as a process serves them: a heavy one, and one that costs almost nothing."""

from pathlib import Path

import joblib

FILE = Path(__file__).with_name("models.joblib")


class Forest:
    """The heavy one: 300 trees vote."""

    name = "forest"

    def __init__(self):
        self.model = joblib.load(FILE)[self.name]

    def __call__(self, rows):
        return self.model.predict_proba(rows)[:, 1].tolist()


class Linear(Forest):
    """The cheap one: a weighted sum."""

    name = "linear"


def unsure(row, probability):
    """Whether the cheap model's answer is not good enough, so that the heavy one is asked."""
    return 0.05 < probability < 0.95
