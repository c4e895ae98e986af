"""The model under test: a random forest that reads handwritten digits."""

import os
from pathlib import Path
from time import perf_counter

import joblib


class Digits:
    """Built once inside every worker process; DIGITS_SLOWDOWN=2 makes each call take twice its own time."""

    def __init__(self):
        self.forest = joblib.load(Path(__file__).with_name("digits.joblib"))
        self.slowdown = float(os.environ.get("DIGITS_SLOWDOWN", "1"))

    def __call__(self, batch):
        started = perf_counter()
        digits = [int(digit) for digit in self.forest.predict(batch)]
        until = started + self.slowdown * (perf_counter() - started)
        while perf_counter() < until:  # busy, as slower code would be, and not asleep
            pass
        return digits
