"""Figures of one block of an interleaved run: rates that hold however short it is, and the times of streams. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.blocks import completions_between
from pytest_mlpatterns.analysis.log_ratio import paired_log_ratio
from pytest_mlpatterns.analysis.stream_times import StreamTimes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.log_ratio import LogRatio
    from pytest_mlpatterns.records.samples import Samples, Window

__all__ = ["answer_rate", "stream_figures", "stream_ratios"]


def answer_rate(done_ns: NDArray[np.int64], first_due_ns: int, window: Window, *, closed: bool) -> float:
    """Successful answers per second of a block.

    In a closed loop these are the answers of the window over the time in which they arrived. If the very first answer
    arrived within the window, that time begins with the first request. In an open loop answers also arrive after the
    window, so the rate is taken from the first answer to the last.

    Args:
        done_ns: arrival times of at least one answer, ascending, including those before and after the window.
        first_due_ns: when the first request of the block was due, before the window.
        window: the block.
        closed: whether it was a closed loop.

    Returns:
        Answers per second.
    """
    if closed:
        start_ns = window.start_ns if done_ns[0] <= window.start_ns else first_due_ns
        edges = np.array([start_ns, window.end_ns], dtype=np.float64)
        counts, spans_ns = completions_between(done_ns, edges)
        if counts[0]:
            return float(counts[0] * 1e9 / spans_ns[0])
    elif done_ns.size > 1:
        return float((done_ns.size - 1) * 1e9 / max(done_ns[-1] - done_ns[0], 1))
    return float(done_ns.size * 1e9 / max(done_ns[-1] - first_due_ns, 1))


def stream_figures(samples: Samples, window: Window, good: NDArray[np.bool_]) -> dict[str, float]:
    """The median TTFT and TPOT and the output tokens per second of a block; empty if its answers came whole.

    A figure that is not known is 0. Tokens count from the first request of the block, as answers do.

    Args:
        samples: of the block, with the requests before its window.
        window: the block.
        good: mask of the successful requests that were due in the window.
    """
    if samples.stream is None or not samples.came_in_pieces:
        return {}
    times = StreamTimes(samples, samples.stream)
    ttft, tpot = times.ttft_ns[good], times.tpot_ns[good]
    found = {
        name: float(np.median(known)) if (known := values[np.isfinite(values)]).size else 0.0
        for name, values in (("ttft", ttft), ("tpot", tpot))
    }
    in_time = samples.succeeded[times.owner] & (times.arrival_ns < window.end_ns)
    owner = times.owner[in_time]
    tokens = float((times.tokens[owner] / times.chunk_count[owner]).sum())
    return {**found, "output_tokens": tokens * 1e9 / max(window.end_ns - int(samples.due_ns.min()), 1)}


def stream_ratios(
    first: Mapping[str, Sequence[float]],
    second: Mapping[str, Sequence[float]],
    second_rtm_ns: Sequence[float],
    *,
    disturbed: Sequence[bool],
) -> dict[str, LogRatio]:
    """The ratios second/first of what only streams have, by metric.

    If the second variant does not stream, its first content is the whole answer, so its TTFT is its response time.

    Args:
        first: figures of the first variant by metric, one of each block; 0 if it is not known.
        second: those of the second variant.
        second_rtm_ns: response time median of each block of the second variant.
        disturbed: for each block, whether other processes disturbed it.
    """
    present = second or {"ttft": second_rtm_ns}
    return {
        name: paired_log_ratio(values, present[name], disturbed)
        for name, values in first.items()
        if name in present and all([*values, *present[name]])
    }
