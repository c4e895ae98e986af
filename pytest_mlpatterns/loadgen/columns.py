"""Recorded columns as numpy arrays: views of the raw bytes from the generator process, without a copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from pytest_mlpatterns import fields
from pytest_mlpatterns.analysis.metrics.samples import join_samples, shift_samples
from pytest_mlpatterns.loadgen.recorder import FIGURE, SampleRecorder, StreamColumns
from pytest_mlpatterns.records.samples import Samples, StreamSamples
from pytest_mlpatterns.wire.stream_events import text_of
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.messages import LoadResult


def _dtypes(recorder: SampleRecorder | StreamColumns) -> dict[str, Any]:
    """Type of each column of a recording."""
    return {name: np.dtype(getattr(recorder, name).typecode) for name in recorder.COLUMNS}


_DTYPES = _dtypes(SampleRecorder())
_STREAM_DTYPES = _dtypes(StreamColumns())  # Of the columns that a recording of streams has besides
_MOST_TOKENS = 2**31 - 1  # Largest number of tokens that a column of 32 bits holds


def samples_of(result: LoadResult, tokens: Callable[[str], int] | None = None) -> Samples:
    """The samples of a load, warm-up included.

    ``tokens``: counts the tokens of texts that the load kept; None counts none.
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
    return columns | {f"{FIGURE}{name}": values for name, values in samples.figures.items()}


def _samples(columns: Mapping[str, Any]) -> Samples:
    stream = StreamSamples(**_arrays(columns, _STREAM_DTYPES)) if "chunk_ns" in columns else None
    names = [name.removeprefix(FIGURE) for name in columns if name.startswith(FIGURE)]
    figures = {name: np.frombuffer(columns[f"{FIGURE}{name}"], np.float64) for name in names}
    return Samples(**_arrays(columns, _DTYPES), stream=stream, figures=figures)


def _arrays(columns: Mapping[str, Any], dtypes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.frombuffer(columns[name], dtype) for name, dtype in dtypes.items()}


def with_counted_tokens(samples: Samples, columns: Mapping[str, Any], tokens: Callable[[str], int]) -> Samples:
    """The samples with the output tokens of the answers whose text was kept.

    ``columns``: of the same load, with ``text`` and ``text_bytes`` if it kept texts. Raises Exception: any that
    ``tokens`` raises.
    """
    if samples.stream is None or "text_bytes" not in columns:
        return samples
    sizes, texts = np.frombuffer(columns["text_bytes"], np.int32), memoryview(columns["text"])
    counts: dict[bytes, int] = {}
    output = samples.stream.output_tokens.copy()
    end = 0
    for row in np.flatnonzero(sizes >= 0):
        start, end = end, end + int(sizes[row])
        kept = bytes(texts[start:end])
        if kept not in counts:
            counts[kept] = _count(tokens(text_of(kept)))
        output[row] = counts[kept]
    return replace(samples, stream=replace(samples.stream, output_tokens=output))


def merged_texts(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The kept texts of several recordings, in the order of completion; empty if they kept none."""
    if "text_bytes" not in parts[0]:
        return {}
    done_ns = np.concatenate([np.frombuffer(part["done_ns"], np.int64) for part in parts])
    sizes = np.concatenate([np.frombuffer(part["text_bytes"], np.int32) for part in parts])
    lengths = np.maximum(sizes, 0).astype(np.int64)
    ends = np.cumsum(lengths)
    whole = b"".join(bytes(part["text"]) for part in parts)
    order = np.argsort(done_ns, kind="stable")
    text = b"".join(whole[ends[row] - lengths[row] : ends[row]] for row in order)
    return {"text": text, "text_bytes": sizes[order]}


def _count(value: object) -> int:
    found = f"perf(tokens=...) returned {shown(value)}"
    return fields.whole_number(value, found, least=0, most=_MOST_TOKENS, expected="the number of tokens of the text")
