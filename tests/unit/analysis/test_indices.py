"""The scalability indices from declared passes: the formulas by hand, their bounds, and what is missing for them."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from support.synthetic import PROPERTY, S, capacity, even_launch, usage

from pytest_mlpatterns.analysis.capacity.scaling import NOT_MEASURED, Scaling, ScalingStep, scaling_indices, why_unknown
from pytest_mlpatterns.analysis.metrics.definitions import SCALING_INDICES
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.metrics.pattern_metrics import ScalingIndices
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.reports.text.notes import describe_indices

PRICE = Price(1.0, 0.0, "USD")
CONCURRENCY = 4


class Windows:
    """The metrics of the windows at NMRT, as declared."""

    price = PRICE

    def __init__(self, **values: Sequence[float]) -> None:
        self._values = values

    def launch_values(self, metric: Metric) -> tuple[LaunchValue, ...]:
        return tuple(LaunchValue(value, 0.01) for value in self._values.get(metric.name, ()))


def step(replicas: int, rates: Sequence[float], costs: Sequence[float], loads: Sequence[float] = ()) -> ScalingStep:
    metrics: Any = Windows(cost=costs, asl=loads or [0.5] * len(costs))
    return ScalingStep(replicas, tuple(map(capacity, rates)), metrics)


def doubling(efficiency: float = 0.95, dearer: float = 1.1, seconds: float = 2.0, load: float = 0.5) -> ScalingIndices:
    """Two passes that agree."""
    one, two = (step(1, (100.0,) * 2, (1.0,) * 2, (load,) * 2), step(2, (200 * efficiency,) * 2, (dearer,) * 2))
    return scaling_indices((one, two), [seconds * S] * 2)


def value(indices: ScalingIndices, name: str) -> float:
    found = getattr(indices, name)
    assert found.low <= found.value <= found.high
    return float(found.value)


class TestFormulas:
    def test_each_index_by_hand(self) -> None:
        found = doubling(efficiency=0.95, dearer=1.25, seconds=2.5, load=0.3)
        assert value(found, "hsxt") == pytest.approx(1 / 1.25)
        assert value(found, "hsxe") == pytest.approx(0.95)
        assert value(found, "hsxc") == pytest.approx(0.8)
        assert value(found, "hsx") == pytest.approx((0.8 * 0.95 * 0.8) ** (1 / 3))
        assert value(found, "sc") == pytest.approx(CONCURRENCY * (0.8 * 0.95 * 0.8) ** (1 / 3) * 0.3)
        assert found.missing == {}

    def test_each_pass_is_compared_with_itself(self) -> None:
        """A machine that is half as fast in the second pass changes no index."""
        one, two = step(1, (100, 50), (1, 2)), step(2, (160, 80), (1.25, 2.5))
        found = scaling_indices((one, two), [S, S])
        assert [one.value for one in found.values["hsxe"]] == pytest.approx([0.8, 0.8])
        assert [one.value for one in found.values["hsxc"]] == pytest.approx([0.8, 0.8])

    def test_real_windows_give_cost_and_load(self) -> None:
        windows = {1: (100.0, 0.5), 2: (190.0, 1.1)}
        steps = [
            ScalingStep.of(n, (capacity(rate),), (even_launch(rate, used=usage(busy, cores=4)),), price=PRICE)
            for n, (rate, busy) in windows.items()
        ]
        found = scaling_indices(steps, [2 * S])
        assert value(found, "hsxc") == pytest.approx((0.5 / 100) / (1.1 / 190), rel=0.01)
        assert value(found, "sc") == pytest.approx(CONCURRENCY * value(found, "hsx") * 0.5 / 4, rel=0.01)

    def test_the_smallest_number_of_replicas_whose_double_was_measured_counts(self) -> None:
        steps = (step(1, (1,), (1,)), step(3, (300,), (1,)), step(4, (350,), (1,)), step(6, (540,), (1,)))
        assert value(scaling_indices(steps, [S]), "hsxe") == pytest.approx(0.9)

    def test_one_scale_out_time_serves_every_pass_without_a_smaller_error(self) -> None:
        one, two = step(1, (100,) * 4, (1,) * 4), step(2, (190,) * 4, (1,) * 4)
        of_one, of_four = (scaling_indices((one, two), [5 * S] * times).hsx for times in (1, 4))
        assert of_one.value == pytest.approx(of_four.value)
        assert of_one.high - of_one.low > of_four.high - of_four.low


class TestBounds:
    @PROPERTY
    @given(st.lists(st.tuples(*[st.floats(0.3, 3)] * 2, st.floats(0, 1e5), st.floats(0.01, 1)), min_size=1, max_size=4))
    def test_hsx_and_its_parts_lie_between_0_and_1(self, passes: list[tuple[float, float, float, float]]) -> None:
        efficiencies, dearer, seconds, loads = zip(*passes, strict=True)
        one = step(1, [100.0] * len(passes), [1.0] * len(passes), loads)
        two = step(2, [200 * share for share in efficiencies], dearer)
        found = scaling_indices((one, two), [one * S for one in seconds])
        parts = [value(found, name) for name in ("hsxt", "hsxe", "hsxc")]
        for name in ("hsx", "hsxt", "hsxe", "hsxc"):
            known = getattr(found, name)
            assert 0 < known.low <= known.value <= known.high <= 1
        assert value(found, "hsx") == pytest.approx(math.prod(parts) ** (1 / 3))
        assert min(parts) - 1e-9 <= value(found, "hsx") <= max(parts) + 1e-9
        assert 0 < value(found, "sc") <= CONCURRENCY * max(loads) * (1 + 1e-9)

    @PROPERTY
    @given(st.floats(0.1, 0.9), st.floats(1.1, 3), st.floats(0.1, 100), st.floats(1.01, 1.1))
    def test_more_efficient_cheaper_and_faster_is_better(
        self, share: float, dearer: float, seconds: float, factor: float
    ) -> None:
        before = doubling(share, dearer, seconds)
        better = (
            ("hsxe", doubling(share * factor, dearer, seconds)),
            ("hsxc", doubling(share, dearer / factor, seconds)),
            ("hsxt", doubling(share, dearer, seconds / factor)),
        )
        for name, after in better:
            for index in (name, "hsx", "sc"):
                assert value(after, index) > value(before, index)
        assert value(doubling(share, dearer, seconds, load=0.6), "sc") > value(before, "sc")

    def test_a_gain_beyond_linear_is_no_more_than_1_and_makes_up_for_nothing(self) -> None:
        found = doubling(efficiency=1.3, dearer=0.7, seconds=10)
        assert [value(found, name) for name in ("hsxt", "hsxe", "hsxc")] == pytest.approx([0.5, 1, 1])
        assert value(found, "hsx") == pytest.approx(0.5 ** (1 / 3))

    def test_an_efficiency_below_1_is_not_reduced_by_passes_above_it(self) -> None:
        found = scaling_indices((step(1, (100, 100), (1, 1)), step(2, (196, 202), (1, 1))), [S, S])
        assert value(found, "hsxe") == pytest.approx(math.sqrt(0.98 * 1.01))


class TestIntervals:
    def test_passes_that_differ_make_it_wider(self) -> None:
        alike, apart = (
            scaling_indices((step(1, (100, 100), (1, 1)), step(2, rates, (1.2, 1.2))), [S, S]).sc
            for rates in ((150.0, 150.0), (120.0, 187.5))
        )
        assert apart.value == pytest.approx(alike.value)
        assert apart.high / apart.low > 1.2 * alike.high / alike.low

    def test_the_error_of_a_start_weighs_less_the_shorter_it_is(self) -> None:
        widths = [found.high - found.low for found in (doubling(seconds=s).hsxt for s in (0.1, 1.0, 10.0)) if found]
        assert widths == sorted(widths)
        assert widths[0] < 0.01

    def test_the_intervals_hold_the_truth_as_often_as_they_promise(self) -> None:
        draw = random.Random(1)

        def noisy(true: float) -> list[float]:
            return [true * draw.lognormvariate(0, LAUNCH_SD) for _ in range(2)]

        def indices() -> ScalingIndices:
            one = step(1, noisy(100), noisy(1.0), noisy(0.5))
            return scaling_indices((one, step(2, noisy(160), noisy(1.25))), [2.0 * S] * 2)

        truth = {"hsxe": 0.8, "hsxc": 0.8, "hsx": (0.8 * 0.8 / 1.2) ** (1 / 3)}
        truth["sc"] = 2.0 * truth["hsx"]
        runs = [indices() for _ in range(300)]
        for name, true in truth.items():
            held = sum(found.low <= true <= found.high for found in (getattr(run, name) for run in runs))
            assert held >= 0.92 * len(runs), name


class TestMissing:
    def test_without_a_double_the_call_that_measures_it_is_named(self) -> None:
        found = scaling_indices((step(1, (100,), (1,)), step(3, (300,), (1,))), [S])
        assert found.hsxt is not None
        assert found.hsxe is found.hsxc is found.hsx is found.sc is None
        assert found.missing["sc"] == (
            "no number of replicas was measured with its double (1 and 3); write measure_scaling(replicas=(1, 2))"
        )

    def test_without_a_price_the_setting_is_named(self) -> None:
        steps = [ScalingStep.of(n, (capacity(100.0 * n),), (even_launch(used=usage()),)) for n in (1, 2)]
        found = scaling_indices(steps, [S])
        assert found.hsxe is not None
        assert found.hsx is None
        assert 'set perf_price = "0.0425 USD per core-hour' in found.missing["hsxc"]
        assert found.missing["hsx"] == found.missing["hsxc"]

    def test_without_a_scale_out_time_its_reason_is_given(self) -> None:
        found = scaling_indices((step(1, (100,), (1,)), step(2, (200,), (1,))), (), "the pattern cannot grow")
        assert found.missing == dict.fromkeys(
            ("sc", "hsx", "hsxt"), "the scale-out time is not known: the pattern cannot grow"
        )

    def test_every_reason_is_given_once(self) -> None:
        found = scaling_indices((), (), "it was not measured")
        assert set(found.missing) == set(SCALING_INDICES)
        assert found.missing["hsx"].count("write measure_scaling") == 1
        assert found.missing["hsx"].startswith("the scale-out time is not known: it was not measured; no number")

    def test_a_lower_bound_is_no_efficiency(self) -> None:
        open_end = structs.replace(capacity(200, at_least=True), stopped="the time was up at concurrency 8")
        two = replace(step(2, (200,), (1,)), capacities=(open_end,))
        found = scaling_indices((step(1, (100,), (1,)), two), [S])
        assert found.missing["hsxe"] == "capacity (NMRT) of 2 replicas is not known: the time was up at concurrency 8"

    def test_a_cost_or_a_load_that_some_pass_lacks(self) -> None:
        for costs in ((), (0.0,)):
            found = scaling_indices((step(1, (100,), (1,)), step(2, (200,), costs)), [S])
            assert "cost of a request at NMRT is not known in every pass" in found.missing["hsxc"]
        found = scaling_indices((step(1, (100,), (1,), (0.0,)), step(2, (200,), (1,))), [S])
        assert found.hsx is not None
        assert found.missing == {"sc": "ASL at NMRT is not known in every pass; measure longer"}

    def test_a_test_that_measures_no_scaling_is_told_how(self) -> None:
        assert why_unknown("sc", {}) == NOT_MEASURED
        assert why_unknown("sc", {"sc": "no price"}) == "no price"
        assert why_unknown("rtm", {}) == ""
        assert set(Scaling((), 1).indices.missing) == set(SCALING_INDICES)


class TestNotes:
    def test_the_indices_stand_in_one_line_and_what_is_missing_is_said_once(self) -> None:
        metrics = {"hsx": (0.9, 0.88, 0.92), "sc": (1.8, 1.7, 1.9), "hsxt": (0.95, 0.94, 0.96)}
        assert describe_indices(metrics, {}) == ["HSX 90.0 % (88.0 % to 92.0 %), SC 1.80 (1.70 to 1.90); HSXt 95.0 %"]
        missing = dict.fromkeys(("hsxc", "hsx", "sc"), "there is no price")
        known = describe_indices({"hsxe": (0.9, 0.8, 1.0)}, missing)
        assert known == ["HSXe 90.0 %", "HSX and SC are not known: there is no price"]
