"""A call of the Open Inference Protocol over gRPC: which method, and how a message lies on the connection.

The load generator uses it too, which knows no tensors.
"""

from __future__ import annotations

__all__ = ["INFER_METHOD", "PREFIX_BYTES", "SERVICE", "message_prefix"]

SERVICE = "inference.GRPCInferenceService"
INFER_METHOD = f"/{SERVICE}/ModelInfer"
PREFIX_BYTES = 5
"""Before every message: whether it is compressed (0), and its length."""


def message_prefix(size: int) -> bytes:
    """What goes before a message of so many bytes."""
    return size.to_bytes(PREFIX_BYTES, "big")
