"""Measure what the README says about speed, beside public tools: ``python benchmarks/run.py [NAME ...]``.

Prints the machine, then the tables of each benchmark, then all claims. A claim that is not met is said; it is no error,
since a busy machine can miss any ratio.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING

import bench

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = (
    "plugin_overhead",
    "generator_cost",
    "generator_parts",
    "serving_cost",
    "wire_cost",
    "pattern_cost",
    "layer_cost",
    "ray_cost",
    "location_simulation",
    "slot_simulation",
    "paired_simulation",
    "slice_simulation",
    "baseline_simulation",
    "verdict_simulation",
    "limit_simulation",
    "worlds",
    "verdict_error_rates",
    "suite_time",
    "xdist_isolation",
    "truth",
    "split_truth",
    "nmrt_accuracy",
    "cpu_limit",
    "overload_truth",
    "counter_simulation",
    "launch_kinds_simulation",
    "objective_simulation",
    "scaling_simulation",
    "scale_simulation",
    "scaling_truth",
    "leak_simulation",
    "leak_truth",
    "change_points",
    "causes",
    "million_samples",
    "streaming_accuracy",
    "streaming_cost",
    "streaming_clients",
    "streaming_errors",
    "slow_services",
    "perf_analyzer",
)


def main(names: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in NAMES]:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    print(bench.machine(), flush=True)
    claims = []
    for name in names or NAMES:
        module = importlib.import_module(name)
        started = time.monotonic()
        print(f"\n=== {name}: {module.CLAIM}\n", flush=True)
        for table in module.measure():
            claims += table.claims
            print(f"{table}\n", flush=True)
        print(f"{time.monotonic() - started:.0f} s", flush=True)
    print("\n" + "\n".join(map(str, claims)))


if __name__ == "__main__":
    main(sys.argv[1:])
