"""Results in the format of pytest-benchmark, for ``pytest-benchmark compare`` and benchmark trackers.

Each request is a round, and its latency in seconds is the duration of the round. ``ops`` is the number of rounds
divided by the sum of their durations, as in pytest-benchmark: the rate of a single caller. Throughput and everything
else that the format does not define is in ``extra_info``. Results → text.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.records.latency import Latency, interpolated
from pytest_mlpatterns.records.result import name_of

if TYPE_CHECKING:
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.reports.files.result_file import Results

__all__ = ["FORMAT_VERSION", "benchmark_json"]

FORMAT_VERSION = "5.0.0"
"""Version of pytest-benchmark whose format is written."""
_NS_PER_S = 1e9
"""Nanoseconds of a second, the unit of the format."""


def benchmark_json(results: Results) -> str:
    """The text of a pytest-benchmark file; tests without a successful request have no durations and are left out."""
    environment = results.environment
    data = {
        "machine_info": {
            "node": "",
            "processor": environment.processor,
            "machine": environment.architecture,
            "python_version": environment.python,
            "cpu": {"count": environment.cores, "brand_raw": environment.processor, "arch": environment.architecture},
        },
        "commit_info": {"id": results.commit or "unknown", "dirty": None, "branch": "unknown"},
        "benchmarks": [
            _benchmark(result, result.measured.latency) for result in results.results if result.measured.latency
        ],
        "datetime": results.date,
        "version": FORMAT_VERSION,
    }
    return json.dumps(data, indent=1) + "\n"


def _benchmark(result: TestResult, latency: Latency) -> dict[str, Any]:
    name = name_of(result.test)
    _, bracket, inside = name.partition("[")
    return {
        "group": result.definition.group if result.definition.group != result.test else None,
        "name": name,
        "fullname": result.test,
        "params": {"pattern": str(result.setup.pattern)} if bracket else None,
        "param": inside.removesuffix("]") if bracket else None,
        "extra_info": {
            "setup": result.setup.to_json(),
            "outcome": result.outcome.value,
            "metrics": {metric: value for metric, (value, _, _) in result.metrics.items()},
        },
        "options": {"timer": "perf_counter", "warmup": True},
        "stats": _stats(latency),
    }


def _stats(latency: Latency) -> dict[str, Any]:
    """The statistics of the durations; outliers are counted by the bins of the histogram."""
    rounds = sum(latency.histogram.counts)
    q1, median, q3 = (interpolated(latency.percentiles, percent) for percent in (25, 50, 75))
    least, most = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    usual = [ns for _, ns in latency.percentiles if least <= ns <= most] or [median]
    beyond_sd = _count_beyond(latency, latency.mean_ns - latency.sd_ns, latency.mean_ns + latency.sd_ns)
    beyond_iqr = _count_beyond(latency, least, most)
    times = {
        "min": latency.percentiles[0][1],
        "max": latency.percentiles[-1][1],
        "mean": latency.mean_ns,
        "stddev": latency.sd_ns,
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "ld15iqr": min(usual),
        "hd15iqr": max(usual),
        "total": latency.mean_ns * rounds,
    }
    return {
        **{name: ns / _NS_PER_S for name, ns in times.items()},
        "ops": _NS_PER_S / latency.mean_ns if latency.mean_ns else 0.0,
        "rounds": rounds,
        "iterations": 1,
        "stddev_outliers": beyond_sd,
        "iqr_outliers": beyond_iqr,
        "outliers": f"{beyond_sd};{beyond_iqr}",
    }


def _count_beyond(latency: Latency, low_ns: float, high_ns: float) -> int:
    """The number of requests in bins whose middle is outside the bounds."""
    middles = [(low + high) / 2 for low, high in pairwise(latency.histogram.edges_ns)]
    first, last = bisect_left(middles, low_ns), bisect_left(middles, high_ns)
    counts = latency.histogram.counts
    return sum(counts[:first]) + sum(counts[last:])
