"""NMRT through the plugin, on real services whose capacity cannot be exceeded on any machine."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from support.project import RECORD, Project

pytestmark = pytest.mark.processes

GIVEN = {"perf_cpus": "1"} if hasattr(os, "sched_setaffinity") else {}
PLACES = """
    import asyncio
    import pytest

    class TwoPlaces:
        def __init__(self):
            self.free = None

        async def __call__(self, batch):
            self.free = self.free or asyncio.Semaphore(2)
            async with self.free:
                await asyncio.sleep(0.02)  # two of these at a time: at most 100 requests a second, on any machine
            return batch

    QUICK = dict(duration="300ms", warmup="0s", launches=1, budget="60s")
    pytestmark = pytest.mark.perf(model=TwoPlaces, payload=[1, 2, 3], **QUICK)
"""


def project(body: str) -> Project:
    return Project().with_file("test_perf.py", dedent(PLACES) + dedent(body))


def check_costs(result: Mapping[str, Any]) -> None:
    """The cost at NMRT is that recomputed by hand from the result file, to the last digit."""
    (capacity,) = result["capacities"]
    assert ("cost_at_nmrt" in result["metrics"]) is not capacity["at_least"]
    if not capacity["at_least"]:
        rate, paid = capacity["nmrt"]["value"], capacity["cores"] * capacity["asl"]["value"]
        by_hand = 1e6 * (0.0425 * paid + 0.0057 * capacity["peak_rss_bytes"] / 2**30) / (rate * 3600)
        assert f"{result['metrics']['cost_at_nmrt'][0]:.12g}" == f"{by_hand:.12g}"


def test_the_capacity_is_found_with_its_ladder_and_takes_part_in_the_baseline(tmp_path: Path) -> None:
    tests = project(
        """
        @pytest.mark.perf(budget="60s")
        def test_it(perf):
            metrics = perf.measure_nmrt()
            (capacity,) = metrics.capacities
            assert 0 < metrics.nmrt_rps.value < 150  # a busy generator notes answers in bunches
            assert capacity.concurrency == metrics.nmrt_concurrency.value
            assert [step.concurrency for step in capacity.ladder[:3]] == [1, 2, 4]
        """
    ).with_ini(perf_price="0.0425 USD per core-hour, 0.0057 USD per GiB-hour", **GIVEN)
    run = tests.run(tmp_path, *RECORD, "--perf-json", "out.json")
    assert run.exit_code == 0, run.out
    (result,) = run.json("out.json")["results"]
    assert result["capacities"][0]["ladder"][0]["concurrency"] == 1
    check_costs(result)
    (entry,) = run.json("perf-baseline.json")["tests"]["test_perf.py::test_it"].values()
    assert len(entry["metrics"]["nmrt"]) == 1
    assert "NMRT" in run.section("performance")
    entry["metrics"]["nmrt"] = [[10_000, 0.001]]
    text = (tmp_path / "perf-baseline.json").read_text(encoding="utf-8")
    before, _, rest = text.partition('"nmrt": ')
    (tmp_path / "perf-baseline.json").write_text(
        f'{before}"nmrt": [[10000, 0.001]],\n{rest.partition(chr(10))[2]}', encoding="utf-8"
    )
    run = tests.run(tmp_path)
    assert run.exit_code == 1, run.out
    assert "capacity (NMRT) 10,000 req/s → " in run.failure("test_it")


def test_a_capacity_passes_as_soon_as_it_is_known_and_a_larger_one_fails(tmp_path: Path) -> None:
    run = project(
        """
        def test_enough(perf):
            perf.assert_nmrt_at_least(1)
            assert perf.metrics.capacities[-1].end == "decided"

        def test_too_much(perf):
            perf.assert_nmrt_at_least(10_000)

        @pytest.mark.perf(budget="4s")
        def test_too_much_under_an_objective(perf):
            perf.assert_nmrt_at_least(10_000, slo="p95<5s")

        @pytest.mark.perf(budget="4s")
        def test_impossible_objective(perf):
            perf.assert_nmrt_at_least(1, slo="p95<1ms")  # an answer takes 20 ms

        @pytest.mark.perf(budget="300ms")
        def test_out_of_budget(perf):
            perf.assert_nmrt_at_least(10_000)

        def test_no_objective(perf):
            perf.assert_nmrt_at_least(1, slo="fast")
        """
    ).run(tmp_path, "--perf-baseline", "off", "--perf-inconclusive", "fail")
    assert run.outcomes == {"passed": 1, "failed": 5}, run.out
    assert "capacity (NMRT) is at least" in run.failure("test_out_of_budget")
    assert "the time was up at concurrency 1" in run.failure("test_out_of_budget")
    assert "is not at least 10,000 req/s" in run.failure("test_too_much")
    assert "capacity (NMRT) with p95<5.00s" in run.failure("test_too_much_under_an_objective")
    late = "but not known: the load generator "  # on a busy machine
    assert re.search(f"is not at least 1.00 req/s|{late}", run.failure("test_impossible_objective"))
    assert "slo is 'fast', expected a percentile of at least 1 and less than 100, " in run.failure("test_no_objective")
