"""Recorded columns as numpy arrays: views of the raw bytes from the generator process, without a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_mlpatterns.analysis.sample_rows import join_samples, shift_samples
from pytest_mlpatterns.loadgen.token_counts import merged_texts, with_counted_tokens
from pytest_mlpatterns.records.samples import Samples, StreamSamples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.loadgen.messages import LoadResult

__all__ = ["merged_columns", "samples_of", "shifted_columns"]

_DTYPES: dict[str, Any] = {
    "due_ns": np.int64,
    "sent_ns": np.int64,
    "done_ns": np.int64,
    "outcome": np.int16,
    "request": np.uint32,
    "target": np.uint8,
    "received_bytes": np.uint32,
}
_STREAM_DTYPES: dict[str, Any] = {
    "first_byte_ns": np.int64,
    "chunk_count": np.uint32,
    "output_tokens": np.int32,
    "input_tokens": np.int32,
    "chunk_ns": np.int64,
}


def samples_of(result: LoadResult, tokens: Callable[[str], int] | None = None) -> Samples:
    """The samples of a load, warm-up included.

    Args:
        result: of the load.
        tokens: counts the tokens of texts that the load kept; None counts none.
    """
    samples = _samples(result.columns)
    return samples if tokens is None else with_counted_tokens(samples, result.columns, tokens)


def merged_columns(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the rows of several recordings, in the order of completion."""
    return _columns(join_samples([_samples(part) for part in parts])) | merged_texts(parts)


def shifted_columns(columns: Mapping[str, Any], by_ns: int) -> dict[str, Any]:
    """The same rows, all of their times later by ``by_ns``: a recording by another clock."""
    return {**columns, **(_columns(shift_samples(_samples(columns), by_ns)) if by_ns else {})}


def _columns(samples: Samples) -> dict[str, Any]:
    columns = {name: getattr(samples, name) for name in _DTYPES}
    if samples.stream is not None:
        columns |= {name: getattr(samples.stream, name) for name in _STREAM_DTYPES}
    return columns


def _samples(columns: Mapping[str, Any]) -> Samples:
    stream = StreamSamples(**_arrays(columns, _STREAM_DTYPES)) if "chunk_ns" in columns else None
    return Samples(**_arrays(columns, _DTYPES), stream=stream)


def _arrays(columns: Mapping[str, Any], dtypes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.frombuffer(columns[name], dtype) for name, dtype in dtypes.items()}
