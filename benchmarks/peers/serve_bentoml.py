"""BentoML, with its adaptive batching or without: ``python serve_bentoml.py MODEL PORT single|batched``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bentoml
from models import MODELS

SETTINGS = {"logging": {"access": {"enabled": False}}}
Rows = list[list[float]]


@bentoml.service(**SETTINGS)
class Single:
    def __init__(self) -> None:
        self.model = MODELS[os.environ["MODEL"]]

    @bentoml.api(route="/predict")
    def predict(self, instances: Rows) -> dict[str, Rows]:
        return {"predictions": self.model(instances)}


@bentoml.service(**SETTINGS)
class Batched:
    def __init__(self) -> None:
        self.model = MODELS[os.environ["MODEL"]]

    @bentoml.api(route="/predict", batchable=True, max_batch_size=32)
    def predict(self, instances: Rows) -> Rows:
        return self.model(instances)


if __name__ == "__main__":
    model, port, form = sys.argv[1:]
    here = Path(__file__)
    service = ["serve", f"{here.stem}:{form.capitalize()}", "--working-dir", str(here.parent), "--quiet"]
    command = [sys.executable, "-m", "bentoml", *service, "--host", "127.0.0.1", "--port", port]
    os.execve(sys.executable, command, {**os.environ, "MODEL": model, "BENTOML_DO_NOT_TRACK": "1"})
