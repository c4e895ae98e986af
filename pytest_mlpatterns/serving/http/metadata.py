"""Health, and metadata of the server and its model, as V1, V2, invocations and servers of language models have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from pytest_mlpatterns.wire.invocations import PING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ModelMetadata"]

_EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
"""Extensions of the protocol. Of Triton's ``model_repository`` only the list of models is served, so it is left out."""


class ModelMetadata:
    """Answers GET requests.

    The names, datatypes and shapes of the tensors are those of the first V2 inference, because a Python callable does
    not declare them.

    Args:
        name: name of the model.

    Attributes:
        name: as given.
        inputs: name, datatype and shape of each input tensor; empty before the first V2 inference.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.inputs: tuple[dict[str, Any], ...] = ()
        self._outputs: tuple[dict[str, Any], ...] = ()
        model = f"/v2/models/{name}"
        self._known: dict[str, Callable[[], Any]] = {
            f"/v1/models/{name}": self._status,
            "/health": lambda: {"status": "ok"},  # clients of language models ask here before they begin
            PING: lambda: {"status": "ok"},
            "/v2": self.server,
            "/v2/health/live": lambda: {"live": True},
            "/v2/health/ready": lambda: {"ready": True},
            model: self.metadata,
            f"{model}/versions/1": self.metadata,
            f"{model}/ready": lambda: {"name": name, "ready": True},
            f"{model}/versions/1/ready": lambda: {"name": name, "ready": True},
        }

    def serve(self, more: Mapping[str, Callable[[], Any]]) -> None:
        """Serve what these functions return at further paths."""
        self._known.update(more)

    def answer(self, path: str) -> bytes | None:
        """JSON body for a path, or None if nothing is served there."""
        found = self._known.get(path.rstrip("/"))
        return None if found is None else orjson.dumps(found())

    def learn(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Store name, datatype and shape of each tensor of the first inference."""
        if not self.inputs:
            self.inputs, self._outputs = tuple(inputs), tuple(outputs)

    def _status(self) -> dict[str, Any]:
        version = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return {"name": self.name, "ready": True, "model_version_status": [version]}

    def server(self) -> dict[str, Any]:
        """Metadata of the server."""
        from importlib.metadata import version

        package = "pytest-mlpatterns"
        return {"name": package, "version": version(package), "extensions": list(_EXTENSIONS)}

    def metadata(self) -> dict[str, Any]:
        """Metadata of the model."""
        return {
            "name": self.name,
            "versions": ["1"],
            "platform": "python",
            "inputs": self.inputs,
            "outputs": self._outputs,
        }
