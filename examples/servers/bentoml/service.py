"""A model behind BentoML, which gathers requests into batches: ``bentoml serve service:Sums``."""

import os
import time

import bentoml

COST_S = 0.005 * float(os.environ.get("SLOWDOWN", "1"))


@bentoml.service(logging={"access": {"enabled": False}})
class Sums:
    """A call costs 5 ms for any size of the batch."""

    @bentoml.api(route="/predict", batchable=True, max_batch_size=16, max_latency_ms=1000)
    def predict(self, numbers: list[list[float]]) -> list[float]:
        time.sleep(COST_S)
        return [sum(row) for row in numbers]
