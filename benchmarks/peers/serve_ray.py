"""Ray Serve with one replica: ``python serve_ray.py MODEL PORT single``.

Its whole cluster counts; by default it gives workers a low priority. The default of 5 ongoing requests is
raised: with 32 callers most of the time would go into finding that the replica is full. One port of the replica, for
calls from other replicas, is open to all interfaces, and no setting changes that; everything else is on 127.0.0.1.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # anywhere: the node is 127.0.0.1, which ray.init would replace

import ray
from models import MODELS
from ray import serve
from ray.serve.schema import LoggingConfig


@serve.deployment(num_replicas=1, max_ongoing_requests=100)
class Predict:
    def __init__(self, model: str) -> None:
        self.model = MODELS[model]

    async def __call__(self, request: Any) -> Any:
        return {"predictions": self.model((await request.json())["instances"])}


if __name__ == "__main__":
    model, port, _form = sys.argv[1:]
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=tempfile.gettempdir(),
    )
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)}, logging_config=quiet)
    serve.run(Predict.bind(model), route_prefix="/predict", logging_config=quiet)
    signal.pause()
