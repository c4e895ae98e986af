"""LitServe, with its batching or without: ``python serve_litserve.py MODEL PORT single|batched``."""

from __future__ import annotations

import sys
from typing import Any

import litserve
from models import MODELS


class Single(litserve.LitAPI):
    """One input in each request, and one call of the model for it."""

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(api_path="/predict", **settings)
        self.model_name = model

    def setup(self, _device: str) -> None:
        self.model = MODELS[self.model_name]

    def decode_request(self, request) -> Any:  # no annotation: LitServe would have FastAPI validate by it
        return request["instances"][0]

    def predict(self, x: Any) -> Any:
        return self.model([x])[0]

    def encode_response(self, output: Any) -> Any:
        return {"predictions": [output]}


class Batched(Single):
    """What LitServe gathered in one call; lists need no joining and no splitting."""

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: list[Any]) -> list[Any]:
        return self.model(x)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output


if __name__ == "__main__":
    model, port, form = sys.argv[1:]
    api = Batched(model, max_batch_size=32, batch_timeout=0.005) if form == "batched" else Single(model)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, fast_queue=True)
    server.run(host="127.0.0.1", port=int(port), log_level="warning", generate_client_file=False)
