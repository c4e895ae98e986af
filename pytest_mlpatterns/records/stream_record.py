"""What reports need of answers that came in pieces: plain values that travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.records.latency import Latency

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STREAM_QUANTITIES", "StreamRecord", "StreamedRequest"]

STREAM_QUANTITIES = ("ttft", "itl", "tpot")
"""Times of streams: time to first token, inter-token latency, time per output token."""


@dataclass(frozen=True, slots=True)
class StreamedRequest:
    """The times of one request, all but the first since it was due.

    Attributes:
        due_ns: when it was due, since the window began.
        first_byte_ns: first byte of the answer, that of its head; None if none came.
        chunks_ns: arrivals of its chunks, ascending: the first one, the last one, and some of those between.
        end_ns: end of the answer, or when it failed or was cancelled.
        chunks: number of its chunks.
        output_tokens: tokens of the answer, by the server's usage, else its chunks.
        outcome: HTTP status, or a negative code of :class:`pytest_mlpatterns.records.outcomes.Failure`.
    """

    due_ns: int
    first_byte_ns: int | None
    chunks_ns: tuple[int, ...]
    end_ns: int
    chunks: int
    output_tokens: int
    outcome: int


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """The streams of one test.

    Attributes:
        ttft: time to first token of the successful requests, pooled over all launches; None if none had a token.
        itl: gaps between neighbouring chunks of one answer; None if no answer had two.
        tpot: time per output token of each request; None as for ``itl``.
        tokens_over_time: ``(seconds, output tokens per second)`` of each block of the last launch; a moment is the end
            of its block. Tokens of failed answers are not counted.
        requests: some neighbouring requests of the last launch, in the order in which they were due.
        input_tokens: mean number of a request, ``(value, low, high)``; None if the server does not report it.
        output_tokens: the same of an answer.
    """

    ttft: Latency | None
    itl: Latency | None
    tpot: Latency | None
    tokens_over_time: tuple[tuple[float, float], ...]
    requests: tuple[StreamedRequest, ...]
    input_tokens: tuple[float, float, float] | None
    output_tokens: tuple[float, float, float] | None

    def of(self, quantity: str) -> Latency | None:
        """The distribution of ``ttft``, ``itl`` or ``tpot``."""
        found: Latency | None = getattr(self, quantity)
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StreamRecord:
        """The inverse of ``dataclasses.asdict``, also after a trip through JSON."""
        times = {name: None if data[name] is None else Latency.from_json(data[name]) for name in STREAM_QUANTITIES}
        return cls(
            **times,
            tokens_over_time=tuple((moment, rate) for moment, rate in data["tokens_over_time"]),
            requests=tuple(
                StreamedRequest(**{**one, "chunks_ns": tuple(one["chunks_ns"])}) for one in data["requests"]
            ),
            input_tokens=_estimate(data["input_tokens"]),
            output_tokens=_estimate(data["output_tokens"]),
        )


def _estimate(data: Any) -> tuple[float, float, float] | None:
    return None if data is None else (data[0], data[1], data[2])
