"""Launches of two classes of callers, declared: one that asks evenly, and one caller that waits for its answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.records.caller_classes import ClassRequests
from support.synthetic import MS, START_NS, S, launch, samples, usage

if TYPE_CHECKING:
    from pytest_mlpatterns.records.launch import Launch

__all__ = ["BULK", "GOLD", "mixed_launch"]

GOLD = ClassRequests("gold", "constant(100/s)", 0, 2, closed=False, rate_rps=100.0)
BULK = ClassRequests("bulk", "closed(1)", 2, 5, closed=True)


def mixed_launch(
    *, gold_ms: float = 5, bulk_ms: float = 50, failed: int = 0, seed: int | None = None, seconds: int = 3
) -> Launch:
    """Requests of gold, of which the first ones fail, and of bulk; with a seed, times scatter by 2 %."""
    asked, calls = 100 * seconds, round(1000 * seconds / bulk_ms)
    due = np.concatenate([START_NS + np.arange(asked) * 10 * MS, START_NS + np.arange(calls) * round(bulk_ms * MS)])
    took = np.concatenate([np.full(asked, gold_ms * MS), np.full(calls, bulk_ms * MS)])
    if seed is not None:
        took = took * np.exp(np.random.default_rng(seed).normal(0, 0.02, took.size))
    request = np.concatenate([np.arange(asked) % 2, 2 + np.arange(calls) % 3])
    outcome = np.where(np.arange(asked + calls) < failed, 500, 200)
    rows = samples(due, took.astype(np.int64), request=request, outcome=outcome)
    found = launch(rows, seconds=seconds, used=usage(seconds=float(seconds)), open_loop=True)
    assert found.window.end_ns - found.window.start_ns == seconds * S
    return replace(found, classes=(GOLD, BULK), request_bytes=np.array([100, 100, 900, 900, 900]))
