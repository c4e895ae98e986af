"""Method names and message framing of the Open Inference Protocol over gRPC.

Keep this module free of tensors: the load generator imports it.
"""

from __future__ import annotations

import re

__all__ = ["INFER_METHOD", "PREFIX_BYTES", "SERVICE", "message_prefix", "model_in"]

_INFER_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?/infer")
SERVICE = "inference.GRPCInferenceService"
INFER_METHOD = f"/{SERVICE}/ModelInfer"
PREFIX_BYTES = 5
"""Length of the prefix of a message: the compression flag and the length of the message."""


def model_in(path: str) -> str:
    """Name of the model in the path of a V2 inference request; empty if the path is not of that form."""
    found = _INFER_PATH.fullmatch(path)
    return "" if found is None else found[1]


def message_prefix(size: int) -> bytes:
    """Prefix of an uncompressed message of ``size`` bytes."""
    return size.to_bytes(PREFIX_BYTES, "big")
