"""Recorded columns as numpy arrays: views of the raw bytes from the generator process, without a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_mlpatterns.records.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.loadgen.messages import LoadResult

__all__ = ["merged_columns", "samples_of"]

_DTYPES: dict[str, Any] = {
    "due_ns": np.int64,
    "sent_ns": np.int64,
    "done_ns": np.int64,
    "outcome": np.int16,
    "request": np.uint32,
    "target": np.uint8,
    "received_bytes": np.uint32,
}


def samples_of(result: LoadResult) -> Samples:
    """The samples of a load, warm-up included."""
    return Samples(**{name: np.frombuffer(result.columns[name], dtype) for name, dtype in _DTYPES.items()})


def merged_columns(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the rows of several recordings, in the order of completion."""
    joined = {
        name: np.concatenate([np.frombuffer(part[name], dtype) for part in parts]) for name, dtype in _DTYPES.items()
    }
    order = np.argsort(joined["done_ns"], kind="stable")
    return {name: column[order] for name, column in joined.items()}
