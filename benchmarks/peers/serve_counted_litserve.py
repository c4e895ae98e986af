"""The texts of :mod:`counted_models` behind LitServe: ``python serve_counted_litserve.py PORT``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import litserve

sys.path.append(str(Path(__file__).resolve().parents[1]))
from counted_models import Texts


class Ranking(litserve.LitAPI):
    """One text in each request, and one call of the model for it."""

    def setup(self, _device: str) -> None:
        self.model = Texts()

    def decode_request(self, request) -> Any:  # no annotation: LitServe would have FastAPI validate by it
        return request["instances"]

    def predict(self, x: Any) -> Any:
        return self.model(x)

    def encode_response(self, output: Any) -> Any:
        return {"predictions": output}


if __name__ == "__main__":
    server = litserve.LitServer(Ranking(api_path="/predict"), accelerator="cpu", devices=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
