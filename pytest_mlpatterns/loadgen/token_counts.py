"""The user's count of the tokens of answers whose server reported no usage, after the load and in pytest's process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_mlpatterns import fields
from pytest_mlpatterns.wire.stream_text import text_of
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.records.samples import Samples

__all__ = ["merged_texts", "with_counted_tokens"]

_MOST_TOKENS = 2**31 - 1


def with_counted_tokens(samples: Samples, columns: Mapping[str, Any], tokens: Callable[[str], int]) -> Samples:
    """The samples with the output tokens of the answers whose text was kept.

    Args:
        samples: of a load.
        columns: of the same load, with ``text`` and ``text_bytes`` if it kept texts.
        tokens: counts the tokens of a text; called once for each different text.

    Raises:
        SettingError: a count is no whole number.
        Exception: any that ``tokens`` raises.
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
