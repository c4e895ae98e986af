"""What the benchmarks of streams share: loads against a server that records its own sends."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from bench import on_client_core, on_server_core

from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.schedule import ClosedLoop

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.streaming_server import SentStream, StreamingServer, Wanted, streaming_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.records.launch import GeneratorReport

__all__ = ["StreamFigures", "StreamLoad", "Wanted", "drive_streams", "recording_server", "sent_figures"]


@dataclass(frozen=True)
class StreamFigures:
    """What one side says about the same streams: medians over requests, and means over gaps."""

    requests: int
    chunks: int
    ttft_ns: float
    itl_ns: float


@dataclass(frozen=True)
class StreamLoad:
    """What our generator measured, and what it cost."""

    figures: StreamFigures
    report: GeneratorReport

    @property
    def cpu_ns_per_chunk(self) -> float:
        return self.report.cpu_ns / self.figures.chunks

    @property
    def chunks_per_s(self) -> float:
        return self.figures.chunks * 1e9 / self.report.wall_ns


@contextmanager
def recording_server(wanted: Wanted) -> Iterator[StreamingServer]:
    """The server in a process of its own, on the server's core."""
    with (
        tempfile.TemporaryDirectory() as directory,
        on_server_core(),
        streaming_server(Path(directory) / "sent.jsonl", wanted) as server,
    ):
        yield server


def drive_streams(
    generator: Generator, server: StreamingServer, path: str, *, streams: int, seconds: float
) -> StreamLoad:
    """Drive a closed loop of streams with our generator.

    Raises:
        RuntimeError: a request failed, so that the figures would mean nothing.
    """
    message = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}" % path.encode()
    job = LoadJob(
        endpoint=Endpoint((server.address,), path=path),
        messages=(message,),
        schedule=ClosedLoop(streams),
        duration_ns=round(seconds * 1e9),
        warmup_ns=0,
        timeout_ns=10 * 10**9,
        stream=True,
    )
    with on_client_core():
        recorded = generator.run(job, poll_s=0.5, on_poll=lambda _event: None)
    samples = samples_of(recorded)
    stream = samples.stream
    assert stream is not None
    if not samples.succeeded.all():
        raise RuntimeError(f"{samples.failed.sum()} requests failed: {set(samples.outcome.tolist())}")
    chunks = np.split(stream.chunk_ns, np.cumsum(stream.chunk_count)[:-1])
    inside = int((stream.chunk_ns < recorded.window.end_ns).sum())
    figures = _figures(samples.due_ns.tolist(), chunks)
    return StreamLoad(
        StreamFigures(figures.requests, inside, figures.ttft_ns, figures.itl_ns),  # the report is of the window
        recorded.generator,
    )


def sent_figures(sent: Sequence[SentStream]) -> StreamFigures:
    """What the server itself recorded."""
    return _figures([one.received_ns for one in sent], [np.array(one.chunk_ns) for one in sent])


def _figures(began_ns: Sequence[int], chunks: Sequence[np.ndarray]) -> StreamFigures:
    first = [int(row[0]) - began for began, row in zip(began_ns, chunks, strict=True)]
    gaps = np.concatenate([np.diff(row) for row in chunks])
    return StreamFigures(len(chunks), int(sum(map(len, chunks))), float(np.median(first)), float(np.mean(gaps)))
