"""What a service says of itself over HTTP: health, and metadata of the server and its model, as V1 and V2 have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ModelMetadata"]


class ModelMetadata:
    """Answers what GET asks.

    Names, datatypes and shapes of the model's tensors are those of the first inference request over V2: a model that is
    a function of Python says nothing of them itself.

    Args:
        name: the model's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.inputs: tuple[dict[str, Any], ...] = ()
        self._outputs: tuple[dict[str, Any], ...] = ()
        model = f"/v2/models/{name}"
        self._known: dict[str, Callable[[], dict[str, Any]]] = {
            f"/v1/models/{name}": self._status,
            "/v2": self.server,
            "/v2/health/live": lambda: {"live": True},
            "/v2/health/ready": lambda: {"ready": True},
            model: self.metadata,
            f"{model}/versions/1": self.metadata,
            f"{model}/ready": lambda: {"name": name, "ready": True},
            f"{model}/versions/1/ready": lambda: {"name": name, "ready": True},
        }

    def answer(self, path: str) -> bytes | None:
        """The answer to a path, None where nothing is known under it."""
        found = self._known.get(path.rstrip("/"))
        return None if found is None else orjson.dumps(found())

    def learn(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Take name, datatype and shape of each tensor from the first inference."""
        if not self.inputs:
            self.inputs, self._outputs = tuple(inputs), tuple(outputs)

    def _status(self) -> dict[str, Any]:
        version = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return {"name": self._name, "ready": True, "model_version_status": [version]}

    def server(self) -> dict[str, Any]:
        """What the server is."""
        from importlib.metadata import version

        ours = "pytest-mlpatterns"
        return {"name": ours, "version": version(ours), "extensions": ["binary_tensor_data"]}

    def metadata(self) -> dict[str, Any]:
        """What the model takes and gives."""
        return {
            "name": self._name,
            "versions": ["1"],
            "platform": "python",
            "inputs": self.inputs,
            "outputs": self._outputs,
        }
