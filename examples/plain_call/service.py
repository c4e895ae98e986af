"""The classifier behind FastAPI. ``SLOWDOWN=10`` makes the service slower, and not the library."""

import os
import time

from fastapi import FastAPI
from model import Digits

app = FastAPI()
digits = Digits()
EXTRA_S = 0.02 * (float(os.environ.get("SLOWDOWN", "1")) - 1)


@app.post("/classify")
def classify(pictures: list[list[float]]):
    time.sleep(EXTRA_S)
    return digits.classify(pictures)
