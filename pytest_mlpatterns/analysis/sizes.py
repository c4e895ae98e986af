"""The mean size of requests or answers, and its standard error.

Answers of a fixed size need no statistics: the mean is exact, and any growth is one. Sampled texts vary by themselves,
so the mean over the few that a launch holds does too. Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_mlpatterns.records.launch import LaunchValue

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["mean_size"]

_UNKNOWN = 1e-9
"""Relative error of a single request: above zero, so that launches are not taken for exact, and without any weight."""


def mean_size(inputs: NDArray[np.integer[Any]], sizes: NDArray[np.integer[Any]]) -> LaunchValue:
    """The mean size with its relative standard error.

    If every input that was sent again had the same size again, sizes are fixed by the input. The inputs are sent in
    rounds, so the mean is exact but for those of the last, incomplete round: of n requests, r are in it, and with a
    deviation s between inputs their error is s sqrt(r) / n. Otherwise it is s / sqrt(n) with the deviation s of all.
    The error of a single request is not known. It counts as next to nothing, so that the scatter between launches
    decides.

    Args:
        inputs: index of the input of each request, shape ``(requests,)``, at least one.
        sizes: bytes of each, likewise.
    """
    mean, requests = float(sizes.mean()), sizes.size
    if requests == 1:
        return LaunchValue(mean, _UNKNOWN)
    if mean <= 0 or sizes.min() == sizes.max():
        return LaunchValue(mean, 0.0)
    deviation = float(np.std(sizes, ddof=1))
    pairs = np.unique(np.stack([inputs, sizes]), axis=1)
    distinct = int(np.unique(inputs).size)
    if distinct < requests and pairs.shape[1] == distinct:
        error = deviation * math.sqrt(requests % distinct) / requests
    else:
        error = deviation / math.sqrt(requests)
    return LaunchValue(mean, error / mean)
