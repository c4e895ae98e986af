"""The queue in memory: who is accepted, in which order workers get them, and what is counted."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scenarios import counts, run, settle
from support.synthetic import FEW

from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.queued import Queued, QueueLayer
from pytest_mlpatterns.patterns.tally import Tally


class Worker:
    """A worker that does what the test tells it, when the test tells it."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.most = 0
        self._open: list[asyncio.Future[Sequence[Any]]] = []

    async def __call__(self, instances: list[Any]) -> Sequence[Any]:
        self.given.append(instances[0])
        self._open.append(asyncio.get_running_loop().create_future())
        self.most = max(self.most, len(self._open))
        return await self._open[-1]

    def answer(self, *, which: int = 0) -> None:
        self._open.pop(which).set_result([f"answer of {len(self.given)}"])

    def fail(self, error: Exception) -> None:
        self._open.pop(0).set_exception(error)


async def double(instances: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return [2 * one for one in instances]


def queue(*workers: Any, capacity: int = 1000, in_flight: int = 1) -> tuple[QueueLayer, Tally]:
    tally = Tally(0, "queued")
    return QueueLayer(Queued(capacity=capacity, workers=len(workers)), workers, in_flight=in_flight, tally=tally), tally


async def test_a_request_gets_its_own_answer() -> None:
    ask, tally = queue(double, double, in_flight=2)
    answers = await asyncio.gather(*(ask([number]) for number in range(50)))
    assert [list(answer) for answer in answers] == [[2 * number] for number in range(50)]
    assert counts(tally) == {"accepted": 50, "answered": 50}
    assert sum(tally.snapshot().histograms["wait_ns"].values()) == 50


async def test_a_worker_may_answer_without_being_awaited() -> None:
    ask, _ = queue(lambda instances: [one + 1 for one in instances])
    assert await ask([1, 2]) == [2, 3]


async def test_request_that_finds_the_queue_full_is_refused_at_once_with_retry_after() -> None:
    worker = Worker()
    ask, tally = queue(worker, capacity=2)
    accepted = [await ask.enqueue([number]) for number in range(3)]  # one is given, two wait
    with pytest.raises(RequestError, match=r"2 requests wait.*larger capacity") as refused:
        await ask.enqueue([3])
    assert (refused.value.status, refused.value.retry_after_s) == (503, 1)
    assert counts(tally) == {"accepted": 3, "rejected": 1}
    await settle()
    worker.answer()
    await settle()
    accepted.append(await ask.enqueue([4]))  # there is room again
    for _ in range(3):
        worker.answer()
        await settle()
    assert all(future.done() for future in accepted)
    assert worker.given == [0, 1, 2, 4]


async def test_a_request_for_which_a_place_is_free_does_not_wait() -> None:
    first, second = Worker(), Worker()
    ask, tally = queue(first, second, capacity=1, in_flight=2)
    for number in range(4):  # none of them has begun yet, all of them have their places
        await ask.enqueue([number])
    assert {value for _, value in tally.snapshot().series["depth"]} == {0}
    await ask.enqueue([4])
    with pytest.raises(RequestError, match="full"):
        await ask.enqueue([5])
    await settle()
    assert (first.given, second.given) == ([0, 2], [1, 3])


@FEW
@given(st.data())
def test_requests_are_given_in_their_order_and_a_worker_never_has_more_than_it_may(data: st.DataObject) -> None:
    workers = [Worker() for _ in range(data.draw(st.integers(1, 3)))]
    in_flight = data.draw(st.integers(1, 3))
    count = data.draw(st.integers(1, 20))

    async def scenario() -> None:
        ask, tally = queue(*workers, in_flight=in_flight)
        order: list[int] = []
        waiting = [await ask.enqueue([number]) for number in range(count)]
        for given_before in range(count):
            await settle()
            fresh = [number for worker in workers for number in worker.given if number not in order]
            assert len(order) + len(fresh) == min(count, given_before + in_flight * len(workers))
            order += sorted(fresh)
            busy = [worker for worker in workers if worker._open]
            worker = data.draw(st.sampled_from(busy))
            worker.answer(which=data.draw(st.integers(0, len(worker._open) - 1)))
        await asyncio.gather(*waiting)
        assert order == list(range(count))
        assert max(worker.most for worker in workers) <= in_flight
        assert counts(tally) == {"accepted": count, "answered": count}

    run(scenario())


async def test_a_request_goes_to_the_worker_with_the_fewest() -> None:
    slow, quick = Worker(), Worker()
    ask, _ = queue(slow, quick, in_flight=3)
    for number in range(4):
        await ask.enqueue([number])
    await settle()
    quick.answer()
    quick.answer()
    await settle()
    for number in (4, 5):
        await ask.enqueue([number])
    await settle()
    assert (slow.given, quick.given) == ([0, 2], [1, 3, 4, 5])


class TestDeadWorkers:
    async def test_request_of_a_dead_worker_is_redelivered_before_all_others(self) -> None:
        worker = Worker()
        ask, tally = queue(worker)
        first, second = await ask.enqueue(["first"]), await ask.enqueue(["second"])
        await settle()
        worker.fail(LostError("died"))
        await settle()
        assert worker.given == ["first", "first"]
        worker.answer()
        await settle()
        worker.answer()
        assert [await first, await second] == [["answer of 2"], ["answer of 3"]]
        assert counts(tally) == {"accepted": 2, "answered": 2, "redelivered": 1}
        assert sum(tally.snapshot().histograms["wait_ns"].values()) == 2  # one for each request, not each attempt

    async def test_another_worker_that_is_free_gets_it(self) -> None:
        dying, other = Worker(), Worker()
        ask, _ = queue(dying, other)
        answer = await ask.enqueue(["request"])
        await settle()
        dying.fail(LostError("died"))
        await settle()
        assert other.given == ["request"]
        other.answer()
        assert await answer

    async def test_a_request_under_which_every_worker_dies_fails_at_the_third(self) -> None:
        worker = Worker()
        ask, tally = queue(worker)
        poison, next_one = await ask.enqueue(["poison"]), await ask.enqueue(["next"])
        for number in range(3):
            await settle()
            worker.fail(LostError(f"died {number}"))
        with pytest.raises(LostError, match="died 2") as lost:
            await poison
        assert lost.value.status == 502
        await settle()
        worker.answer()
        assert await next_one
        assert worker.given == ["poison"] * 3 + ["next"]
        assert counts(tally) == {"accepted": 2, "answered": 1, "redelivered": 2, "lost": 1}

    @pytest.mark.parametrize("error", [RequestError(500, "the model raised"), ValueError("not sendable")])
    async def test_an_error_of_the_model_is_an_answer_and_not_tried_again(self, error: Exception) -> None:
        worker = Worker()
        ask, tally = queue(worker)
        answer = await ask.enqueue(["request"])
        await settle()
        worker.fail(error)
        with pytest.raises(type(error)) as raised:
            await answer
        assert raised.value is error
        assert worker.given == ["request"]
        assert counts(tally) == {"accepted": 1, "answered": 1}


class TestCallersThatGoAway:
    async def test_while_they_wait_they_leave_the_queue(self) -> None:
        worker = Worker()
        ask, tally = queue(worker, capacity=2)
        first = await ask.enqueue(["first"])
        leaving = asyncio.create_task(ask(["leaving"]))
        staying = await ask.enqueue(["staying"])
        await settle()
        leaving.cancel()
        await settle()
        assert leaving.cancelled()
        last = await ask.enqueue(["last"])  # in the room of the one that left
        for _ in range(3):
            worker.answer()
            await settle()
        assert first.done()
        assert staying.done()
        assert last.done()
        assert worker.given == ["first", "staying", "last"]
        assert max(value for _, value in tally.snapshot().series["depth"]) <= 2

    @pytest.mark.parametrize("outcome", [None, ValueError("late"), LostError("late")])
    async def test_while_a_worker_is_at_it_the_next_one_has_its_turn_after_it(self, outcome: Exception | None) -> None:
        worker = Worker()
        ask, tally = queue(worker)
        leaving, staying = await ask.enqueue(["leaving"]), await ask.enqueue(["staying"])
        await settle()
        leaving.cancel()
        if outcome is None:
            worker.answer()
        else:
            worker.fail(outcome)
        await settle()
        assert worker.given == ["leaving", "staying"]
        worker.answer()
        assert await staying
        assert "redelivered" not in counts(tally)


async def test_the_mean_depth_is_the_rate_times_the_mean_wait() -> None:
    async def serve(instances: list[int]) -> list[int]:
        await asyncio.sleep(0.002)  # time must pass for there to be any to account for
        return instances

    ask, tally = queue(serve, serve)
    before = tally.snapshot()
    for burst in (20, 1, 35):
        await asyncio.gather(*(ask([number]) for number in range(burst)))
    stats = tally.snapshot().since(before)
    waited_ns = stats.mean("wait_ns")
    mean_depth = stats.counters["depth_ns"] / stats.counters["observed_ns"]
    rate_per_ns = stats.counters["accepted"] / stats.counters["observed_ns"]
    assert mean_depth > 1
    assert mean_depth == pytest.approx(rate_per_ns * waited_ns, rel=0.03)
