"""A latency objective reads what it prints, to the nanosecond."""

import pytest
from hypothesis import given
from support.each_row import each_row
from support.result_strategies import OBJECTIVES
from support.synthetic import PROPERTY

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.objective import Bound, Objective, Promise, parse_objective, parse_promise


@each_row(
    ("objective", "text"),
    (Objective.of(95.0, 50_000_000), "p95<50.0ms"),
    (Objective.of(50.0, 5_000_000), "rtm<5.00ms"),
    (Objective.of(99.9, 1_234_567_890), "p99.9<1234.56789ms"),
    (Objective.of(99.0, 1_001), "p99<0.001001ms"),
)
def test_an_objective_prints_three_digits_or_as_many_as_it_has(objective: Objective, text: str) -> None:
    assert str(objective) == text


@PROPERTY
@given(OBJECTIVES)
def test_an_objective_survives_its_text(objective: Objective) -> None:
    assert parse_objective(str(objective)) == objective


def test_several_bounds_are_one_objective() -> None:
    found = parse_objective("ttft:p95<300ms, tpot : p99 < 40ms,itl:p50<1s,p95<2s")
    assert found.bounds == (
        Bound(95, 300_000_000, "ttft"),
        Bound(99, 40_000_000, "tpot"),
        Bound(50, 1_000_000_000, "itl"),
        Bound(95, 2_000_000_000),
    )
    assert str(found) == "ttft:p95<300ms,tpot:p99<40.0ms,itl:p50<1.00s,p95<2.00s"
    assert found.longest_ns == 2_000_000_000
    assert found.is_of_streams
    assert not Objective.of(95, 1).is_of_streams


def test_a_promise_is_what_each_request_keeps() -> None:
    found = parse_promise("ttft<300ms, tpot<40ms")
    assert found == Promise((Bound(None, 300_000_000, "ttft"), Bound(None, 40_000_000, "tpot")))
    assert parse_promise(str(found)) == found
    assert found.bounds[0].allowed == 0
    assert not parse_promise("latency<1s").is_of_streams


@each_row(
    ("text", "said"),
    ("ttft<300ms", "expected the percentile of ttft; write ttft:p95<..."),
    ("ttfb:p95<300ms", "did you mean ttft?"),
    ("ttft:p95<300ms,ttft:p95<400ms", "expected ttft:p95 once"),
    ("ttft:p100<300ms", "expected a percentile of at least 1 and less than 100"),
    ("p95<50ms,", "expected a percentile"),
    (
        "p0.95<50ms",
        "slo is 'p0.95<50ms', expected a percentile of at least 1 and less than 100, and a time; "
        'write "p95<50ms" or "rtm<20ms", or for streams "ttft:p95<300ms"',
    ),
    *((text, "write ") for text in ("", "50ms", "p95", "p95>50ms", "p0<1s", "p95<50", "p95<fast", 95, None)),
)
def test_a_wrong_objective_is_refused_with_what_to_write(text: object, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_objective(text)
    assert said in str(caught.value)


@each_row(
    ("text", "said"),
    ("ttft:p95<300ms", "without a percentile: goodput counts the requests that keep it; write ttft<..."),
    ("", "expected what each request keeps"),
    (None, "expected what each request keeps"),
    ("latency<x", "latency<x"),
)
def test_a_wrong_promise_is_refused_with_what_to_write(text: object, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_promise(text)
    assert said in str(caught.value)
