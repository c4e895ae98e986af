"""Recorded columns as arrays: where raw bytes from the generator process become numpy, without a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.records import Samples

if TYPE_CHECKING:
    from pytest_mlpatterns.load.job import Recorded

__all__ = ["samples_of"]


def samples_of(recorded: Recorded) -> Samples:
    """The samples of a job, warm-up included."""
    columns = recorded.columns
    return Samples(
        due_ns=np.frombuffer(columns["due_ns"], np.int64),
        sent_ns=np.frombuffer(columns["sent_ns"], np.int64),
        done_ns=np.frombuffer(columns["done_ns"], np.int64),
        outcome=np.frombuffer(columns["outcome"], np.int16),
        request=np.frombuffer(columns["request"], np.uint32),
        target=np.frombuffer(columns["target"], np.uint8),
        received_bytes=np.frombuffer(columns["received_bytes"], np.uint32),
    )
