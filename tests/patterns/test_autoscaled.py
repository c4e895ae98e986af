"""The layer of autoscaling: what it asks for, who waits for a replica, what fails, and what is counted."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from support.scenarios import counts, run, settle

from pytest_mlpatterns import Autoscaled, Batched, Cached, Limited, Queued, Replicated, SettingError, UnitError
from pytest_mlpatterns.patterns.autoscaled import AutoscaleLayer, ReplicaChange, ReplicaEvent
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.parsing import parse_pattern
from pytest_mlpatterns.patterns.pattern import LayerNode, ProcessGroup
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.layer_kinds import derived_metrics
from pytest_mlpatterns.records.telemetry import PatternStats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from pytest_mlpatterns.patterns.pattern import Pattern

WINDOW = "50ms"


class Replicas:
    """Replicas that start, end and answer when the test says so."""

    def __init__(self, ready: int) -> None:
        self.in_flight = 1
        self.ready = ready
        self.starting = 0
        self.open: list[asyncio.Future[Any]] = []
        self._scaled = asyncio.Event()

    def follow(self, on_change: Callable[[ReplicaChange], None]) -> None:
        self.tell = on_change

    def scale(self, replicas: int) -> None:
        self.starting += max(replicas - self.ready - self.starting, 0)
        self.ready = min(self.ready, replicas)
        self._scaled.set()

    def __call__(self, instances: list[Any], /) -> Awaitable[Sequence[Any]]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.open.append(answer)
        return answer

    async def until(self, ready: int, starting: int) -> None:
        """Wait until the layer has asked for these."""
        while (self.ready, self.starting) != (ready, starting):
            self._scaled.clear()
            await self._scaled.wait()

    def start(self, number: int = 1) -> None:
        for _ in range(number):
            self.ready, self.starting = self.ready + 1, self.starting - 1
            self.tell(ReplicaChange(ReplicaEvent.STARTED, 1000))

    def fail(self, reason: str) -> None:
        self.starting -= 1
        self.tell(ReplicaChange(ReplicaEvent.FAILED, 1000, reason))

    def die(self) -> None:
        self.ready -= 1
        self.tell(ReplicaChange(ReplicaEvent.DIED))


class Scaled:
    """A layer that has started before replicas of the test."""

    def __init__(self, **arguments: Any) -> None:
        self.tally = Tally(0, "autoscaled")
        pattern = Autoscaled(**{"window": WINDOW, "stable": "0s", **arguments})
        self.replicas = Replicas(pattern.min)
        self.layer = AutoscaleLayer(pattern, self.replicas, self.tally)

    async def __aenter__(self) -> Scaled:
        await self.layer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.layer.close()
        await settle()

    def ask(self, times: int = 1) -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(self.layer([number])) for number in range(times)]  # type: ignore[arg-type]

    def answer(self) -> None:
        """Answer all requests that have reached a replica."""
        for answer in self.replicas.open:
            if not answer.done():
                answer.set_result(["right"])

    def figure(self, name: str) -> float:
        return derived_metrics(PatternStats(layers=(self.tally.snapshot(),)))[name].value


def test_replicas_follow_the_requests_in_flight() -> None:
    async def scenario() -> None:
        async with Scaled(max=3) as scaled:
            tasks = scaled.ask(6)
            await scaled.replicas.until(1, 2)
            scaled.replicas.start(2)
            late = scaled.ask()  # now no replica starts, so that it waits for none
            await settle()
            scaled.answer()
            assert [list(one) for one in await asyncio.gather(*tasks, *late)] == [["right"]] * 7
            await scaled.replicas.until(1, 0)
            scaled.replicas.tell(ReplicaChange(ReplicaEvent.ENDED, 2000))
            found = counts(scaled.tally)
            assert found["scale_outs"] >= 1
            assert found["scale_ins"] >= 1
            assert "oscillations" not in found
            assert 1 < scaled.figure("replicas") < 3
            assert scaled.figure("scale_out") == pytest.approx(1000, rel=0.01)
            assert scaled.figure("scale_in") == pytest.approx(2000, rel=0.01)
            assert scaled.figure("oscillations") == 0
            assert scaled.tally.snapshot().series["replicas"]

    run(scenario())


def test_who_comes_while_a_replica_starts_and_all_places_are_taken_waits_for_it() -> None:
    async def scenario() -> None:
        async with Scaled(max=2) as scaled:
            first = scaled.ask(2)
            await scaled.replicas.until(1, 1)
            waiting = scaled.ask()
            await settle()
            scaled.answer()
            await asyncio.gather(*first, *waiting)
            assert counts(scaled.tally)["unhurt"] == 2
            assert counts(scaled.tally)["waited"] == 1
            assert scaled.figure("hurt_share") == pytest.approx(1 / 3)

    run(scenario())


def test_a_load_that_comes_back_takes_a_scale_in_back() -> None:
    async def scenario() -> None:
        async with Scaled(max=2) as scaled:
            for _ in range(3):
                tasks = scaled.ask(3)
                await scaled.replicas.until(1, 1)
                scaled.replicas.start()
                await settle()
                scaled.answer()
                await asyncio.gather(*tasks)
                await scaled.replicas.until(1, 0)
            assert counts(scaled.tally)["oscillations"] == 2
            assert scaled.figure("oscillations") > 0

    run(scenario())


def test_without_replicas_the_first_request_waits_for_a_cold_start() -> None:
    async def scenario() -> None:
        async with Scaled(min=0) as scaled:
            assert (scaled.replicas.ready, scaled.replicas.starting) == (0, 0)
            tasks = scaled.ask()
            await settle()
            assert (scaled.replicas.starting, scaled.replicas.open) == (1, [])  # at once, not at the next decision
            scaled.replicas.start()
            await settle()
            scaled.answer()
            assert list(await tasks[0]) == ["right"]
            assert counts(scaled.tally)["waited"] == 1
            await scaled.replicas.until(0, 0)

    run(scenario())


def test_a_cold_start_that_fails_fails_those_that_wait_for_it_and_the_next_one_tries_again() -> None:
    async def scenario() -> None:
        async with Scaled(min=0, max=1) as scaled:
            (first,) = scaled.ask()
            await settle()
            scaled.replicas.fail("no memory")
            with pytest.raises(RequestError, match="no replica could be started: no memory") as failed:
                await first
            assert (failed.value.status, failed.value.retry_after_s) == (503, 1)
            (second,) = scaled.ask()
            await settle()
            scaled.replicas.start()
            await settle()
            scaled.answer()
            assert list(await second) == ["right"]
            found = counts(scaled.tally)
            assert (found["failed"], found["waited"], found["failed_replicas"]) == (1, 1, 1)

    run(scenario())


def test_a_replica_that_does_not_start_hurts_nobody_if_another_one_is_ready() -> None:
    async def scenario() -> None:
        async with Scaled(max=2) as scaled:
            tasks = scaled.ask(2)
            await scaled.replicas.until(1, 1)
            scaled.replicas.fail("no memory")
            scaled.answer()
            await asyncio.gather(*tasks)
            assert counts(scaled.tally)["unhurt"] == 2

    run(scenario())


def test_a_replica_that_dies_loses_its_request_and_is_replaced() -> None:
    async def scenario() -> None:
        async with Scaled(max=1) as scaled:
            (task,) = scaled.ask()
            await settle()
            scaled.replicas.open[0].set_exception(LostError("it died"))
            scaled.replicas.die()
            assert scaled.replicas.starting == 1
            with pytest.raises(LostError, match="it died"):
                await task
            found = counts(scaled.tally)
            assert (found["failed"], found["died_replicas"]) == (1, 1)
            (waiting,) = scaled.ask()
            await settle()
            waiting.cancel()  # its caller has gone
            await settle()
            scaled.replicas.start()
            assert counts(scaled.tally)["waited"] == 1

    run(scenario())


def test_a_stream_is_in_flight_until_it_has_ended() -> None:
    async def chunks() -> AsyncIterator[Any]:
        yield 1
        yield 2

    async def scenario() -> None:
        async with Scaled(max=2, target=0.5) as scaled:
            (task,) = scaled.ask()
            await settle()
            scaled.replicas.open[0].set_result(Stream(chunks()))
            stream = await task
            await scaled.replicas.until(1, 1)
            scaled.replicas.start()
            assert [chunk async for chunk in stream] == [1, 2]
            await scaled.replicas.until(1, 0)

    run(scenario())


def test_an_error_of_the_model_is_no_fault_of_a_scaling() -> None:
    async def scenario() -> None:
        async with Scaled() as scaled:
            (task,) = scaled.ask()
            await settle()
            scaled.replicas.open[0].set_exception(RequestError(500, "bad input"))
            with pytest.raises(RequestError, match="bad input"):
                await task
            assert counts(scaled.tally) == {"unhurt": 1}

    run(scenario())


def test_a_target_is_a_share_of_what_a_replica_takes_at_once() -> None:
    async def scenario() -> None:
        tally = Tally(0, "autoscaled")
        replicas = Replicas(1)
        replicas.in_flight = 8
        layer = AutoscaleLayer(Autoscaled(target=0.5, window=WINDOW), replicas, tally)
        await layer.start()
        tasks = [asyncio.create_task(layer([number])) for number in range(6)]  # type: ignore[arg-type]
        await replicas.until(1, 1)  # 6 of 8 × 0.5
        for answer in replicas.open:
            answer.set_result([0])
        await asyncio.gather(*tasks)
        await layer.close()

    run(scenario())


def test_a_layer_that_never_started_closes() -> None:
    asyncio.run(AutoscaleLayer(Autoscaled(), Replicas(1), Tally(0, "autoscaled")).close())


def test_it_builds_replicas_behind_a_gateway() -> None:
    root = (Autoscaled(min=2, max=6, env={"A": "1"}) | Batched()).plan()
    assert (root.role, root.replicas) == ("service", 1)
    layer = root.inside
    assert isinstance(layer, LayerNode)
    (group,) = layer.inside
    assert isinstance(group, ProcessGroup)
    assert (group.role, group.replicas, group.most, dict(group.env)) == ("replica", 2, 6, {"A": "1"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Autoscaled() | Autoscaled(max=2), "expected one Autoscaled in a composition"),
        (lambda: Queued() | Autoscaled(), "a worker of a queue is replaced if it dies"),
        (lambda: Queued() | Cached() | Autoscaled(), r"write Autoscaled\(\) | Queued\(\)"),
        (lambda: Autoscaled(max=63) | Cached() | Replicated(2), "asks for 190 processes, expected at most 64"),
        (lambda: Replicated(16) | Autoscaled(), "asks for 80 processes"),
    ],
)
def test_what_cannot_be_composed_is_refused(make: Callable[[], Pattern], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max": 0}, "Autoscaled(max=0), expected a whole number from 1 to 63"),
        ({"max": 64}, "Autoscaled(max=64), expected a whole number from 1 to 63"),
        ({"min": -1}, "Autoscaled(min=-1), expected a whole number from 0 to 63"),
        ({"min": 5}, "Autoscaled(min=5, max=4), expected min= of at most max="),
        ({"target": 0}, "Autoscaled(target=0), expected a share of what a replica takes at once, above 0 and at most"),
        ({"target": "70%"}, "Autoscaled(target='70%'), expected a share of what a replica takes at once"),
        ({"target": True}, "Autoscaled(target=True), expected"),
        ({"window": "1ms"}, "Autoscaled(window='1ms'), expected at least 10ms; write window=\"1s\""),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as error:
        Autoscaled(**arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("name", ["window", "stable"])
def test_a_time_without_a_unit_is_refused(name: str) -> None:
    with pytest.raises(UnitError, match=rf"Autoscaled\({name}=...\) is '1'"):
        Autoscaled(**{name: "1"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "pattern", [Autoscaled(), Autoscaled(0, 8, 1.5, stable="0s"), Autoscaled(max=2, window="100ms", env={"A": "1"})]
)
def test_autoscaling_is_read_as_it_is_printed(pattern: Autoscaled) -> None:
    assert parse_pattern(str(pattern), "x") == pattern
    assert pickle.loads(pickle.dumps(pattern)) == pattern
    assert str(Autoscaled()) == "autoscaled"


@pytest.mark.parametrize("pattern", [Limited(), Batched()])
def test_it_composes_on_both_sides(pattern: Pattern) -> None:
    assert str(pattern | Autoscaled() | pattern) == f"{pattern}|autoscaled|{pattern}"
