"""A call of the Open Inference Protocol over gRPC: which method, and how a message lies on the connection.

The load generator uses it too, which knows no tensors.
"""

from __future__ import annotations

import re

__all__ = ["INFER_METHOD", "PREFIX_BYTES", "SERVICE", "message_prefix", "model_in"]

_INFER_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?/infer")
SERVICE = "inference.GRPCInferenceService"
INFER_METHOD = f"/{SERVICE}/ModelInfer"
PREFIX_BYTES = 5
"""Before every message: whether it is compressed (0), and its length."""


def model_in(path: str) -> str:
    """The model's name in the path at which REST would take the request; empty where there is none."""
    found = _INFER_PATH.fullmatch(path)
    return "" if found is None else found[1]


def message_prefix(size: int) -> bytes:
    """What goes before a message of so many bytes."""
    return size.to_bytes(PREFIX_BYTES, "big")
