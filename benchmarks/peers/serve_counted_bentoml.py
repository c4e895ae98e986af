"""The texts of :mod:`counted_models` behind BentoML: ``bentoml serve serve_counted_bentoml:Ranking``."""

from __future__ import annotations

import sys
from pathlib import Path

import bentoml

sys.path.append(str(Path(__file__).resolve().parents[1]))
from counted_models import Texts


@bentoml.service(logging={"access": {"enabled": False}})
class Ranking:
    """One text in each request, and one call of the model for it."""

    def __init__(self) -> None:
        self.model = Texts()

    @bentoml.api(route="/predict")
    def predict(self, instances: list[str]) -> dict[str, list[list[float]]]:
        return {"predictions": self.model(instances)}
