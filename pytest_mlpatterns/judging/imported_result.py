"""What another client logged, as the result of a test: metrics as of our own loads, for reports and rankings.

It judges nothing, and knows no file format.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.metrics.distribution_summary import latency_of, stream_record
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.judging.result_builder import estimated
from pytest_mlpatterns.records.launch import GeneratorReport, Launch, Warmup
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.samples import Samples, StreamSamples, Window
from pytest_mlpatterns.records.setup import Setup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.request_log import LoggedRequest, RequestLog

__all__ = ["imported_result"]

_GROUP = "imported"
_UNKNOWN = ("request_bytes", "response_bytes")
"""Metrics of what logs do not hold."""


def imported_result(log: RequestLog, name: str) -> TestResult:
    """The result of a run of another client.

    Args:
        log: its requests.
        name: stands where a test has its pattern, so that the runs of several files are ranked beside each other.
    """
    metrics = Metrics((_launch(log.requests),))
    figures, by_launch = estimated(metrics)
    for absent in _UNKNOWN:
        figures.pop(absent, None)
        by_launch.pop(absent, None)
    failures = Counter(str(one.outcome) for one in log.requests if not 200 <= one.outcome < 300 and one.error)
    first = next((one.error for one in log.requests if one.error), "")
    plain = {"pattern": name, "load": log.load, "wire": "openai", "payload": "", "model": log.model}
    return TestResult(
        test=f"{_GROUP}[{name}]",
        group=_GROUP,
        passed=True,
        setup=Setup.from_json(plain),
        metrics=figures,
        launches=by_launch,
        verdicts=(),
        requests=metrics.requests,
        failed_requests=dict(failures),
        blocks=metrics.blocks,
        launch_count=1,
        seconds_spent=metrics.launches[0].window.duration_ns / 1e9,
        baseline_note="",
        notes=(f"measured by {log.client}, not by this plugin",),
        load_over_time=(),
        capacities=(),
        layers=(),
        generator={"limited": False},
        latency=latency_of(metrics.latencies_ns),
        first_failure=first,
        stream=stream_record(metrics),
        cancelled_requests=sum(1 for one in log.requests if not 200 <= one.outcome < 300 and not one.error),
    )


def _launch(requests: Sequence[LoggedRequest]) -> Launch:
    """The run as one launch, from the first request to the end of the last answer."""
    in_order = sorted(requests, key=lambda one: one.end_ns)
    begun_ns = min(one.due_ns for one in in_order)
    window = Window(0, max(in_order[-1].end_ns - begun_ns, 1) + 1)

    def column(name: str) -> np.ndarray:
        return np.array([getattr(one, name) for one in in_order], dtype=np.int64)

    stream = StreamSamples(
        first_byte_ns=np.array([one.chunks_ns[0] - begun_ns if one.chunks_ns else 0 for one in in_order], np.int64),
        chunk_count=np.array([len(one.chunks_ns) for one in in_order], np.uint32),
        output_tokens=column("output_tokens").astype(np.int32),
        input_tokens=column("input_tokens").astype(np.int32),
        chunk_ns=np.array([moment - begun_ns for one in in_order for moment in one.chunks_ns], np.int64),
    )
    count = len(in_order)
    samples = Samples(
        due_ns=column("due_ns") - begun_ns,
        sent_ns=column("sent_ns") - begun_ns,
        done_ns=column("end_ns") - begun_ns,
        outcome=column("outcome").astype(np.int16),
        request=np.zeros(count, np.uint32),
        target=np.zeros(count, np.uint8),
        received_bytes=np.zeros(count, np.uint32),
        stream=stream if stream.chunk_ns.size else None,
    )
    return Launch(
        samples=samples,
        window=window,
        usage=None,
        stats=None,
        warmup=Warmup(0, 0, None),
        generator=GeneratorReport(cpu_ns=0, wall_ns=window.duration_ns, completed=count, connections=0),
        cold_start_ns=None,
        request_bytes=np.zeros(1, np.int64),
        open_loop=False,
    )
