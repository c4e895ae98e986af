"""Mean sizes: exact where an input decides them, and as uncertain as few sampled texts are otherwise."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from support.each_row import each_row

from pytest_mlpatterns.analysis.metrics.blocked_values import mean_size
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_guard
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome

SIZE = METRICS["response_bytes"]
RUNS, MEASURED = 800, 400


def size(inputs: Sequence[int], sizes: Sequence[int]) -> LaunchValue:
    return mean_size(np.array(inputs, dtype=np.uint32), np.array(sizes, dtype=np.uint32))


def test_answers_of_one_size_are_exact() -> None:
    assert size([0, 1, 2, 0], [150] * 4) == LaunchValue(150, 0)
    assert size([0, 0], [0, 0]) == LaunchValue(0, 0)


def test_sizes_that_the_input_decides_are_exact_but_for_an_incomplete_round() -> None:
    assert size([0, 1, 0, 1], [100, 300, 100, 300]) == LaunchValue(200, 0)
    incomplete = size([0, 1, 0, 1, 0], [100, 300, 100, 300, 100])
    assert incomplete.relative_error == pytest.approx(np.std([100, 300, 100, 300, 100], ddof=1) / 5 / 180)


@each_row(
    ("inputs", "sizes"),
    ([0, 0, 0, 0], [100, 300, 100, 300]),
    ([0, 1, 2, 3], [100, 300, 100, 300]),
    ([0, 0, 0, 1], [100, 100, 100, 300]),  # inputs that are drawn are in no rounds
)
def test_sizes_that_vary_have_the_standard_error_of_their_requests(inputs: list[int], sizes: list[int]) -> None:
    assert size(inputs, sizes).relative_error == pytest.approx(np.std(sizes, ddof=1) / 2 / np.mean(sizes))


def test_fixed_answers_that_became_larger_fail_at_once() -> None:
    before, now = [size([0, 1] * 10, [1000, 2000] * 10)] * 6, [size([0, 1] * 10, [1200, 2400] * 10)] * 2
    verdict = judge_guard(SIZE, now, before, tolerance=0.10)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason == "response size 1.46 KiB → 1.76 KiB: 20.0 % worse; tolerance 10.0 %"


def test_a_launch_of_a_single_answer_is_judged_by_how_launches_differ() -> None:
    before = [size([0], [one]) for one in (900, 1100, 1000, 1150, 950, 1050)]
    assert judge_guard(SIZE, [size([0], [1300])] * 2, before, tolerance=0.10).outcome is not Outcome.FAIL
    assert judge_guard(SIZE, [size([0], [4000])] * 2, before, tolerance=0.10).outcome is Outcome.FAIL


def texts(rng: np.random.Generator, answers: int, variation: float, factor: float) -> LaunchValue:
    """A launch of sampled texts, whose lengths are lognormal."""
    sigma = math.sqrt(math.log(1 + variation**2))
    lengths = factor * 12_000 * np.exp(rng.normal(-(sigma**2) / 2, sigma, answers))
    return mean_size(np.arange(answers, dtype=np.uint32) % 5, lengths.astype(np.uint32))


def outcomes(answers: int, variation: float, recorded: int, *, factor: float = 1.0) -> dict[Outcome, float]:
    """The share of each outcome over many runs of up to eight launches, each judged after every launch.

    A run draws its launches from those that were measured of each side.
    """
    rng = np.random.default_rng(1)
    of_before, of_now = ([texts(rng, answers, variation, one) for _ in range(MEASURED)] for one in (1.0, factor))
    found = dict.fromkeys(Outcome, 0)
    for _ in range(RUNS):
        before = [of_before[number] for number in rng.permutation(MEASURED)[:recorded]]
        launches = [of_now[number] for number in rng.permutation(MEASURED)[:8]]
        for count in range(2, 9):
            outcome = judge_guard(SIZE, launches[:count], before, tolerance=0.10).outcome
            if outcome is not Outcome.INCONCLUSIVE:
                break
        found[outcome] += 1
    return {outcome: count / RUNS for outcome, count in found.items()}


@pytest.mark.simulation
@each_row(
    ("answers", "variation", "recorded"),
    [(20, 0.5, 6), (20, 0.8, 6), (7, 0.8, 6), (20, 0.5, 3), (20, 0.8, 3), (7, 0.5, 3), (7, 0.8, 3)],
)
def test_an_unchanged_language_model_does_not_fail_by_the_lengths_of_its_texts(
    answers: int, variation: float, recorded: int
) -> None:
    found = outcomes(answers, variation, recorded)
    assert found[Outcome.FAIL] <= 0.005
    assert found[Outcome.INCONCLUSIVE] <= 0.02


@pytest.mark.simulation
def test_texts_that_are_half_as_long_again_are_found() -> None:
    assert outcomes(60, 0.5, 6, factor=1.5)[Outcome.FAIL] >= 0.99
    assert outcomes(20, 0.3, 3, factor=1.5)[Outcome.FAIL] >= 0.95
