"""Launches of answers that came in pieces, with declared times."""

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.distribution_summary import stream_record
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.samples import Samples, StreamSamples
from support.synthetic import MS, START_NS, S, launch, make_setup, result, samples


def streamed(
    due_ns: Sequence[int],
    chunks_after_ns: Sequence[Sequence[int]],
    *,
    outcome: Sequence[int] | int = 200,
    output_tokens: Sequence[int] | int = -1,
    input_tokens: Sequence[int] | int = -1,
) -> Samples:
    """Requests, and when the chunks of each came after it was due; the answer ends with its last chunk."""
    lasted = [max(row, default=1) for row in chunks_after_ns]
    order = np.argsort(np.asarray(due_ns) + lasted, kind="stable")
    count = len(chunks_after_ns)
    plain = samples(due_ns, lasted, outcome=outcome)
    arrived = [[due_ns[row] + after for after in chunks_after_ns[row]] for row in order.tolist()]
    stream = StreamSamples(
        first_byte_ns=np.array([row[0] if row else 0 for row in arrived], dtype=np.int64),
        chunk_count=np.array([len(row) for row in arrived], dtype=np.uint32),
        output_tokens=np.broadcast_to(np.asarray(output_tokens, dtype=np.int32), (count,))[order],
        input_tokens=np.broadcast_to(np.asarray(input_tokens, dtype=np.int32), (count,))[order],
        chunk_ns=np.array([moment for row in arrived for moment in row], dtype=np.int64),
    )
    return replace(plain, stream=stream)


def stream_launch(
    *,
    ttft_ns: int = 50 * MS,
    gap_ns: int = 10 * MS,
    chunks: int = 10,
    rate_rps: float = 20.0,
    seconds: float = 3.0,
    jitter: float = 0.0,
    failing: int = 0,
    seed: int = 0,
    **told: int,
) -> Launch:
    """Streams at even intervals; ``jitter`` is the relative scatter of every time, the first ``failing`` ones fail."""
    rng = np.random.default_rng(seed)
    count = int(seconds * rate_rps)
    due = START_NS + np.round(np.arange(count) * S / rate_rps).astype(np.int64)
    times = np.tile([ttft_ns, *[gap_ns] * (chunks - 1)], (count, 1)) * np.exp(rng.normal(0, jitter, (count, chunks)))
    after = np.cumsum(times, axis=1).astype(np.int64).tolist()
    outcome = [500] * failing + [200] * (count - failing)
    after = [[] if code == 500 else row for code, row in zip(outcome, after, strict=True)]
    return launch(streamed(due.tolist(), after, outcome=outcome, **told), seconds=seconds)


def stream_result(test: str = "test_llm.py::test_chat", **changes: object) -> TestResult:
    """A result of two launches of streams, of which some failed; ``changes`` replace fields."""
    launches = tuple(
        stream_launch(
            ttft_ns=180 * MS, gap_ns=12 * MS, chunks=40, jitter=0.25, failing=2, seed=seed, input_tokens=128, seconds=4
        )
        for seed in (1, 2)
    )
    metrics = Metrics(launches)
    figures = {
        "ttft": (182.0 * MS, 176.0 * MS, 188.0 * MS),
        "ttft:p95": (271.0 * MS, 255.0 * MS, 290.0 * MS),
        "tpot": (12.1 * MS, 11.9 * MS, 12.3 * MS),
        "itl": (11.9 * MS, 11.8 * MS, 12.0 * MS),
        "itl:p95": (18.0 * MS, 17.6 * MS, 18.5 * MS),
        "output_tokens": (781.0, 770.0, 792.0),
        "output_tokens_per_user": (82.6, 81.3, 84.0),
        "rtm": (655.0 * MS, 640.0 * MS, 670.0 * MS),
        "throughput": (19.5, 19.2, 19.8),
        "error_rate": (0.025, 0.01, 0.06),
        "asl": (0.31, 0.29, 0.33),
    }
    plain = {
        "metrics": figures,
        "launches": {"ttft": ((181.0 * MS, 0.01), (183.0 * MS, 0.01)), "tpot": ((12.1 * MS, 0.01), (12.1 * MS, 0.01))},
        "requests": 160,
        "failed_requests": {"500": 4},
        "stream": stream_record(metrics),
        "setup": make_setup("continuous(max_batch_size=8)", "poisson(20/s)", "openai"),
    }
    return result(test, **{**plain, **changes})
