"""Weights and requirements as people write them, and what they are told where they cannot be read."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.choice.criteria import Requirement, SelectionCriteria, parse_criteria
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.records.price import Price

SOURCE = "--perf-rank"


def parse(text: str) -> SelectionCriteria:
    return parse_criteria(text, SOURCE)


@each_row(
    ("text", "weights"),
    ("rtm=0.5,nmrt=0.3,asl=0.2", {"rtm": 0.5, "nmrt": 0.3, "asl": 0.2}),
    ("rtm=5,nmrt=3,asl=2", {"rtm": 0.5, "nmrt": 0.3, "asl": 0.2}),
    (" RTM = 75% , asl=25%,", {"rtm": 0.75, "asl": 0.25}),
    ("peak_memory=1", {"peak_memory": 1.0}),
    ("nmrt( P95 < 50 ms )=1, rtm=1", {"nmrt(p95<50.0ms)": 0.5, "rtm": 0.5}),
    ("rtm=1e308,asl=1e308", {"rtm": 0.5, "asl": 0.5}),
)
def test_weights_count_by_their_share_of_the_sum(text: str, weights: dict[str, float]) -> None:
    assert parse(text).weights == pytest.approx(weights)


@each_row(
    ("text", "requirement"),
    ("rtm<20ms", Requirement("rtm", 20_000_000, "rtm<20ms")),
    ("p95 <= 1.5 s", Requirement("p95", 1_500_000_000, "p95<=1.5 s")),
    ("error_rate<1%", Requirement("error_rate", 0.01, "error_rate<1%")),
    ("asl<0.8", Requirement("asl", 0.8, "asl<0.8")),
    ("peak_memory<512MiB", Requirement("peak_memory", 512 * 2**20, "peak_memory<512MiB")),
    ("cost<0.40 USD", Requirement("cost", 0.4, "cost<0.40 USD", "USD")),
    ("cost <= 2EUR", Requirement("cost", 2.0, "cost<=2EUR", "EUR")),
    ("NMRT>=400", Requirement("nmrt", 400, "nmrt>=400")),
    ("throughput>400", Requirement("throughput", 400, "throughput>400")),
    ("queue_depth<4", Requirement("queue_depth", 4, "queue_depth<4")),
    ("nmrt(rtm<5ms)>=10", Requirement("nmrt(rtm<5.00ms)", 10, "nmrt(rtm<5.00ms)>=10")),
)
def test_a_requirement_has_the_unit_of_its_metric(text: str, requirement: Requirement) -> None:
    assert parse(f"rtm=1,{text}").requirements == (requirement,)


def test_metrics_are_those_with_a_weight_and_then_those_with_a_limit() -> None:
    criteria = parse("goodput(latency<250ms)=1, asl=1, p95<50ms, asl<0.5")
    assert criteria.metrics == ("goodput(latency<250ms)", "asl", "p95", "asl")


@each_row(
    ("text", "searches"),
    ("rtm=1", ()),
    ("nmrt=1", (None,)),
    ("rtm=1,cost_at_nmrt<1 USD", (None,)),
    ("rtm=1,nmrt>=400", (None,)),
    ("asl_at_nmrt=1", (None,)),
    ("nmrt=1,asl_at_nmrt<50%", (None,)),
    ("sc=0.4,pc=0.6,hsx>=0.8", ()),
    ("nmrt=1,nmrt(p95<50ms)=1,nmrt>=3", (None, Objective.of(95.0, 50_000_000))),
)
def test_nmrt_has_to_be_searched_for_wherever_it_is_named(text: str, searches: tuple[Objective | None, ...]) -> None:
    assert parse(text).searches == searches


@each_row(
    ("text", "problem"),
    ("", "--perf-rank is '', expected at least one weight; write for example rtm=0.5,nmrt=0.3,asl=0.2,p95<50ms"),
    ("rtm<20ms", "--perf-rank is 'rtm<20ms', expected at least one weight"),
    ("rtm", "--perf-rank has 'rtm', expected a weight such as rtm=0.5 or a requirement such as rtm<20ms"),
    ("rtm==1", "--perf-rank has 'rtm==1', expected a weight"),
    ("rtm:1", "--perf-rank has 'rtm:1', expected a weight"),
    ("rtm 1 asl 2", "--perf-rank has 'rtm 1 asl 2', expected a weight"),
    ("rmt=1", "--perf-rank names the metric 'rmt', did you mean rtm? expected one of rtm, p90, p95, p99, throughput"),
    ("speed=1", "--perf-rank names the metric 'speed', expected one of rtm, p90"),
    ("p95(x)=1", "--perf-rank names the metric 'p95(x)', did you mean p95? expected one of"),
    ("nmrt(fast)=1", "--perf-rank has 'nmrt(fast)': slo is 'fast', expected a percentile of at least 1"),
    ("rtm=fast", "--perf-rank weighs rtm with 'fast', expected a number above 0, such as rtm=0.5"),
    ("rtm=", "--perf-rank weighs rtm with '', expected a number above 0, such as rtm=0.5"),
    ("rtm=0", "--perf-rank weighs rtm with '0', expected a number above 0"),
    ("rtm=-1", "--perf-rank weighs rtm with '-1', expected a number above 0"),
    ("rtm=nan", "--perf-rank weighs rtm with 'nan', expected a number above 0"),
    ("rtm=20ms", "such as rtm=0.5; a requirement is written rtm<20ms"),
    ("rtm=1,rtm=2", "--perf-rank weighs rtm twice, expected once; leave one out"),
    ("rtm=1,asl<1,asl<0.5", "--perf-rank limits asl twice, expected once; leave one out"),
    ("asl=1,rtm>20ms", "--perf-rank requires rtm>20ms, but lower is better for median latency; write rtm<20ms"),
    ("asl=1,nmrt<400", "--perf-rank requires nmrt<400, but higher is better for capacity (NMRT); write nmrt>=400"),
    ("asl=1,nmrt<", "write nmrt>=400"),
    ("asl=1,rtm<20", "--perf-rank: the limit of rtm is '20', expected a time with its unit"),
    ("asl=1,nmrt>=many", "--perf-rank: the limit of nmrt is 'many', expected a number that is not negative; write 400"),
    ("asl=1,cost<0.4", "the limit of cost is '0.4', expected an amount with its currency in letters; write for ex"),
    ("asl=1,cost>", "--perf-rank requires cost>, but lower is better for cost per million; write cost<0.40 USD"),
    ("cost=0.40 USD", "such as cost=0.5; a requirement is written cost<0.40 USD"),
    ("asl=1,error_rate<5", "--perf-rank: the limit of error_rate is '5', expected at most 1 (100 %)"),
)
def test_an_unreadable_criterion_is_refused_with_what_is_allowed(text: str, problem: str) -> None:
    with pytest.raises(SettingError) as raised:
        parse(text)
    assert problem in str(raised.value)


@PROPERTY
@given(st.dictionaries(st.sampled_from([*METRICS]), st.floats(1e-6, 1e6), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_only_the_proportion_of_the_weights_counts(weights: dict[str, float], scale: float) -> None:
    once = parse(",".join(f"{name}={weight!r}" for name, weight in weights.items()))
    scaled = parse(",".join(f"{name}={weight * scale!r}" for name, weight in weights.items()))
    assert once.weights == pytest.approx(scaled.weights)
    assert sum(once.weights.values()) == pytest.approx(1.0)


@PROPERTY
@given(st.text(alphabet="rtmnasl p95<>=,.0()%ms", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(SettingError):
        found = parse(text)
        assert sum(found.weights.values()) == pytest.approx(1.0)


def test_a_limit_of_a_cost_in_another_currency_than_the_price_is_refused() -> None:
    criteria = parse_criteria("rtm=1,p95<50ms,cost<0.40 USD", "ini key perf_rank")
    criteria.check_currency(None)
    criteria.check_currency(Price(0.04, 0.0, "USD"))
    message = (
        r"^ini key perf_rank requires cost<0.40 USD at a price of 0.04 EUR per core-hour, expected an amount in EUR"
    )
    with pytest.raises(SettingError, match=message):
        criteria.check_currency(Price(0.04, 0.0, "EUR"))
