"""The model: a random forest that predicts the progression of a patient's diabetes within a year."""

from pathlib import Path

import joblib

FILE = Path(__file__).with_name("progression.joblib")


class Forest:
    """Built once inside every process that serves it: a row of 10 measurements in, the progression out."""

    def __init__(self):
        self.forest = joblib.load(FILE)

    def __call__(self, rows):
        return self.forest.predict(rows).tolist()
