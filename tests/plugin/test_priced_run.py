"""With a price, a run shows what a million requests cost: in its summary, its files, a limit and a ranking."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from support.project import Project, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.processes

PRICE = "0.0425 USD per core-hour, 0.0057 USD per GiB-hour"
SHORT = 'pytest.mark.perf(duration="300ms", warmup="100ms", concurrency=2, launches=2, pattern=["single", "cached"])'
TESTS = """
def test_cost(perf):
    perf.assert_cost_below("1000000 USD")
    with pytest.raises(pytest_mlpatterns.SettingError, match="expected an amount in USD"):
        perf.assert_cost_below("1 EUR")
    assert perf.metrics.price.currency == "USD"
    assert perf.metrics.cost_per_million_requests.value > 0

def test_too_dear(perf):
    perf.assert_cost_below("0.0000000001 USD")
"""


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Run:
    project = Project().with_tests(f"import pytest_mlpatterns\n{TESTS}", marker=SHORT).with_ini(perf_price=PRICE)
    options = ("--perf-json=results.json", "--perf-rank=cost=1,cost<1000", "--perf-html=r.html")
    return project.run(tmp_path_factory.mktemp("priced"), *options)


def cost_by_hand(metrics: Mapping[str, tuple[float, float]]) -> float:
    """What a million answers of one launch cost, from the values of the result file."""
    cpu_ns, memory_bytes, rps = (metrics[name][0] for name in ("cpu_per_request", "peak_memory", "throughput"))
    return 1e6 * (0.0425 * cpu_ns / 3.6e12 + 0.0057 * memory_bytes / 2**30 / (rps * 3600))


def results_of(run: Run) -> list[Any]:
    return list(run.json("results.json")["results"])


def test_a_limit_on_the_cost_passes_and_fails(priced: Run) -> None:
    assert priced.outcomes == {"passed": 2, "failed": 2}
    assert re.search(r"cost per million \S+ USD \(\S+ USD to \S+ USD\) is not below 0\.000000000100 USD", priced.out)


def test_the_cost_recomputed_from_the_result_file_agrees_to_the_last_digit(priced: Run) -> None:
    for result in results_of(priced):
        assert result["price"] == PRICE
        names = ("cpu_per_request", "peak_memory", "throughput", "cost")
        launches = [
            dict(zip(names, values, strict=True)) for values in zip(*map(result["launches"].get, names), strict=True)
        ]
        by_hand = [cost_by_hand(launch) for launch in launches]
        assert by_hand == pytest.approx([launch["cost"][0] for launch in launches], rel=1e-9)
        mean = math.prod(by_hand) ** (1 / len(by_hand))
        assert f"{mean:.12g}" == f"{result['metrics']['cost'][0]:.12g}"


def test_the_cost_is_in_the_summary_the_page_and_the_ranking(priced: Run) -> None:
    assert "cost/million" in priced.out
    assert re.search(r"\d USD ", priced.out)
    assert "cost per million × 1.00" in priced.out
    assert re.search(r">[\d.]+ USD to [\d.]+ USD<", (priced.directory / "r.html").read_text(encoding="utf-8"))
