"""Functions of this package become one frame for each layer: a user reads ``wire: encode``, not names of our files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.profile import Frame

if TYPE_CHECKING:
    from pytest_mlpatterns.profiling.recording import RawFrame

__all__ = ["MODEL", "SERVER_LAYER", "is_ours", "layer_of", "role_frame"]

MODEL = "model"
"""Name of the boundary of a model, below which its own code runs."""
SERVER_LAYER = Frame("HTTP server", owner="layer")
_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep
_ELSEWHERE = re.compile(r".*/site-packages/pytest_mlpatterns/")
"""The same package in another environment, that of a revision."""

_LAYERS = (
    ("serving/http/model_caller.py", ""),
    ("serving/http/model_lock.py", ""),
    ("serving/http/", "HTTP server"),
    ("serving/grpc/", "gRPC server"),
    ("serving/local/http_server.py", "HTTP server"),
    ("serving/local/upstream.py", "hop"),
    ("serving/redis/cache", "cached"),
    ("serving/redis/", "queued"),
    ("wire/compression.py", "wire: compression"),
    ("wire/", "wire"),
    ("patterns/batch", "batched"),
    ("patterns/cache", "cached"),
    ("patterns/continuous", "continuous"),
    ("patterns/queued", "queued"),
    ("patterns/pipeline", "pipeline"),
    ("patterns/ensemble", "ensemble"),
)
"""Layer by the beginning of a path in this package; an empty one only passes calls on and gets no frame."""


def is_ours(path: str) -> bool:
    """Whether a file belongs to this package."""
    return bool(_inside(path))


def layer_of(raw: RawFrame) -> Frame | None:
    """The frame of the layer to which a function of this package belongs; None for one that only passes calls on."""
    inside = _inside(raw.file)
    if inside == "serving/timed_model.py":
        return Frame(MODEL, owner="model")
    label = next((layer for beginning, layer in _LAYERS if inside.startswith(beginning)), "")
    if label == "wire":
        label = next((f"wire: {verb}" for verb in ("encode", "decode") if verb[:5] in raw.name), label)
    return Frame(label, owner="layer") if label else None


def role_frame(role: str) -> Frame:
    """The root of the stacks of a process with this role."""
    return Frame(role, owner="process")


def _inside(path: str) -> str:
    """The path within this package; empty for the file of another."""
    if path.startswith(_PACKAGE):
        return path[len(_PACKAGE) :]
    found = _ELSEWHERE.match(path)
    return path[found.end() :] if found else ""
