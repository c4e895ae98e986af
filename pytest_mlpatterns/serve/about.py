"""What a service says of itself over HTTP: health, and metadata of the server and its model, as V1 and V2 have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.wire import Body
    from pytest_mlpatterns.wire.v2 import InferRequest

__all__ = ["About"]


class About:
    """Answers what GET asks.

    Names, datatypes and shapes of the model's tensors are those of the first inference request over V2: a model that is
    a function of Python says nothing of them itself.

    Args:
        name: the model's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._inputs: list[dict[str, Any]] = []
        self._outputs: list[dict[str, Any]] = []
        model = f"/v2/models/{name}"
        self._known: dict[str, Callable[[], dict[str, Any]]] = {
            f"/v1/models/{name}": self._status,
            "/v2": self._server,
            "/v2/health/live": lambda: {"live": True},
            "/v2/health/ready": lambda: {"ready": True},
            model: self._metadata,
            f"{model}/versions/1": self._metadata,
            f"{model}/ready": lambda: {"name": name, "ready": True},
            f"{model}/versions/1/ready": lambda: {"name": name, "ready": True},
        }

    def answer(self, path: str) -> bytes | None:
        """The answer to a path, None where nothing is known under it."""
        found = self._known.get(path.rstrip("/"))
        return None if found is None else orjson.dumps(found())

    def learn(self, request: InferRequest, answer: Body) -> None:
        """Take names, datatypes and shapes from the first inference."""
        if not self._inputs:
            length = int(dict(answer.headers).get("inference-header-content-length", answer.size))
            message = orjson.loads(answer.joined()[:length])
            self._inputs = list(request.specification)
            self._outputs = [
                {"name": tensor["name"], "datatype": tensor["datatype"], "shape": [-1, *tensor["shape"][1:]]}
                for tensor in message["outputs"]
            ]

    def _status(self) -> dict[str, Any]:
        version = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return {"name": self._name, "ready": True, "model_version_status": [version]}

    def _server(self) -> dict[str, Any]:
        from importlib.metadata import version

        ours = "pytest-mlpatterns"
        return {"name": ours, "version": version(ours), "extensions": ["binary_tensor_data"]}

    def _metadata(self) -> dict[str, Any]:
        return {
            "name": self._name,
            "versions": ["1"],
            "platform": "python",
            "inputs": self._inputs,
            "outputs": self._outputs,
        }
