"""mosec, which gathers batches: ``python serve_mosec.py MODEL PORT batched``."""

from __future__ import annotations

import os
import sys
from typing import Any

from models import MODELS
from mosec import Server, Worker


class Predict(Worker):
    """What mosec gathered in one call, in a process that it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MODELS[os.environ["MODEL"]]

    def forward(self, data: list[Any]) -> list[Any]:
        outputs = self.model([request["instances"][0] for request in data])
        return [{"predictions": [output]} for output in outputs]


if __name__ == "__main__":
    model, port, _form = sys.argv[1:]
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", port, "--log-level", "warning"]  # mosec reads its settings here
    server = Server()
    server.append_worker(Predict, max_batch_size=32, max_wait_time=5, env=[{"MODEL": model}], route="/predict")
    server.run()
