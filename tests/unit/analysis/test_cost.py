"""What a million requests cost follows from the price, the CPU time, the memory and the rate."""

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, capacity, even_launch, make_setup, result, usage

from pytest_mlpatterns.analysis.choice.criteria import parse_criteria
from pytest_mlpatterns.analysis.choice.ranking import rank
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, priced_metric
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.records.launch import Capacity, Launch, LaunchValue
from pytest_mlpatterns.records.price import Price, parse_price

GIB = 2**30
PRICE = Price(0.0425, 0.0057, "USD")


def busy_launch(cores: float = 0.5, gib: float = 2.0, rate_rps: float = 200.0) -> Launch:
    return even_launch(rate_rps, used=usage(busy_cores=cores, rss_bytes=(int(gib * GIB),)))


def cost(*launches: Launch, price: Price = PRICE) -> float:
    found = Metrics(launches, price=price).cost_per_million_requests
    assert found.low < found.value < found.high
    return found.value


@each_row(
    ("price", "expected"),
    ("1 USD per core-hour", 1e6 * 0.5 / 200 / 3600),
    ("1 USD per GiB-hour", 1e6 * 2 / 200 / 3600),
    ("0.0425 USD per core-hour, 0.0057 USD per GiB-hour", 1e6 * (0.0425 * 0.5 + 0.0057 * 2) / 200 / 3600),
)
def test_the_cost_pays_for_the_cores_and_the_memory_that_were_used(price: str, expected: float) -> None:
    assert cost(busy_launch(), price=parse_price(price)) == pytest.approx(expected, rel=0.01)


def test_the_cost_at_nmrt_is_that_of_the_load_the_memory_and_the_rate_of_the_search() -> None:
    search = replace(capacity(400.0), peak_rss_bytes=2 * GIB)  # 0.4 of two cores
    metrics = Metrics((busy_launch(),), (search,), PRICE)
    used = metrics.cost_per_million_requests_at_nmrt
    assert used.value == pytest.approx(1e6 * (0.0425 * 0.4 * 2 + 0.0057 * 2) / 400 / 3600, rel=1e-12)
    assert used.low < used.value < used.high
    assert 0.01 < metrics.launch_values(METRICS["cost_at_nmrt"])[0].relative_error < 0.0224


@each_row(
    ("search", "price"),
    (capacity(), None),
    (capacity(at_least=True), PRICE),
    (capacity(objective="p95<50ms"), PRICE),
    (replace(capacity(), nmrt=LaunchValue(0.0, 0.0)), PRICE),
    (replace(capacity(), peak_rss_bytes=None), PRICE),
    (replace(capacity(), cores=None), PRICE),
    (replace(capacity(), asl=None), PRICE),
)
def test_without_a_part_of_it_there_is_no_cost_at_nmrt(search: Capacity, price: Price | None) -> None:
    metrics = Metrics((busy_launch(),), (search,), price)
    assert metrics.cost_per_million_requests_at_nmrt is None


def test_without_a_price_or_without_the_processes_there_is_no_cost() -> None:
    assert Metrics((busy_launch(),)).cost_per_million_requests is None
    assert Metrics((even_launch(),), price=PRICE).cost_per_million_requests is None


def test_a_cost_prints_with_the_currency_of_its_price() -> None:
    assert priced_metric("cost", PRICE).show(0.41234) == "0.412 USD"
    assert priced_metric("cost", None).show(0.41234) == "0.412"
    assert priced_metric("rtm", PRICE).show(4 * MS) == "4.00 ms"


def test_patterns_are_ranked_by_cost_and_a_note_names_different_prices() -> None:
    figures = {"cheap": (0.2, 0.19, 0.21), "dear": (0.5, 0.48, 0.52)}
    results = [
        result(
            f"test_perf.py::test_shop[{name}]",
            group="test_perf.py::test_shop",
            setup=make_setup(pattern=name),
            metrics={"cost": found},
            launches={"cost": ((found[0], 0.01),) * 3},
            price=price,
        )
        for (name, found), price in zip(figures.items(), (PRICE, Price(0.05, 0.0, "USD")), strict=True)
    ]
    (ranking,) = rank(results, parse_criteria("cost=1, cost<0.40 USD", "--perf-rank"))
    assert ranking.sentence == "cheap first; dear excluded"
    assert "cost per million 0.500 USD" in (ranking.rows[1].excluded or "")
    assert any("the costs are of different prices (0.0425 USD per core-hour" in note for note in ranking.notes)


@each_row(
    ("metric", "price", "why"),
    ("cost", None, "the test has no price; set perf_price"),
    ("cost_at_nmrt", PRICE, "the test does not search for NMRT; call perf.measure_nmrt() in it"),
)
def test_a_required_cost_that_is_not_known_says_what_is_missing(metric: str, price: Price | None, why: str) -> None:
    results = [
        result(f"t.py::test[{one}]", group="t.py::test", setup=make_setup(pattern=one), price=price, capacities=())
        for one in ("single", "cached")
    ]
    (ranking,) = rank(results, parse_criteria(f"rtm=1, {metric}<0.40 USD", "--perf-rank"))
    assert f"({why}) is not known, and {metric}<0.40 USD is required" in (ranking.rows[0].excluded or "")
