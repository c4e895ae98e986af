"""Requests whose answers are fetched later: once, by their id, and not for ever."""

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import pytest
from support.synthetic import S

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.queued import Queued, QueueLayer
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.http.async_jobs import AsyncJobs

LONG_S = 10.0


class Service:
    """A queue before one worker that answers when the test lets it, and jobs on a clock of the test's own."""

    def __init__(self, capacity: int = 1000) -> None:
        self.gate = asyncio.Event()
        self.now_ns = 1000 * S
        queue = QueueLayer(Queued(capacity=capacity), [self._work], in_flight=1, tally=Tally(0, "queued"))
        self.jobs = AsyncJobs(queue, clock=lambda: self.now_ns)

    async def _work(self, instances: list[Any]) -> list[Any]:
        await self.gate.wait()
        if instances == ["broken"]:
            raise RequestError(500, "the model raised")
        return [2 * one for one in instances]

    async def done(self, instances: list[Any]) -> str:
        """A job that is done, and not fetched."""
        job = await self.jobs.submit(instances)
        self.gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        return job


async def test_a_job_is_answered_with_its_own_result() -> None:
    service = Service()
    jobs = [await service.jobs.submit([number]) for number in range(20)]
    assert len(set(jobs)) == 20
    service.gate.set()
    for number in reversed(range(20)):
        assert await service.jobs.result(jobs[number], LONG_S) == [2 * number]


@pytest.mark.parametrize("wait_s", [0, 0.01])
async def test_a_job_that_is_not_done_yet_has_no_result_yet(wait_s: float) -> None:
    service = Service()
    job = await service.jobs.submit([1])
    assert await service.jobs.result(job, wait_s) is None
    assert await service.jobs.result(job, wait_s) is None
    service.gate.set()
    assert await service.jobs.result(job, LONG_S) == [2]


async def test_who_asks_early_is_answered_as_soon_as_it_is_done() -> None:
    service = Service()
    asking = asyncio.create_task(service.jobs.result(await service.jobs.submit([1]), LONG_S * 100))
    await asyncio.sleep(0)
    service.gate.set()
    assert await asking == [2]


async def test_a_caller_that_goes_away_does_not_take_the_job_with_it() -> None:
    service = Service()
    job = await service.jobs.submit([1])
    asking = asyncio.create_task(service.jobs.result(job, LONG_S))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    service.gate.set()
    assert await service.jobs.result(job, LONG_S) == [2]


async def test_a_job_that_failed_raises_its_own_error_once() -> None:
    service = Service()
    job = await service.done(["broken"])
    with pytest.raises(RequestError, match="the model raised") as raised:
        await service.jobs.result(job)
    assert raised.value.status == 500
    with pytest.raises(RequestError, match="no job"):
        await service.jobs.result(job)


async def test_an_id_that_nobody_was_given_is_not_found() -> None:
    with pytest.raises(RequestError, match=r"no job 'nonsense'.*fetched once, within 10 minutes") as raised:
        await Service().jobs.result("nonsense")
    assert raised.value.status == 404


async def test_of_two_that_fetch_the_same_job_one_gets_it() -> None:
    service = Service()
    job = await service.jobs.submit([1])
    asking = [asyncio.create_task(service.jobs.result(job, LONG_S)) for _ in range(2)]
    await asyncio.sleep(0)
    service.gate.set()
    first, second = await asyncio.gather(*asking, return_exceptions=True)
    assert first == [2]
    assert isinstance(second, RequestError)
    assert second.status == 404


async def test_a_queue_that_is_full_refuses_a_job_as_any_request() -> None:
    service = Service(capacity=1)
    for number in range(2):
        await service.jobs.submit([number])
    with pytest.raises(RequestError, match="full") as refused:
        await service.jobs.submit([2])
    assert refused.value.status == 503


async def test_a_result_that_nobody_fetches_is_forgotten_ten_minutes_after_it_is_done() -> None:
    service = Service()
    old = await service.done([1])
    service.now_ns += 300 * S
    fresh = await service.done([2])
    service.now_ns += 300 * S
    with pytest.raises(RequestError, match="no job"):
        await service.jobs.result(old)
    assert await service.jobs.result(fresh) == [4]


async def test_a_job_is_never_forgotten_before_it_is_done() -> None:
    service = Service()
    job = await service.jobs.submit([1])
    service.now_ns += 3600 * S
    await service.jobs.submit([2])
    service.gate.set()
    assert await service.jobs.result(job, LONG_S) == [2]


async def test_errors_that_nobody_fetches_are_forgotten_without_a_word() -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    service = Service()
    await service.done(["broken"])
    service.now_ns += 600 * S
    await service.jobs.submit([1])
    gc.collect()
    assert said == []
    assert len(service.jobs._jobs) == 1


async def test_a_result_that_is_there_at_once_is_fetched_at_once_and_nothing_of_it_is_kept() -> None:
    class Instant:
        async def enqueue(self, instances: list[Any]) -> asyncio.Future[Sequence[Any]]:
            outputs: asyncio.Future[Sequence[Any]] = asyncio.get_running_loop().create_future()
            outputs.set_result(instances)
            return outputs

    jobs = AsyncJobs(Instant())
    assert await jobs.result(await jobs.submit([1])) == [1]
    await asyncio.sleep(0)
    assert not jobs._jobs
    assert not jobs._done_ns
