"""Health, and metadata of the server and its model, as V1, V2, invocations and servers of language models have them.

Clients such as ``perf_analyzer`` ask for them before and after a load. The values are as in Triton's JSON, which are
the fields of its gRPC messages too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from pytest_mlpatterns.wire.invocations import PING

if TYPE_CHECKING:
    from pytest_mlpatterns.serving.http.inference_call import WireTally
    from pytest_mlpatterns.serving.http.model_caller import ModelCaller

_EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
"""Extensions of the protocol. Of Triton's ``model_repository`` only the list of models is served, so it is left out."""
_PLATFORM = "python"  # What Triton calls a model that is a Python callable
INDEX = "/v2/repository/index"  # Path of the list of models
_MAX_BATCH_SIZE = 2**31 - 1  # A request may carry any number of inputs; only the size of its body is limited


class ModelMetadata:
    """Answers GET requests, of Triton's clients too.

    The names, datatypes and shapes of the tensors come from the first V2 inference, because a Python callable does
    not declare them.

    ``inputs``: name, datatype and shape of each input tensor; empty before the first V2 inference.
    """

    def __init__(self, name: str, caller: ModelCaller, tally: WireTally) -> None:
        self.inputs: tuple[dict[str, Any], ...] = ()
        self._outputs: tuple[dict[str, Any], ...] = ()
        self._name = name
        self._caller = caller
        self._tally = tally
        model = f"/v2/models/{name}"
        self._known: dict[str, Callable[[], Any]] = {}
        for path in (model, f"{model}/versions/1"):
            self._known |= {
                path: self.metadata,
                f"{path}/ready": lambda: {"name": name, "ready": True},
                f"{path}/config": self.config,
                f"{path}/stats": self.statistics,
            }
        self._known |= {
            f"/v1/models/{name}": self._status,
            "/health": lambda: {"status": "ok"},  # clients of language models ask here before they begin
            PING: lambda: {"status": "ok"},
            "/v2": self.server,
            "/v2/health/live": lambda: {"live": True},
            "/v2/health/ready": lambda: {"ready": True},
            "/v2/models/stats": self.statistics,
            INDEX: self.index,
        }

    def answer(self, path: str) -> bytes | None:
        """JSON body for a path, asked by POST for :data:`INDEX` and else by GET; None if nothing is served there."""
        found = self._known.get(path.rstrip("/"))
        return None if found is None else orjson.dumps(found())

    def learn(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Store name, datatype and shape of each tensor of the first inference."""
        self.inputs, self._outputs = tuple(inputs), tuple(outputs)

    def _status(self) -> dict[str, Any]:
        version = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return {"name": self._name, "ready": True, "model_version_status": [version]}

    def server(self) -> dict[str, Any]:
        """Metadata of the server."""
        from importlib.metadata import version

        package = "pytest-mlpatterns"
        return {"name": package, "version": version(package), "extensions": list(_EXTENSIONS)}

    def metadata(self) -> dict[str, Any]:
        """Metadata of the model."""
        return {
            "name": self._name,
            "versions": ["1"],
            "platform": _PLATFORM,
            "inputs": self.inputs,
            "outputs": self._outputs,
        }

    def config(self) -> dict[str, Any]:
        """The configuration of the model; the dimensions of its tensors are without the batch's."""
        return {
            "name": self._name,
            "platform": _PLATFORM,
            "backend": _PLATFORM,
            "max_batch_size": _MAX_BATCH_SIZE,
            "input": _tensors(self.inputs),
            "output": _tensors(self._outputs),
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
                    "name": self._name,
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
        return [{"name": self._name, "version": "1", "state": "READY", "reason": ""}]


def _tensors(tensors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor["name"],
            "data_type": "TYPE_" + {"BYTES": "STRING"}.get(tensor["datatype"], tensor["datatype"]),
            "dims": tensor["shape"][1:],
        }
        for tensor in tensors
    ]
