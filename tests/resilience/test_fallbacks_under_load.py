"""Fallbacks under load: the breaker opens within its window and closes after the model is well; a death is survived."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.deployed import CALLERS, MS, Killer, callers_for, deployed
from support.project import Project
from support.repository import Repository

from pytest_mlpatterns import Autoscaled, Fallback, Faulty, Microservice, Replicated
from pytest_mlpatterns.analysis.metrics.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_mlpatterns import Pattern
    from pytest_mlpatterns.loadgen.generator import Generator

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
INPUTS = list(range(1, 65))
CLOSED, OPEN = 0, 2
WINDOW_MS, REST_MS = 1000, 500
BREAKS_AT, IS_ILL_FOR_S = 300, 1.5
"""Number of the call with which the model breaks, and for how long it is ill then."""


class IllForAWhile:
    """Doubles its inputs; fails from some call on for some time, and tells when that was, and how often it failed."""

    def __init__(self) -> None:
        self.calls = self.failed = 0
        self.well_since = 0.0

    async def __call__(self, batch: list[Any]) -> list[Any]:
        await asyncio.sleep(0.005)
        self.calls += 1
        if self.calls == BREAKS_AT:
            self.well_since = time.perf_counter() + IS_ILL_FOR_S
        if time.perf_counter() < self.well_since:
            self.failed += 1
            raise RuntimeError("ill")
        return [{"doubled": 2 * one, "failed": self.failed, "well_since": self.well_since} for one in batch]


def unknown(batch: list[Any]) -> list[Any]:
    return [{"doubled": None} for _ in batch]


class Answers:
    """What the model told in its answers."""

    def __init__(self) -> None:
        self.failed = self.by_other = 0
        self.well_since_ns = 0.0

    def __call__(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for given, output in zip(inputs, outputs, strict=True):
            if output["doubled"] is None:
                self.by_other += 1
            else:
                assert output["doubled"] == 2 * given
                self.failed = max(self.failed, output["failed"])
                self.well_since_ns = max(self.well_since_ns, output["well_since"] * 1e9)


def test_a_breaker_opens_within_its_window_and_closes_after_the_model_is_well(
    generator: Generator, tmp_path: Path
) -> None:
    pattern = Fallback(unknown, window=f"{WINDOW_MS}ms", retry_after=f"{REST_MS}ms")
    answers = Answers()
    plan = callers_for(INPUTS, 4000, answers)  # type: ignore[arg-type]  # another check than the usual one
    with deployed(pattern, IllForAWhile, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        launch = runner.measure()
        stats = runner.deployment.stats()

    assert Metrics((launch,)).failures == {}
    (layer,) = stats.layers_named("fallback")
    broke_ns = answers.well_since_ns - IS_ILL_FOR_S * 1e9
    states = layer.series["breaker"]
    opened_ns = next(at for at, state in states if state == OPEN)
    closed_ns = next(at for at, state in states if state == CLOSED and at > opened_ns)
    pause_ns = int(np.diff(np.sort(launch.samples.done_ns)).max())  # one of 16 callers has an answer every few ms
    # at the latest when no success before it is in the window any more, which is counted in tenths
    assert 0 < opened_ns - broke_ns < 1.1 * WINDOW_MS * MS + pause_ns
    assert 0 < closed_ns - answers.well_since_ns < 2 * REST_MS * MS + pause_ns
    assert states[-1] == (closed_ns, CLOSED)
    assert answers.by_other
    probes = layer.counters["opened"]
    assert probes <= 1 + IS_ILL_FOR_S * 1e3 / REST_MS
    assert layer.counters["on_error"] == answers.failed  # every failure reached the layer, and none the clients
    assert layer.counters["open_ns"] == pytest.approx(closed_ns - opened_ns, abs=5 * MS)


class Doubles:
    async def __call__(self, batch: list[Any]) -> list[Any]:
        await asyncio.sleep(0.002)
        return [2 * one for one in batch]


class Either:
    """A check that takes the answer of the model, or 0, that of the other."""

    def __init__(self) -> None:
        self.by_model = 0

    def __call__(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for given, output in zip(inputs, outputs, strict=True):
            assert output in (2 * given, 0)
            self.by_model += output != 0


def nothing(batch: list[Any]) -> list[Any]:
    return [0 for _ in batch]


SPARED = Fallback(nothing, timeout="150ms", window="300ms", retry_after="100ms")


@pytest.mark.parametrize(
    ("pattern", "role"),
    [
        (SPARED | Microservice(), "service"),
        (SPARED | Replicated(2, "least-outstanding"), "replica"),
        (SPARED | Autoscaled(2, 2), "replica"),
        (Fallback(nothing, timeout="150ms") | Faulty("1ms") | Microservice(), "service"),
    ],
    ids=str,
)
def test_the_other_answers_while_a_process_that_was_killed_is_replaced(
    generator: Generator, tmp_path: Path, pattern: Pattern, role: str
) -> None:
    killer, check = Killer(role), Either()
    plan = callers_for(INPUTS, 1500, check)  # type: ignore[arg-type]  # as above
    tools: dict[str, Any] = {"generator": generator, "directory": tmp_path, "on_progress": killer}
    with deployed(pattern, Doubles, plan, module=HERE, **tools) as runner:
        launch = runner.measure()
        assert killer.killed not in runner.deployment.pids
        until = time.monotonic() + 60
        while runner.deployment.predict(21) != 42:  # by the replacement, when it has loaded
            assert time.monotonic() < until
    assert killer.killed is not None
    assert check.by_model  # of the answers that the check drew
    assert Metrics((launch,)).failures == {}
    assert launch.stats is not None
    assert launch.stats.replaced == 1
    (layer,) = launch.stats.layers_named("fallback")
    # the requests that were in the process when it died; a busy machine notices after their time is up
    assert layer.counters.get("on_error", 0) + layer.counters.get("on_timeout", 0) > 0


STALLS_AT = 50
"""Number of the call after which the model stalls."""


class StallsOnce:
    """Doubles its inputs, one call at a time, in two milliseconds; stalls for a second in the middle. Counts calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.stalls_until = 0.0
        self.is_free = asyncio.Lock()

    async def __call__(self, batch: list[Any]) -> list[Any]:
        while (left_s := self.stalls_until - time.monotonic()) > 0:
            await asyncio.sleep(left_s)
        async with self.is_free:
            self.calls += 1
            if self.calls == STALLS_AT:
                self.stalls_until = time.monotonic() + 1
            await asyncio.sleep(0.002)
        return [{"doubled": 2 * one, "failed": self.calls, "well_since": 0} for one in batch]


