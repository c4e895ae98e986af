"""Health, and metadata of the server and its model, as V1, V2, invocations and servers of language models have them.

Clients such as ``perf_analyzer`` ask for them before and after a load. The values are as in Triton's JSON, which are
the fields of its gRPC messages too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from pytest_mlpatterns.wire.invocations import PING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.serving.http.inference_call import WireTally
    from pytest_mlpatterns.serving.http.model_caller import ModelCaller

_EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
"""Extensions of the protocol. Of Triton's ``model_repository`` only the list of models is served, so it is left out."""
INDEX = "/v2/repository/index"  # Path of the list of models
_MAX_BATCH_SIZE = 2**31 - 1  # A request may carry any number of inputs; only the size of its body is limited


class ModelMetadata:
    """Answers GET requests.

    The names, datatypes and shapes of the tensors come from the first V2 inference, because a Python callable does
    not declare them.

    ``inputs``: name, datatype and shape of each input tensor; empty before the first V2 inference.
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


class TritonExtensions:
    """Answers what Triton's clients ask besides the protocol."""

    def __init__(self, metadata: ModelMetadata, caller: ModelCaller, tally: WireTally) -> None:
        self._metadata = metadata
        self._caller = caller
        self._tally = tally

    def paths(self) -> Mapping[str, Callable[[], Any]]:
        """What is served at which path; GET except for :data:`INDEX`, which is asked by POST."""
        model = f"/v2/models/{self._metadata.name}"
        return {
            f"{model}/config": self.config,
            f"{model}/versions/1/config": self.config,
            f"{model}/stats": self.statistics,
            f"{model}/versions/1/stats": self.statistics,
            "/v2/models/stats": self.statistics,
            INDEX: self.index,
        }

    def config(self) -> dict[str, Any]:
        """The configuration of the model; the dimensions of its tensors are without the batch's."""
        model = self._metadata.metadata()
        return {
            "name": model["name"],
            "platform": model["platform"],
            "backend": model["platform"],
            "max_batch_size": _MAX_BATCH_SIZE,
            "input": _tensors(model["inputs"]),
            "output": _tensors(model["outputs"]),
            "model_transaction_policy": {"decoupled": False},
        }

    def statistics(self) -> dict[str, Any]:
        """What was answered since the start; durations are sums in nanoseconds.

        ``compute_infer`` is the time in the model and in the layers around it; waiting in a layer is part of it, and
        ``queue`` is 0.
        """
        calls, tally = self._caller.statistics, self._tally
        answered = {"count": calls.succeeded, "ns": calls.succeeded_ns + tally.decode_ns + tally.encode_ns}
        return {
            "model_stats": [
                {
                    "name": self._metadata.name,
                    "version": "1",
                    "last_inference": calls.last_ms,
                    "inference_count": calls.succeeded,
                    "execution_count": calls.succeeded,
                    "inference_stats": {
                        "success": answered,
                        "fail": {"count": calls.failed, "ns": calls.failed_ns},
                        "queue": {"count": calls.succeeded, "ns": 0},
                        "compute_input": {"count": calls.succeeded, "ns": tally.decode_ns},
                        "compute_infer": {"count": calls.succeeded, "ns": calls.succeeded_ns},
                        "compute_output": {"count": calls.succeeded, "ns": tally.encode_ns},
                    },
                }
            ]
        }

    def index(self) -> list[dict[str, Any]]:
        """The models of the server: this one."""
        return [{"name": self._metadata.name, "version": "1", "state": "READY", "reason": ""}]


def _tensors(tensors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor["name"],
            "data_type": "TYPE_" + {"BYTES": "STRING"}.get(tensor["datatype"], tensor["datatype"]),
            "dims": tensor["shape"][1:],
        }
        for tensor in tensors
    ]
