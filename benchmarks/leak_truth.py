"""Is a leak of 1 KiB a request found live, and nothing else called one? Whole pytest runs of ``perf.assert_no_leak``.

The models take a millisecond. One keeps 1 KiB of every request, and must fail within its 10 s. Four others must not:
one holds nothing, one makes numpy arrays of changing sizes, one has a cache of its own that is full after 1,000
requests, and one makes cycles that wait for the garbage collector.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from textwrap import dedent
from typing import TYPE_CHECKING

from bench import Claim, Table
from plugin_runs import run_pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CLAIM = "0 of 40 runs of models that do not leak fail, and at least 19 of 20 that leak 1 KiB a request do"
CLEAN_RUNS, LEAK_RUNS = 10, 20
CLEAN = ("nothing", "arrays", "full_cache", "cycles")
"""Environment variables of the caller that the runs do without."""
MODELS = """
    import time
    from collections import OrderedDict

    import numpy as np

    KEPT, CACHE, RANDOM = [], OrderedDict(), np.random.default_rng(0)


    def spin(batch):
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
        return batch


    def nothing(batch):
        return spin(batch)


    def leak(batch):
        KEPT.append(bytearray(b"x" * 1024))
        return spin(batch)


    def arrays(batch):
        RANDOM.random(int(RANDOM.integers(1000, 400_000)))
        return spin(batch)


    def full_cache(batch):
        CACHE[time.perf_counter_ns()] = bytearray(b"x" * 4096)
        if len(CACHE) > 1000:
            CACHE.popitem(last=False)
        return spin(batch)


    def cycles(batch):
        for _ in range(20):
            cycle = [bytearray(1000)]
            cycle.append(cycle)
        return spin(batch)
"""
TESTS = f"""
    import models
    import pytest

    RUNS = {{"leak": {LEAK_RUNS}, **dict.fromkeys({CLEAN!r}, {CLEAN_RUNS})}}
    ALL = [
        pytest.param(run, marks=pytest.mark.perf(model=getattr(models, name)), id=f"{{name}}-{{run}}")
        for name, runs in RUNS.items()
        for run in range(runs)
    ]


    @pytest.mark.perf(payload=[[1.0, 2.0]], concurrency=2)
    @pytest.mark.parametrize("run", ALL)
    def test_model(perf, run):
        perf.assert_no_leak("100 B")
"""


def outcomes() -> dict[str, list[tuple[str, float, str]]]:
    """Outcome, seconds and reason of the verdict on memory, by model."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "models.py").write_text(dedent(MODELS), encoding="utf-8")
        (place / "test_models.py").write_text(dedent(TESTS), encoding="utf-8")
        results = run_pytest(place, "--perf-baseline=off", "-pno:cacheprovider").results
    found: dict[str, list[tuple[str, float, str]]] = {}
    for result in results:
        name = result["test"].partition("[")[2].partition("-")[0]
        for verdict in result["verdicts"]:
            if verdict["metric"] == "memory_growth":
                found.setdefault(name, []).append((verdict["outcome"], result["seconds_spent"], verdict["reason"]))
    return found


def measure() -> Iterator[Table]:
    found = outcomes()
    counts = {name: Counter(outcome for outcome, _, _ in runs) for name, runs in found.items()}
    yield Table(
        "verdicts on memory at a limit of 100 B a request",
        ("model", "runs", "fail", "pass", "open", "median time", "the last verdict"),
        [
            (
                name.replace("_", " "),
                str(len(runs)),
                *(str(counts[name][outcome]) for outcome in ("fail", "pass", "inconclusive")),
                f"{median(seconds for _, seconds, _ in runs):.1f} s",
                runs[-1][2].partition(";")[0],
            )
            for name, runs in found.items()
        ],
        [
            Claim("leaks found", counts["leak"]["fail"] / LEAK_RUNS, at_least=0.95),
            Claim("others called a leak", sum(counts[name]["fail"] for name in CLEAN), at_most=0),
        ],
    )