def test_a_service_does_not_work_for_requests_that_came_too_late(generator: Generator, tmp_path: Path) -> None:
    pattern = Fallback(unknown, timeout="100ms", open_after=None) | Microservice()
    answers = Answers()
    plan = callers_for(INPUTS, 2500, answers)  # type: ignore[arg-type]  # as above
    with deployed(pattern, StallsOnce, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        launch = runner.measure()
        layer = runner.deployment.stats().layers_named("fallback")[0]

    assert Metrics((launch,)).failures == {}
    late = layer.counters["on_timeout"]
    assert late > 2 * CALLERS  # all callers, several times during the one second
    assert answers.failed - layer.counters["model"] < late / 2  # else the model works for each of them


REGRESSION = """
import asyncio

import pytest
from pytest_mlpatterns import Fallback


class Model:
    calls = 0

    async def __call__(self, batch):
        await asyncio.sleep(0.005)
        self.calls += 1
        if self.calls % {every} == 0:
            raise ValueError("no")
        return batch


def other(batch):
    return batch


@pytest.fixture
def perf_model():
    return Model


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


@pytest.mark.perf(pattern=Fallback(other), concurrency=4, compare=("fallback_share",), duration="1s")
def test_model(perf):
    pass
"""


def test_a_model_that_needs_its_fallback_more_often_is_a_regression_of_its_revision(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    repository.commit({"pytest.ini": "[pytest]\n", "test_perf.py": REGRESSION.format(every=50)})

    project = Project().with_file("test_perf.py", REGRESSION.format(every=5))
    run = project.run(repository.top, "--perf-against=main")

    assert run.exit_code == 1
    assert "RegressionFailure: share answered by the fallback" in run.failure("test_model")
