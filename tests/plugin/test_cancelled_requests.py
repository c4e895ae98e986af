"""Requests that are cancelled on purpose are counted apart, through the whole plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.project import Project

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
import time

import pytest


def slow(batch):
    time.sleep(0.03)
    return batch


@pytest.mark.perf(duration="400ms", warmup="0s", launches=1, concurrency=2, cancel="50% after 5ms")
def test_some_leave(perf):
    metrics = perf.metrics
    (launch,) = metrics.launches
    samples = launch.samples
    cancelled = samples.cancelled & launch.window.covers(samples.due_ns)
    assert cancelled.any()
    assert not samples.succeeded[cancelled].any()
    assert samples.stream is None
    assert metrics.failures == {}
    assert metrics.error_ratio.value == 0
    assert metrics.requests == samples.due_in(launch.window).sum() > 0
    assert (samples.latency_ns[samples.succeeded] >= 30e6).all()


@pytest.fixture
def perf_model():
    return slow


@pytest.fixture
def perf_payload():
    return [1]
"""


@pytest.mark.processes
def test_cancelled_requests_are_neither_latencies_nor_failures(tmp_path: Path) -> None:
    run = Project().with_file("test_perf.py", FILE).run(tmp_path)
    assert run.exit_code == 0, run.out + run.err
