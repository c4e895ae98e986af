"""The adaptive wait: its rules, and what it results in under load."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batching import ask_each, batching, jumping, now_ns, outcomes, run_jumping
from support.each_row import each_row
from support.synthetic import MS, PROPERTY, S

from pytest_mlpatterns.patterns import batched
from pytest_mlpatterns.patterns.batched import AdaptiveWait, BatchLayer
from pytest_mlpatterns.patterns.tally import Tally


def after(*called: tuple[int, int | None, int | None], wait_ns: int = 0) -> int:
    wait = AdaptiveWait()
    wait.wait_ns = wait_ns
    for one in called:
        wait.called(*one)
    return wait.wait_ns


STEP = AdaptiveWait.STEP_NS


@each_row(
    ("wait_ns", "call_ns", "last_ns", "next_ns", "then_ns"),
    (0, 5 * MS, None, None, 0),
    (0, 5 * MS, None, STEP, STEP),
    (0, 5 * MS, None, STEP + 1, 0),
    (MS, 5 * MS, None, None, 900_000),
    (MS, 5 * MS, None, 0, MS + STEP),
    (MS, 5 * MS, 900_000, 0, MS + STEP),
    (MS, 5 * MS, STEP, None, MS),
    (MS, 5 * MS, STEP + 1, None, 900_000),
    (4 * MS, 5 * MS, 400_000, None, 4 * MS),
    (4 * MS, 5 * MS, 400_001, None, 3_600_000),
    (5 * MS, 5 * MS, None, 0, 5 * MS),
    (5 * MS + 1, 5 * MS, 0, 0, 4_500_000),
    (100 * MS, S, None, 0, 100 * MS),
    (100 * MS - 1, S, None, 0, 100 * MS),
    (1, 5 * MS, None, None, 0),
)
def test_the_wait_grows_by_a_step_stays_or_shrinks_by_a_tenth(
    wait_ns: int, call_ns: int, last_ns: int | None, next_ns: int | None, then_ns: int
) -> None:
    assert after((call_ns, last_ns, next_ns), wait_ns=wait_ns) == then_ns


def test_the_limit_is_the_shortest_call_and_is_forgotten_slowly() -> None:
    long, short = (20 * MS, None, 0), (2 * MS, None, 0)
    assert after(*[long] * 200) == 20 * MS
    assert after(short, *[long] * 100) == pytest.approx(2 * MS * 1.001**100, rel=0.01)
    assert after(short, *[long] * 3000) == 20 * MS
    assert after(*[long] * 200, *[short] * 40) <= 2 * MS


MOMENTS = st.none() | st.integers(0, 2 * MS)


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, S), MOMENTS, MOMENTS), min_size=1, max_size=200))
def test_adaptive_wait_stays_within_bounds_and_decays_to_zero_if_it_gains_nothing(
    called: list[tuple[int, int | None, int | None]],
) -> None:
    wait = AdaptiveWait()
    for one in called:
        before = wait.wait_ns
        wait.called(*one)
        assert 0 <= wait.wait_ns <= AdaptiveWait.MOST_NS
        assert wait.wait_ns <= before or wait.wait_ns <= before + STEP
    for _ in range(200):
        wait.called(S, None, None)
    assert wait.wait_ns == 0


class Noting(AdaptiveWait):
    """An adaptive wait that stays, and notes what it is told."""

    def __init__(self, wait_ns: int) -> None:
        super().__init__()
        self.wait_ns = wait_ns
        self.told: list[tuple[int, int | None, int | None]] = []

    def called(self, call_ns: int, last_ns: int | None, next_ns: int | None) -> None:
        self.told.append((call_ns, last_ns, next_ns))


def noting(monkeypatch: pytest.MonkeyPatch, inner: Any, size: int = 32) -> tuple[BatchLayer, Noting]:
    noted = Noting(4 * MS)
    monkeypatch.setattr(batched, "AdaptiveWait", lambda: noted)
    return batching(inner, size, "adaptive")[0], noted


async def takes_10ms(inputs: list[int]) -> list[int]:
    await asyncio.sleep(0.010)
    assert 13 not in inputs, "unlucky"
    return inputs


@jumping
async def test_adaptive_wait_gets_the_times_of_the_last_and_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, noted = noting(monkeypatch, takes_10ms)
    ask_each(layer, [1])
    await asyncio.sleep(0.003)
    first = ask_each(layer, [2])
    await asyncio.sleep(0.003)
    then = ask_each(layer, [3])
    await first[0]
    assert now_ns() == 14 * MS
    assert noted.told == [(10 * MS, MS, 2 * MS)]
    await then[0]
    assert now_ns() == 28 * MS, "the wait began when the batch before it ended"
    assert noted.told[1:] == [(10 * MS, None, None)]


@jumping
async def test_failed_and_full_batches_do_not_change_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, noted = noting(monkeypatch, takes_10ms, size=4)
    await outcomes([*ask_each(layer, [1, 13])])
    await asyncio.gather(*ask_each(layer, [1, 2, 3, 4]))
    assert noted.told == []
    too_many = asyncio.gather(layer([1, 2]), layer([3, 4, 5]))
    await asyncio.sleep(0.011)
    assert noted.told == []
    await too_many
    assert noted.told == [(10 * MS, None, None)]


async def drive(layer: BatchLayer, callers: int, seconds: float) -> list[int]:
    """So many callers that each come back after 0.2 to 1.2 ms; the latencies of the second half, in ns."""
    draw = random.Random(1)
    end_ns = round(seconds * S)
    latencies: list[int] = []

    async def caller() -> None:
        await asyncio.sleep(draw.uniform(0, 0.02))
        while (started_ns := now_ns()) < end_ns:
            await layer([1])
            if started_ns > end_ns // 2:
                latencies.append(now_ns() - started_ns)
            await asyncio.sleep(draw.uniform(0.0002, 0.0012))

    await asyncio.gather(*(caller() for _ in range(callers)))
    return latencies


def driven(wait: str, callers: int) -> tuple[list[int], Tally, BatchLayer]:
    """A model of 5 ms and 0.1 ms for each input under so many callers, for two seconds of its own clock."""

    async def model(inputs: list[int]) -> list[int]:
        await asyncio.sleep(0.005 + 0.0001 * len(inputs))
        return inputs

    async def scenario() -> tuple[list[int], Tally, BatchLayer]:
        layer, tally = batching(model, wait=wait)
        return await drive(layer, callers, 2), tally, layer

    return run_jumping(scenario())


def test_a_single_caller_does_not_come_to_wait() -> None:
    latencies, tally, _ = driven("adaptive", 1)
    assert sorted(latencies)[len(latencies) // 2] == pytest.approx(5.1 * MS, rel=0.01)
    assert tally.snapshot().mean("size") == 1


@pytest.mark.parametrize("callers", [4, 16])
def test_callers_of_batches_that_take_turns_find_each_other_by_the_adaptive_wait(callers: int) -> None:
    at_once, _, _ = driven("0ms", callers)
    adaptive, tally, layer = driven("adaptive", callers)
    assert len(adaptive) > 1.3 * len(at_once)
    assert sorted(adaptive)[len(adaptive) // 2] < 0.75 * sorted(at_once)[len(at_once) // 2]
    assert tally.snapshot().mean("size") > 0.8 * callers
    assert 0.5 * MS < layer._adaptive.wait_ns < 2 * MS


def test_full_batches_teach_the_wait_nothing() -> None:
    _, tally, layer = driven("adaptive", 64)
    assert tally.snapshot().median("size") == 32
    assert layer._adaptive.wait_ns <= STEP
