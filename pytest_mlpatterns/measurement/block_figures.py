"""Figures of one block of an interleaved run: rates that hold however short it is, and the times of streams. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.answer_counts import AnswerCounts
from pytest_mlpatterns.analysis.location import location
from pytest_mlpatterns.analysis.log_ratio import paired_log_ratio
from pytest_mlpatterns.analysis.stream_times import StreamTimes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.log_ratio import LogRatio
    from pytest_mlpatterns.records.samples import Samples, Window

__all__ = ["answer_rate", "stream_figures", "stream_ratios"]


def answer_rate(samples: Samples, window: Window, *, closed: bool, weights: NDArray[np.int64] | None = None) -> float:
    """Successful answers per second of a block, or what they count for.

    In a closed loop these are the answers of the window over its time, those at its end by the share of their time in
    it. If the very first answer arrived within the window, that time begins with the first request. In an open loop
    answers also arrive after the window, so the rate is taken from the first answer to the last.

    Args:
        samples: of the block, with the requests before its window and at least one answer.
        window: the block.
        closed: whether it was a closed loop.
        weights: what each request of a closed loop counts for, such as its tokens; None for 1.

    Returns:
        Answers per second.
    """
    good = samples.succeeded
    done_ns, first_due_ns = samples.done_ns[good], int(samples.due_ns.min())
    if closed:
        start_ns = window.start_ns if done_ns[0] <= window.start_ns else first_due_ns
        of_each = None if weights is None else weights[good]
        counts = AnswerCounts(samples.due_ns[good], done_ns, closed=True, weights=of_each)
        cuts_ns = counts.cuts(np.array([start_ns, window.end_ns], dtype=np.float64))
        begun, ended = counts.by(cuts_ns)
        return float((ended - begun) * 1e9 / (cuts_ns[1] - cuts_ns[0]))
    if done_ns.size > 1:
        return float((done_ns.size - 1) * 1e9 / max(done_ns[-1] - done_ns[0], 1))
    return float(done_ns.size * 1e9 / max(done_ns[-1] - first_due_ns, 1))


def stream_figures(samples: Samples, window: Window, good: NDArray[np.bool_], *, closed: bool) -> dict[str, float]:
    """Median and location of TTFT and TPOT, and the output tokens per second, of a block; empty if answers came whole.

    A figure that is not known is 0. Tokens count as answers do; in an open loop, when they arrived.

    Args:
        samples: of the block, with the requests before its window.
        window: the block.
        good: mask of the successful requests that were due in the window.
        closed: whether it was a closed loop.
    """
    if samples.stream is None or not samples.came_in_pieces:
        return {}
    times = StreamTimes(samples, samples.stream)
    found = {}
    for name, values in (("ttft", times.ttft_ns[good]), ("tpot", times.tpot_ns[good])):
        known = values[np.isfinite(values)]
        found[name] = float(np.median(known)) if known.size else 0.0
        found[f"{name}_mean"] = location(known) if found[name] else 0.0
    if closed:
        tokens = np.where(times.has_chunks, times.tokens, 0)
        return {**found, "output_tokens": answer_rate(samples, window, closed=True, weights=tokens)}
    in_time = samples.succeeded[times.owner] & (times.arrival_ns < window.end_ns)
    owner = times.owner[in_time]
    arrived = float((times.tokens[owner] / times.chunk_count[owner]).sum())
    return {**found, "output_tokens": arrived * 1e9 / max(window.end_ns - int(samples.due_ns.min()), 1)}


def stream_ratios(
    first: Mapping[str, Sequence[float]],
    second: Mapping[str, Sequence[float]],
    second_whole: Mapping[str, Sequence[float]],
    *,
    disturbed: Sequence[bool],
) -> dict[str, LogRatio]:
    """The ratios second/first of what only streams have, by metric.

    If the second variant does not stream, its first content is the whole answer, so its TTFT is its latency.

    Args:
        first: figures of the first variant by metric, one of each block; 0 if it is not known.
        second: those of the second variant.
        second_whole: of the second variant's whole answers, what their first content would be, as the others.
        disturbed: for each block, whether other processes disturbed it.
    """
    present = second or second_whole
    return {
        name: paired_log_ratio(values, present[name], disturbed)
        for name, values in first.items()
        if name in present and all([*values, *present[name]])
    }
