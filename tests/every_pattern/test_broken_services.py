"""Fallbacks and faults on purpose in compositions, really deployed: each answer is right, whoever gave it."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.deployed import callers_for, deployed
from support.services.processes import our_children

from pytest_mlpatterns import (
    Autoscaled,
    Batched,
    Cached,
    Cascade,
    Ensemble,
    Fallback,
    Faulty,
    Limited,
    Microservice,
    Pipeline,
    Queued,
    Replicated,
    Shadowed,
)
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.loadgen.generator import Generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_mlpatterns import Pattern

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
INPUTS = [[number, number + 0.5] for number in range(64)]
SHARE = 0.3


class Squares:
    """The squares of an input's numbers; takes two milliseconds a call."""

    def __call__(self, batch: list[Any]) -> list[Any]:
        time.sleep(0.002)
        return [[number * number for number in one] for one in batch]


def negated(batch: list[Any]) -> list[Any]:
    return [[-number for number in one] for one in batch]


def plain(batch: list[Any]) -> list[Any]:
    return batch


def first_of(answers: list[Any]) -> Any:
    return answers[0]


def always(_given: Any, _output: Any) -> bool:
    return True


def broken(**given: Any) -> Faulty:
    return Faulty(share=SHARE, **given)


class Either:
    """A check that knows the answer of the model and that of the other, and counts both."""

    def __init__(self) -> None:
        self.of_model = self.of_other = 0

    def __call__(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for given, output in zip(inputs, outputs, strict=True):
            if output == [number * number for number in given]:
                self.of_model += 1
            else:
                assert output == [-number for number in given]
                self.of_other += 1


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    generator = Generator(tmp_path_factory.mktemp("generator") / "generator.log")
    yield generator
    generator.close()


@pytest.fixture(autouse=True)
def _no_process_is_left(generator: Generator) -> Iterator[None]:
    yield
    generator.close()
    assert our_children() == set()


SAFE = Fallback(negated)
PATIENT = Fallback(negated, timeout="10s")
UNBROKEN = Fallback(negated, open_after=None)
WELL = [
    SAFE,
    PATIENT | Microservice(),
    SAFE | Replicated(2),
    Cached() | SAFE,
    SAFE | Batched(max_batch_size=8),
    Replicated(2) | SAFE | Cached(),
    Queued(workers=2) | SAFE,
    PATIENT | Queued(workers=2),
    Pipeline([plain, "model"]) | SAFE | Microservice(),
    Ensemble(["model", plain], combine=first_of) | SAFE,
    Cascade(plain, "model", always) | SAFE,
    Faulty("2ms", SHARE) | Cached(max_entries=8) | Microservice(),
    Faulty(bandwidth="10MB/s") | Batched(max_batch_size=8),
    Replicated(2) | Faulty("2ms", SHARE),
    PATIENT | Autoscaled(max=2, window="50ms", stable="50ms"),
    Autoscaled(max=2, window="50ms") | SAFE,
    PATIENT | Replicated(2, hedge="20ms") | Faulty("50ms", 0.05),
    PATIENT | Replicated(2, balance="two-choices"),
    SAFE | Shadowed(negated),
]
ILL = [
    UNBROKEN | broken(error=500),
    UNBROKEN | broken(error=503) | Replicated(2),
    UNBROKEN | broken(refuse=True) | Microservice(),
    UNBROKEN | Microservice() | broken(cut=True),
    UNBROKEN | Replicated(2) | broken(refuse=True, delay="1ms"),
    Batched(max_batch_size=2) | UNBROKEN | broken(error=500),
    Microservice() | UNBROKEN | broken(error=429) | Batched(max_batch_size=8),
    replace(UNBROKEN, timeout="100ms") | broken(delay="10s") | Microservice(),
    UNBROKEN | UNBROKEN | broken(error=500),
    UNBROKEN | Autoscaled(max=2) | broken(cut=True),
    UNBROKEN | Replicated(2, hedge="20ms") | broken(error=503),
]


def measured(pattern: Pattern, generator: Generator, directory: Path) -> tuple[Metrics, Either]:
    check = Either()
    plan = callers_for(INPUTS, 300, check)  # type: ignore[arg-type]  # another check than the usual one
    with deployed(pattern, Squares, plan, module=HERE, generator=generator, directory=directory) as runner:
        launch = runner.measure()
        launch = replace(launch, stats=runner.deployment.stats())  # since the start
    return Metrics((launch,)), check


@pytest.mark.parametrize("pattern", WELL, ids=str)
def test_while_nothing_goes_wrong_the_model_answers(generator: Generator, tmp_path: Path, pattern: Pattern) -> None:
    metrics, check = measured(pattern, generator, tmp_path)
    assert metrics.failures == {}
    assert check.of_model
    assert not check.of_other
    if any(isinstance(part, Fallback) for part in pattern.parts) and not isinstance(pattern.parts[0], Cached):
        share, is_open = metrics.figure("fallback_share"), metrics.figure("breaker_open")
        assert share is not None
        assert is_open is not None
        assert share.value == is_open.value == 0


@pytest.mark.parametrize("pattern", ILL, ids=str)
def test_whatever_goes_wrong_the_model_or_the_other_answers(
    generator: Generator, tmp_path: Path, pattern: Pattern
) -> None:
    metrics, check = measured(pattern, generator, tmp_path)
    assert metrics.failures == {}
    assert check.of_model
    assert check.of_other
    injected, answered = metrics.figure("injected_share"), metrics.figure("fallback_share")
    assert injected is not None
    assert answered is not None
    stats = metrics.launches[0].stats
    assert stats is not None
    drawn = sum(stats.layers_named("faulty")[0].counters.values())
    assert injected.value == pytest.approx(SHARE, abs=4 * (SHARE * (1 - SHARE) / drawn) ** 0.5)
    if isinstance(pattern.parts[0], Fallback) and pattern.parts[1] != UNBROKEN:  # the outer one has nothing to do
        assert answered.value == pytest.approx(injected.value, abs=0.01 + 20 / drawn)  # the first ones are not drawn


def test_what_a_limit_refuses_the_other_answers(generator: Generator, tmp_path: Path) -> None:
    metrics, check = measured(UNBROKEN | Limited(2, max_waiting=0), generator, tmp_path)
    assert metrics.failures == {}
    assert check.of_model
    assert check.of_other
    admitted, answered = metrics.figure("admitted_share"), metrics.figure("fallback_share")
    assert admitted is not None
    assert answered is not None
    assert answered.value == pytest.approx(1 - admitted.value, abs=0.01)
