"""With a price, a run shows what a million requests cost: in its summary, its files, a limit and a ranking."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.project import Project, Run

from pytest_mlpatterns.cli import main

pytestmark = pytest.mark.processes

CONVERT = "convert one of the two"
PRICE = "0.0425 USD per core-hour, 0.0057 USD per GiB-hour"
GIVEN = 1 if hasattr(os, "sched_setaffinity") else None
SHORT = (
    'pytest.mark.perf(duration="300ms", warmup="100ms", concurrency=2, launches=2, pattern=["single", "cached"], '
    f"cpus={GIVEN or 'all'!r})"
)
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
    options = ("--perf-json=results.json", "--perf-rank=cost=1,cost<1000 USD", "--perf-html=r.html")
    return project.run(tmp_path_factory.mktemp("priced"), *options)


def cost_by_hand(metrics: Mapping[str, float]) -> float:
    """What a million answers of one launch cost, from the values of the result file."""
    memory = 0.0057 * metrics["peak_memory"] / 2**30 / (metrics["throughput"] * 3600)
    return 1e6 * (0.0425 * metrics["cpu_per_request"] / 3.6e12 + memory)


def test_a_limit_on_the_cost_passes_and_fails(priced: Run) -> None:
    assert priced.outcomes == {"passed": 2, "failed": 2}
    assert re.search(r"cost per million \S+ USD \(\S+ USD to \S+ USD\) is not below 0\.000000000100 USD", priced.out)


def test_the_cost_recomputed_from_the_result_file_agrees_to_the_last_digit(priced: Run) -> None:
    for result in list(priced.json("results.json")["results"]):
        assert result["price"] == PRICE
        launches = [
            {metric: values[number][0] for metric, values in result["launches"].items()}
            for number in range(result["launch_count"])
        ]
        by_hand = [cost_by_hand(launch) for launch in launches]
        assert by_hand == pytest.approx([launch["cost"] for launch in launches], rel=1e-9)
        mean = math.prod(by_hand) ** (1 / len(by_hand))
        assert f"{mean:.12g}" == f"{result['metrics']['cost'][0]:.12g}"


def test_the_cost_is_in_the_summary_the_page_and_the_ranking(priced: Run) -> None:
    assert "cost/million" in priced.out
    assert re.search(r"\d USD ", priced.out)
    assert "cost per million × 1.00" in priced.out
    assert re.search(r">[\d.]+ USD to [\d.]+ USD<", (priced.directory / "r.html").read_text(encoding="utf-8"))


def test_a_stored_run_is_not_ranked_in_another_currency(priced: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(priced.directory / "results.json"), "cost=1,cost<1 EUR"]) == 2
    said = capsys.readouterr().err
    assert said == f"ERROR: WEIGHTS requires cost<1 EUR at a price of {PRICE}, expected an amount in USD; {CONVERT}\n"


def test_a_limit_in_another_currency_than_the_price_ends_the_test_before_it_measures(tmp_path: Path) -> None:
    tests = "def test_cost(perf):\n    raise AssertionError('the body ran')\n"
    run = Project().with_tests(tests, marker='pytest.mark.perf(pattern=["single", "cached"])')
    told = run.run(tmp_path, f"--perf-price={PRICE}", "--perf-rank=cost=1,cost<1 EUR")
    assert told.outcomes == {"failed": 2}
    assert f"--perf-rank requires cost<1 EUR at a price of {PRICE}, expected an amount in USD; {CONVERT}" in told.out
