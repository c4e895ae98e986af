"""The result file of ``--perf-json``: every result of a run, versioned. Takes results, returns text.

Format, version 1 (2026): ``{"format": "pytest-mlpatterns-results", "version": 1, "environment": …, "date": …,
"baseline": …, "results": [...]}``, where a result is :class:`pytest_mlpatterns.records.TestResult`; metrics are
``[value, low, high]`` in nanoseconds, requests per second, bytes or shares. ``baseline`` says what the run did with the
baseline file: its ``mode``, the tests that were ``recorded``, those of them ``recorded_although_worse`` with the
verdict, the entries ``without_test``, and those that were ``pruned``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records import Environment, TestResult

__all__ = ["FORMAT", "VERSION", "results_json"]

FORMAT = "pytest-mlpatterns-results"
VERSION = 1


def results_json(
    results: Sequence[TestResult], environment: Environment, date: str, baseline: Mapping[str, object]
) -> str:
    """The file's text.

    Args:
        results: in the order in which the tests ran.
        environment: in which they ran.
        date: ISO 8601.
        baseline: what the run did with the baseline file, as plain values.
    """
    data = {
        "format": FORMAT,
        "version": VERSION,
        "date": date,
        "environment": {**asdict(environment), "machine": environment.machine},
        "baseline": dict(baseline),
        "results": [result.to_json() for result in results],
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
