"""The scalability law: exact data give back their coefficients; intervals hold the truth as often as they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY

from pytest_mlpatterns import TooFewSamplesError
from pytest_mlpatterns.analysis.capacity.scalability_law import ScalabilityLaw, fit_law


@PROPERTY
@given(
    rate=st.floats(0.1, 1e5),
    contention=st.floats(0, 0.9),
    coherency=st.floats(0, 0.1),
    most=st.sampled_from([4, 8, 16]),
)
def test_exact_capacities_give_back_the_law(rate: float, contention: float, coherency: float, most: int) -> None:
    law = ScalabilityLaw(rate, contention, coherency)
    fitted = fit_law({n: [law.capacity_rps(n)] * 2 for n in (1, 2, most)})
    assert fitted.best.rate_rps == pytest.approx(rate, rel=1e-6)
    assert fitted.best.contention == pytest.approx(contention, abs=1e-6)
    assert fitted.best.coherency == pytest.approx(coherency, abs=1e-6)


@pytest.mark.parametrize("capacities", [{1: [100, 103], 2: [190, 197], 4: [330, 350]}, {1: [100], 2: [210], 4: [450]}])
def test_every_interval_holds_its_value_and_no_coefficient_is_negative(capacities: dict[int, list[float]]) -> None:
    fitted = fit_law(capacities)
    for found in (fitted.contention, fitted.coherency, fitted.capacity_rps(8)):
        assert 0 <= found.low <= found.value <= found.high < math.inf


def test_what_fits_nearly_as_well_lies_on_both_sides_of_what_fits_best() -> None:
    law = ScalabilityLaw(100, 0.2, 0.02)
    fitted = fit_law({n: [law.capacity_rps(n)] * 3 for n in (1, 2, 4, 8)})
    for found in (fitted.contention, fitted.coherency):
        assert found.high - found.value == pytest.approx(found.value - found.low, rel=0.01)


def test_two_numbers_of_replicas_leave_the_coherency_open_and_predict_nothing_beyond_them() -> None:
    fitted = fit_law({1: [100.0, 101.0], 2: [180.0, 181.0]})
    assert fitted.best.coherency == 0
    assert fitted.coherency.high == math.inf
    assert fitted.contention.low == 0  # all of it may be coherency
    assert 0.11 < fitted.contention.high < 0.2
    assert fitted.capacity_rps(2).value == pytest.approx(180.5, rel=0.01)
    with pytest.raises(TooFewSamplesError) as caught:
        fitted.capacity_rps(3)
    assert str(caught.value) == (
        "3 replicas are beyond the two numbers of replicas that were measured, 1 and 2, which cannot tell contention "
        "from coherency; measure a third number, as replicas=(1, 2, 4)"
    )
    with pytest.raises(TooFewSamplesError, match=r"450 req/s \(1\d\d req/s are sure\) are beyond the two numbers"):
        fitted.replicas_for(450)
    assert fitted.replicas_for(150).value == 2


@pytest.mark.parametrize("law", [ScalabilityLaw(100, 0.05, 0.02), ScalabilityLaw(100, 0.0, 0.08)], ids=str)
def test_between_two_numbers_an_interval_holds_every_share_of_coherency(law: ScalabilityLaw) -> None:
    fitted = fit_law({n: [law.capacity_rps(n)] * 3 for n in (1, 8)})
    found = fitted.capacity_rps(4)
    assert found.low <= law.capacity_rps(4) <= found.high
    assert fitted.contention.low <= law.contention <= fitted.contention.high


def test_the_law_has_its_peak_where_another_replica_adds_nothing() -> None:
    law = ScalabilityLaw(100, 0.05, 0.01)
    peak = law.peak_replicas
    assert peak == pytest.approx(math.sqrt(0.95 / 0.01))
    assert law.capacity_rps(peak) > max(law.capacity_rps(0.9 * peak), law.capacity_rps(1.1 * peak))
    assert ScalabilityLaw(100, 0.05, 0.0).peak_replicas == math.inf


def test_the_replicas_for_a_rate_are_the_fewest_that_serve_it() -> None:
    law = ScalabilityLaw(100, 0.02, 0.0)
    found = fit_law({n: [law.capacity_rps(n)] * 4 for n in (1, 2, 4)}).replicas_for(850)
    assert found.low <= found.value <= found.high
    assert law.capacity_rps(found.value) >= 850 > law.capacity_rps(found.value - 1)


def test_what_the_measurements_cannot_carry_is_refused() -> None:
    law = ScalabilityLaw(100, 0.3, 0.01)
    fitted = fit_law({n: [law.capacity_rps(n)] * 2 for n in (1, 2, 4)})
    with pytest.raises(TooFewSamplesError, match="17 replicas are more than 4 times the 4 that were measured"):
        fitted.capacity_rps(17)
    with pytest.raises(TooFewSamplesError, match=r"5,000 req/s are beyond .* up to 16 replicas serve"):
        fitted.replicas_for(5000)
    with pytest.raises(TooFewSamplesError, match="capacity of 1 number of replicas is known, expected at least 2"):
        fit_law({1: [100.0]})


@pytest.mark.simulation
def test_intervals_hold_the_truth_as_often_as_they_promise() -> None:
    """A small part of ``benchmarks/scaling_simulation.py``, with the scatter that launches have."""
    random, law, runs = np.random.default_rng(0), ScalabilityLaw(100, 0.2, 0.0), 25
    held = np.zeros(2)
    for _ in range(runs):
        drawn = {n: list(law.capacity_rps(n) * np.exp(0.017 * random.standard_normal(3))) for n in (1, 2, 4)}
        fitted = fit_law(drawn)
        sigma, far = fitted.contention, fitted.capacity_rps(8)
        held += [sigma.low <= 0.2 <= sigma.high, far.low <= law.capacity_rps(8) <= far.high]
    assert (held / runs >= 0.88).all()
