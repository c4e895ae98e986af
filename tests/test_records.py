"""Records: values that travel keep what they carry, through JSON and between processes, and say what differs."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace

import execnet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import ENVIRONMENT, LAYERS, PROPERTY, SETUP, judgement, result

from pytest_mlpatterns.insight import LayerStats
from pytest_mlpatterns.records import (
    Capacity,
    Environment,
    Estimate,
    Judgement,
    LaunchValue,
    Outcome,
    Setup,
    Step,
    TestResult,
    Window,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(min_size=1, max_size=12)
ESTIMATES = st.builds(Estimate, FINITE, FINITE, FINITE)
STEPS = st.builds(
    Step,
    concurrency=st.integers(1, 4096),
    rates_rps=st.lists(FINITE, max_size=3).map(tuple),
    median_ns=st.none() | FINITE,
    error_ratio=FINITE,
    limited=st.none() | NAMES,
)
CAPACITIES = st.builds(
    Capacity,
    nmrt=st.builds(LaunchValue, FINITE, FINITE),
    concurrency=st.integers(1, 4096),
    ladder=st.lists(STEPS, max_size=3).map(tuple),
    stopped=NAMES,
    at_least=st.booleans(),
    objective=st.none() | NAMES,
)
COUNTS = st.integers(0, 2**62)
ANY_LAYER = st.builds(
    LayerStats,
    place=st.integers(0, 63),
    layer=NAMES,
    counters=st.dictionaries(NAMES, COUNTS, max_size=3),
    spreads=st.dictionaries(NAMES, st.dictionaries(COUNTS, COUNTS, max_size=3), max_size=2),
    courses=st.dictionaries(NAMES, st.lists(st.tuples(COUNTS, COUNTS), max_size=3).map(tuple), max_size=2),
)
RESULTS = st.builds(
    TestResult,
    test=NAMES,
    passed=st.booleans(),
    setup=st.builds(Setup, NAMES, NAMES, NAMES, NAMES),
    metrics=st.dictionaries(NAMES, st.tuples(FINITE, FINITE, FINITE), max_size=3),
    launches=st.dictionaries(NAMES, st.lists(st.tuples(FINITE, FINITE), max_size=3).map(tuple), max_size=3),
    judgements=st.lists(
        st.builds(
            Judgement,
            NAMES,
            st.sampled_from(["limit", "baseline"]),
            st.sampled_from(Outcome),
            NAMES,
            st.none() | ESTIMATES,
        ),
        max_size=3,
    ).map(tuple),
    requests=st.integers(0, 10**9),
    failed_requests=st.dictionaries(st.integers(-4, 599).map(str), st.integers(0, 10**9), max_size=3),
    blocks=st.integers(0, 1000),
    launch_count=st.integers(0, 100),
    seconds_spent=FINITE,
    baseline_note=st.text(max_size=12),
    notes=st.lists(NAMES, max_size=3).map(tuple),
    load_over_time=st.lists(st.tuples(FINITE, FINITE, FINITE), max_size=3).map(tuple),
    capacities=st.lists(CAPACITIES, max_size=2).map(tuple),
    layers=st.lists(ANY_LAYER, max_size=2).map(tuple),
    generator=st.dictionaries(NAMES, st.none() | st.booleans() | FINITE, max_size=3),
    interrupted=st.booleans(),
)


@PROPERTY
@given(RESULTS)
def test_a_result_survives_a_trip_through_json(original: TestResult) -> None:
    assert TestResult.from_json(json.loads(json.dumps(original.to_json()))) == original


@PROPERTY
@given(RESULTS)
def test_a_result_survives_a_trip_between_processes(original: TestResult) -> None:
    """As pytest-xdist sends it: execnet takes plain values only."""
    assert TestResult.from_json(execnet.loads(execnet.dumps(original.to_json()))) == original


def test_a_result_comes_back_with_the_types_that_it_had() -> None:
    original = result(judgements=(judgement(Outcome.FAIL, change=(0.3, 0.2, 0.4)),), layers=LAYERS)
    back = TestResult.from_json(json.loads(json.dumps(original.to_json())))
    assert isinstance(back.setup, Setup)
    assert isinstance(back.judgements[0], Judgement)
    assert back.judgements[0].outcome is Outcome.FAIL
    assert back.judgements[0].change == Estimate(0.3, 0.2, 0.4)
    assert back.layers == LAYERS
    assert all(isinstance(values, tuple) for values in (*back.metrics.values(), *back.launches.values()))


def test_a_result_of_another_shape_is_not_taken_for_one() -> None:
    with pytest.raises(TypeError, match="surprise"):
        TestResult.from_json({**result().to_json(), "surprise": 1})


def test_the_json_of_a_result_has_all_its_fields() -> None:
    assert set(result().to_json()) == {field.name for field in fields(TestResult)}


def test_pytest_does_not_collect_a_result_as_a_test() -> None:
    assert TestResult.__test__ is False


def test_records_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SETUP.pattern = "single"  # type: ignore[misc]


def test_equal_set_ups_have_no_differences() -> None:
    assert SETUP.differences(replace(SETUP)) == ()


@pytest.mark.parametrize("name", ["pattern", "load", "wire", "payload"])
def test_a_set_up_names_what_differs_from_the_other_to_this(name: str) -> None:
    other = replace(SETUP, **{name: "before"})
    assert SETUP.differences(other) == (f"{name}: before → {getattr(SETUP, name)}",)


def test_a_set_up_names_every_difference_in_the_order_of_its_fields() -> None:
    other = Setup("single", "closed(16)", "grpc", "sha256:0")
    assert [text.partition(":")[0] for text in SETUP.differences(other)] == ["pattern", "load", "wire", "payload"]


def test_a_machine_is_identified_by_what_stays_the_same() -> None:
    assert ENVIRONMENT.machine == "Test Processor 3000, 2 cores, x86_64, Python 3.11"
    newer = replace(ENVIRONMENT, versions={"numpy": "3.0.0"})
    assert newer.machine == ENVIRONMENT.machine
    assert Environment("Other", 2, "x86_64", "3.11").machine != ENVIRONMENT.machine


def test_a_window_knows_its_length() -> None:
    assert Window(100, 350).duration_ns == 250


def test_an_outcome_is_its_own_text() -> None:
    assert [str(outcome) for outcome in Outcome] == ["pass", "fail", "inconclusive"]


@pytest.mark.parametrize(("rates", "rate"), [((100.0, 400.0, 110.0), 110.0), ((100.0, 120.0), 110.0), ((), 0.0)])
def test_a_step_of_a_capacity_search_is_worth_the_median_of_its_windows(rates: tuple[float, ...], rate: float) -> None:
    assert Step(4, rates, 10.0, 0.0, None).rate_rps == rate
