"""Faults on purpose under load: clients meet the share that was asked for, in the way that was asked for."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.deployed import MS, Checked, callers_for, deployed

from pytest_mlpatterns import Faulty, Limited, Microservice, Replicated
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.records.outcomes import Failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pytest_mlpatterns import Pattern
    from pytest_mlpatterns.loadgen.generator import Generator

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
INPUTS = list(range(64))
SHARE = 0.1


class Doubles:
    async def __call__(self, batch: list[Any]) -> list[Any]:
        await asyncio.sleep(0.002)
        return [2 * one for one in batch]


class Counts:
    """Streams three numbers."""

    async def __call__(self, batch: list[Any]) -> AsyncIterator[Any]:
        for number in range(3):
            await asyncio.sleep(0.001)
            yield batch[0] + number


def measured(pattern: Pattern, model: object, generator: Generator, directory: Path, **given: Any) -> Metrics:
    plan = callers_for(INPUTS, 3000, given.get("check"))
    with deployed(pattern, model, plan, module=HERE, generator=generator, directory=directory) as runner:
        return Metrics((runner.measure(),))


def sampling_error(metrics: Metrics) -> float:
    """Four standard errors of the share, and the requests that are under way when the window opens and closes."""
    return 4 * (SHARE * (1 - SHARE) / metrics.requests) ** 0.5 + 32 / metrics.requests


@pytest.mark.parametrize(
    ("pattern", "outcome"),
    [
        (Faulty(error=503, share=SHARE), 503),
        (Faulty(cut=True, share=SHARE), Failure.CLOSED),
        (Faulty(refuse=True, share=SHARE), Failure.CLOSED),
        (Replicated(2) | Faulty(error=418, share=SHARE, seed=5), 418),
        (Limited(64) | Faulty(cut=True, share=SHARE) | Microservice(), Failure.CLOSED),
        (Microservice() | Faulty(refuse=True, share=SHARE), 502),
        (Microservice() | Faulty(cut=True, share=SHARE), 502),
    ],
    ids=str,
)
def test_clients_meet_the_fault_as_often_as_was_asked_for(
    generator: Generator, tmp_path: Path, pattern: Pattern, outcome: int
) -> None:
    check = Checked(lambda one: 2 * one)
    metrics = measured(pattern, Doubles, generator, tmp_path, check=check)
    assert check.seen  # and those answers were right
    assert set(metrics.failures) == {outcome}
    injected = metrics.figure("injected_share")
    assert injected is not None
    assert injected.value == pytest.approx(SHARE, abs=sampling_error(metrics))
    failed = metrics.failures[outcome] / metrics.requests
    assert failed == pytest.approx(injected.value, abs=32 / metrics.requests)


@pytest.mark.parametrize(
    ("pattern", "outcomes"),
    [
        (Faulty(cut=True, share=SHARE), {Failure.CLOSED}),
        (Microservice() | Faulty(cut=True, share=SHARE), {Failure.ERROR_EVENT}),
    ],
    ids=str,
)
def test_streams_end_in_their_middle_as_often_as_was_asked_for(
    generator: Generator, tmp_path: Path, pattern: Pattern, outcomes: set[int]
) -> None:
    metrics = measured(pattern, Counts, generator, tmp_path)
    assert set(metrics.failures) == outcomes
    share = sum(metrics.failures.values()) / metrics.requests
    assert share == pytest.approx(SHARE, abs=sampling_error(metrics))


def test_a_delay_is_met_by_its_share_and_by_no_other(generator: Generator, tmp_path: Path) -> None:
    delay_ns = 400 * MS
    metrics = measured(Faulty("400ms", SHARE), Doubles, generator, tmp_path)
    late = int((metrics.latencies_ns >= delay_ns).sum())
    injected = metrics.figure("injected_share")
    assert injected is not None
    assert late / metrics.requests == pytest.approx(injected.value, abs=32 / metrics.requests)


def test_a_link_carries_no_more_than_its_speed(generator: Generator, tmp_path: Path) -> None:
    metrics = measured(Faulty(bandwidth="4kB/s"), Doubles, generator, tmp_path)
    least_bytes = len('{"instances":[1]}')
    assert 0 < metrics.throughput_rps.value < 4000 / least_bytes
